"""What the header of a DICOM file says of its picture, as far as it may be kept, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lightning_transfer.data.dicom_header import BROKEN, code, open_dicom, reason, refusal
from lightning_transfer.data.dicom_silence import silence
from lightning_transfer.data.dicom_values import number, numbers
from lightning_transfer.data.private_values import KEPT_TAGS, kept_tags
from lightning_transfer.data.scan_options import ScanFacts, ScanOptions
from lightning_transfer.errors import DataError, listing

__all__ = ["GREY", "dicom_facts", "facts_of", "frame_header"]

_Dataset = Any  # pydicom.Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")
_NEEDED = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation")
_DICOMDIR = "1.2.840.10008.1.3.10"
_PLANES = ("sagittal", "coronal", "axial")
_FRAME_GROUPS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PixelMeasuresSequence",
    "PlaneOrientationSequence",
    "FrameAnatomySequence",
)


def dicom_facts(path: str | Path, options: ScanOptions | None = None) -> ScanFacts:
    """Return what the header says of a picture, without decoding it.

    Args:
        path: The file.
        options: Whose limits hold; which frame is not asked.

    Raises:
        DataError: As `read_dicom`, as far as the header tells.
    """
    with silence():
        header = open_dicom(path, pixels=False).header
        try:
            return facts_of(header, 0, options or ScanOptions())
        except DataError as error:
            raise refusal(path, str(error)) from None
        except BROKEN as error:
            raise refusal(path, reason(error, header)) from None


def facts_of(header: _Dataset, frame: int | None, options: ScanOptions) -> ScanFacts:
    """Check what must be known before decoding, and return what the header says.

    Raises:
        DataError: With the reason; names no file.
    """
    meta = getattr(header, "file_meta", {})
    modality = code(header, "Modality")
    if str(meta.get("MediaStorageSOPClassUID", "")) == _DICOMDIR or "DirectoryRecordSequence" in header:
        raise DataError("it is a DICOMDIR, a list of other files. Give the folder of those")
    if "Rows" not in header and "Columns" not in header:
        kind = f" (modality {modality})" if modality else ""
        raise DataError(f"it holds no picture{kind}: it has no `Rows` and no pixel data")
    missing = [keyword for keyword in _NEEDED if header.get(keyword) in (None, "")]
    if missing:
        raise DataError(f"it lacks {listing(f'`{keyword}`' for keyword in missing)}")
    if options.modalities and modality not in options.modalities:
        raise DataError(f"its modality is {modality or 'unknown'}, expected {' or '.join(options.modalities)}")
    rows, columns = int(number(header, "Rows")), int(number(header, "Columns"))
    frames = int(number(header, "NumberOfFrames", 1))
    if min(rows, columns, frames) < 1:
        raise DataError(f"it has {rows} rows, {columns} columns and {frames} frames, so no picture")
    if rows * columns > options.max_megapixels * 1e6:
        raise DataError(
            f"too large, {columns} x {rows} pixels are {rows * columns / 1e6:.4g} megapixels; the limit is"
            f" {options.max_megapixels:g}. If it is a real picture, raise `max_megapixels`"
        )
    if frame is None and frames > 1:
        raise DataError(f"it holds {frames} frames. Name one as `ImagePart(path, 0)`, or set `frame`")
    if frame is not None and frame >= frames:
        raise DataError(f"it holds {frames} frame{'s' * (frames > 1)}, counted from 0, and {frame} is asked for")
    photometric = code(header, "PhotometricInterpretation")
    samples, allocated = int(number(header, "SamplesPerPixel")), int(number(header, "BitsAllocated"))
    if samples not in (1, 3) or (samples == 1) != (photometric in (*GREY, "PALETTE COLOR")):
        raise DataError(f"its `Photometric Interpretation` does not fit {samples} samples for each pixel")
    stored = int(number(header, "BitsStored", allocated))
    if not 1 <= stored <= allocated or allocated not in (1, 8, 16, 32, 64):
        raise DataError(f"its values have {stored} bits stored in {allocated} allocated, which cannot be")
    values = frame_header(header, frame or 0)
    tags = kept_tags(_known_values(values))
    return ScanFacts(
        "dicom",
        rows,
        columns,
        stored,
        photometric,
        modality,
        _spacing(values),
        tags.get("Manufacturer", ""),
        tags.get("ManufacturerModelName", ""),
        {"YES": True, "NO": False}.get(tags.get("BurnedInAnnotation", "")),
        tags.get("ViewPosition", ""),
        frames,
        _orientation(values, tags),
        tags=tags,
    )


def frame_header(header: _Dataset, frame: int) -> _Dataset:
    """Return the header with what enhanced multi-frame objects say of the frame, or of all, in groups of their own."""
    import pydicom

    merged = None
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups = header.get(sequence)
        if not groups:
            continue
        place = frame if sequence.startswith("Per") else 0
        if place >= len(groups):
            raise DataError(f"it describes {len(groups)} frames, and frame {frame} is asked for")
        if merged is None:
            merged = pydicom.Dataset()
            merged.update(header)
        for element in groups[place]:
            if element.VR == "SQ" and element.keyword in _FRAME_GROUPS and element.value:
                merged.update(element.value[0])
    return header if merged is None else merged


def _known_values(header: _Dataset) -> dict[str, Any]:
    """Return the values of the keep-list that can be read."""
    found = {}
    for keyword in KEPT_TAGS:
        try:
            value = header.get(keyword)
        except BROKEN:
            continue
        if value is not None and value != "":
            found[keyword] = value
    return found


def _spacing(header: _Dataset) -> tuple[float, float] | None:
    """Return millimetres between rows and between columns, in the patient where that is known, else at the detector."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = numbers(header, keyword)
        if len(found) == 2:
            if min(found) <= 0:
                raise DataError(f"its `{keyword}` is {found[0]:g} and {found[1]:g} mm, which cannot be")
            return found[0], found[1]
    return None


def _orientation(header: _Dataset, tags: dict[str, str]) -> str:
    """Return the plane nearest to the picture's, or the directions of rows and columns."""
    found = numbers(header, "ImageOrientationPatient")
    if len(found) == 6:
        normal = np.abs(np.cross(found[:3], found[3:]))
        return _PLANES[int(normal.argmax())] if normal.max() > 0 else ""
    return tags.get("PatientOrientation", "").replace("\\", "/")
