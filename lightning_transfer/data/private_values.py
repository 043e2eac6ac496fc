"""What may be kept of a patient's record: pseudonyms in place of identifiers, and the tags that name nobody."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["KEPT_TAGS", "OLDEST", "age_in_years", "kept_tags", "pseudonym"]

OLDEST = 90
"""Ages from here on are one: of so few people, the age itself names them (as HIPAA's safe harbour has it)."""

_CODE = re.compile(r"[A-Z0-9 _]{1,16}")  # VR CS: terms of the standard
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_MAKER = re.compile(r"[\w .,&+/()\-]{1,64}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}

_CODES = (
    "Modality",
    "ViewPosition",
    "PhotometricInterpretation",
    "BodyPartExamined",
    "Laterality",
    "ImageLaterality",
    "PatientPosition",
    "PatientOrientation",
    "PatientSex",
    "BurnedInAnnotation",
    "ConversionType",
    "LossyImageCompression",
    "PresentationIntentType",
    "DetectorType",
    "ScanningSequence",
    "SequenceVariant",
    "RescaleType",
    "VOILUTFunction",
)
_NUMBERS = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "NumberOfFrames",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImageOrientationPatient",
    "WindowCenter",
    "WindowWidth",
    "RescaleSlope",
    "RescaleIntercept",
    "KVP",
    "Exposure",
    "ExposureTime",
    "XRayTubeCurrent",
    "MagneticFieldStrength",
    "EchoTime",
    "RepetitionTime",
)
_MAKERS = ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel")
_AGES = ("PatientAge",)

_RULES: Mapping[str, re.Pattern[str]] = {
    **dict.fromkeys(_CODES, _CODE),
    **dict.fromkeys(_NUMBERS, _NUMBER),
    **dict.fromkeys(_MAKERS, _MAKER),
    **dict.fromkeys(_AGES, _AGE),
}

KEPT_TAGS: tuple[str, ...] = tuple(_RULES)
"""Keywords of DICOM that are kept, and no others: how a picture was made, by which kind of machine, sex and age."""


def pseudonym(value: str, salt: str) -> str:
    """Return 12 hexadecimal digits that stand for an identifier, the same for the same value and salt.

    A keyed hash (HMAC-SHA-256): who has not the salt cannot try all patient numbers until one fits. Who has it can, so
    it is kept as the identifiers are. Of a million patients two share a pseudonym with a probability of 0.2%.

    Args:
        value: Patient, study, institution. Blanks and nulls around it, which DICOM pads with, do not count.
        salt: Secret of the data set, of any length above 0.

    Returns:
        Empty for an empty value: unknown is no patient.

    Raises:
        ValueError: If the salt is empty.

    Example:
        >>> pseudonym("Doe^John", "secret"), pseudonym("Doe^John ", "secret") == pseudonym("Doe^John", "secret")
        ('80550f3c55d0', True)
        >>> pseudonym("", "secret")
        ''
    """
    if not salt:
        raise ValueError("Expected a `salt` of at least one character, got an empty one. Without it anybody can guess.")
    plain = str(value).strip(" \0\t\r\n")
    return hmac.new(salt.encode(), plain.encode(), hashlib.sha256).hexdigest()[:12] if plain else ""


def kept_tags(values: Mapping[str, Any]) -> dict[str, str]:
    r"""Return the tags of the keep-list whose value is of the form that the standard gives them.

    A name that was typed into a field of codes or numbers is dropped with the field. Ages from 90 on are 90.

    Args:
        values: From keyword to value, several of them in a sequence.

    Example:
        >>> kept_tags({"Modality": "CR", "PatientName": "Doe", "PatientAge": "093Y", "PixelSpacing": [0.1, 0.1]})
        {'Modality': 'CR', 'PixelSpacing': '0.1\\0.1', 'PatientAge': '090Y'}
        >>> kept_tags({"BodyPartExamined": "Mrs. Doe"})
        {}
    """
    kept = {}
    for keyword, rule in _RULES.items():
        value = values.get(keyword)
        if value is None:
            continue
        parts = [str(part).strip(" \0") for part in ([value] if isinstance(value, str) else _parts(value))]
        if not parts or not all(rule.fullmatch(part) for part in parts):
            continue
        if keyword in _AGES and (age_in_years(parts[0]) or 0) >= OLDEST:
            parts = [f"{OLDEST:03d}Y"]
        kept[keyword] = "\\".join(parts)
    return kept


def age_in_years(value: str) -> float | None:
    """Return what an age string of DICOM (``034Y``, ``006M``) says, at most 90; None if it says nothing.

    Example:
        >>> age_in_years("034Y"), age_in_years("006M"), age_in_years("099Y"), age_in_years("old")
        (34.0, 0.5, 90.0, None)
    """
    match = _AGE.fullmatch(str(value).strip(" \0"))
    return min(float(OLDEST), int(match[1]) * _YEARS[match[2]]) if match else None


def _parts(value: Any) -> list[Any]:  # noqa: ANN401 - number, or sequence of numbers or texts
    return list(value) if hasattr(value, "__iter__") else [value]
