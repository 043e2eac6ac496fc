"""List the pictures in a folder of DICOM files, by pseudonyms; what is left out is named, with the reason."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning_transfer.data.dicom_facts import facts_of
from lightning_transfer.data.dicom_header import BROKEN, is_dicom, open_dicom, reason
from lightning_transfer.data.dicom_silence import silence
from lightning_transfer.data.paths import check_folder
from lightning_transfer.data.private_values import age_in_years, pseudonym
from lightning_transfer.data.progress import Progress, quiet
from lightning_transfer.data.scan_options import ScanFacts, ScanOptions
from lightning_transfer.errors import DataError

__all__ = ["DicomFolder", "DicomRow", "dicom_folder"]


@dataclass(frozen=True)
class DicomRow:
    """One DICOM file that holds a picture; identifiers are pseudonyms, empty where the file names none.

    Attributes:
        path: Relative to the root, with slashes.
        patient: Pseudonym of the patient; of the study where no patient is named.
        study: Pseudonym.
        series: Pseudonym.
        site: Pseudonym of the institution.
        scanner: Maker and model, as they are.
        device: Pseudonym of the machine: its serial number or station.
        view: ``PA``, ``AP``, ``LL``, ...
        modality: ``CR``, ``CT``, ...
        sex: ``F``, ``M``, ``O`` or empty.
        age: In years, at most 90; None if unknown.
        laterality: ``L``, ``R``, ``B`` or empty.
        body_part: As the standard names it.
        frames: In the file.
        instance: Number within the series, by which slices are put in order; None if unknown.
        facts: All that the header says of the picture.
    """

    path: str
    patient: str
    study: str
    series: str
    site: str
    scanner: str
    device: str
    view: str
    modality: str
    sex: str
    age: float | None
    laterality: str
    body_part: str
    frames: int
    instance: int | None
    facts: ScanFacts


class DicomFolder(NamedTuple):
    """What `dicom_folder` found: rows, and the files that are left out (path relative to the root, reason)."""

    rows: list[DicomRow]
    skipped: list[tuple[str, str]]


def dicom_folder(
    root: str | Path, salt: str | None = None, *, options: ScanOptions | None = None, progress: Progress = quiet
) -> DicomFolder:
    """Return a row for each DICOM file with a picture, in the order of their paths; no pixels are read.

    What a file is, its content says: files without suffix are read, and a text that is named ``.dcm`` is left out.

    Args:
        root: With any folders below; their names, which often are those of patients, mean nothing.
        salt: Secret of the pseudonyms, see `pseudonym`; None draws one for this call, so that no two calls agree.
        options: Whose limits hold, such as ``modalities``.
        progress: Makes the bar.

    Raises:
        DataError: If there is no such folder.
    """
    folder = check_folder(root)
    salt = secrets.token_hex(16) if salt is None else salt
    paths = sorted(_files(folder))
    rows: list[DicomRow] = []
    skipped: list[tuple[str, str]] = []
    with progress("DICOM", len(paths)) as bar:
        for path in paths:
            name = path.relative_to(folder).as_posix()
            try:
                rows.append(_row(path, name, salt, options or ScanOptions()))
            except DataError as error:
                skipped.append((name, str(error)))
            bar.update(1)
    return DicomFolder(rows, skipped)


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files but hidden ones; links to folders are followed once at most, so that circles end."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _row(path: Path, name: str, salt: str, options: ScanOptions) -> DicomRow:
    if not is_dicom(path):
        raise DataError("no DICOM file")
    with silence():
        header = open_dicom(path, pixels=False).header
        try:
            facts = facts_of(header, 0, options)
            study = _identifier(header, "StudyInstanceUID")
            # Without the issuer: a file that lacks it would seem another patient, on the other side of a split.
            # Without a patient, files of one study are of one: else every file would seem a patient of its own.
            patient = _identifier(header, "PatientID") or _identifier(header, "PatientName") or study
            device = _identifier(header, "DeviceSerialNumber") or _identifier(header, "StationName")
            instance = _identifier(header, "InstanceNumber")
        except DataError as error:
            raise DataError(f"{error}.") from None
        except BROKEN as error:
            raise DataError(f"{reason(error, header)}.") from None
        tags = facts.tags
        return DicomRow(
            name,
            pseudonym(patient, salt),
            pseudonym(study, salt),
            pseudonym(_identifier(header, "SeriesInstanceUID"), salt),
            pseudonym(_identifier(header, "InstitutionName"), salt),
            facts.scanner,
            pseudonym(device, salt),
            facts.view,
            facts.modality,
            tags.get("PatientSex", ""),
            age_in_years(tags.get("PatientAge", "")),
            tags.get("ImageLaterality") or tags.get("Laterality", ""),
            tags.get("BodyPartExamined", ""),
            facts.frames,
            int(instance) if instance.lstrip("+-").isdigit() else None,
            facts,
        )


def _identifier(header: Any, keyword: str) -> str:  # noqa: ANN401 - pydicom.Dataset
    """Return a value to be hashed, empty if there is none or it cannot be read."""
    try:
        return str(header.get(keyword) or "").strip(" \0")
    except BROKEN:
        return ""
