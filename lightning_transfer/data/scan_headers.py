"""Take patient, study and site from DICOM headers, where no table says them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_transfer.data.deidentification import source_path
from lightning_transfer.data.dicom_header import is_dicom, open_dicom
from lightning_transfer.data.findings_table import plain_age
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

__all__ = ["fill_from_headers", "header_columns"]

_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "study": ("StudyInstanceUID",),
    "site": ("InstitutionName",),
    "view": ("ViewPosition",),
    "age": ("PatientAge",),
    "sex": ("PatientSex",),
    "scanner": ("Manufacturer", "ManufacturerModelName"),
}


def fill_from_headers(records: Sequence[Record], hide: Callable[[str], str] | None = None) -> list[Record]:
    """Return records of DICOM files with the patient and the columns that their headers know, and no table did.

    Other files stay as they are. What a table says comes first, an empty cell included where the column exists. A file
    whose header cannot be read stays alone: the check of the files refuses it by its reason.

    Args:
        records: ``group`` is the patient; those that have one are not opened.
        hide: Makes pseudonyms of institutions: where headers name one, nobody has decided that it may be shown.
    """
    found = []
    for record in records:
        path = source_path(record.input)
        if record.group is not None or not path or not is_dicom(path):
            found.append(record)
            continue
        try:
            patient, columns = header_columns(path)
        except DataError:
            found.append(replace(record, group=f"file {record.id}"))
            continue
        if hide is not None and "site" in columns:
            columns["site"] = hide(columns["site"])
        found.append(replace(record, group=patient or None, meta={**columns, **record.meta}))
    return found


def header_columns(path: str) -> tuple[str, dict[str, str]]:
    """Return the patient, empty if unknown, and what else the header says, in our names of columns.

    The issuer of a patient's number does not count: a file that lacks it would seem another patient, and come to the
    other side of a split. Where hospitals number their own, that is said by the user.

    Raises:
        DataError: If the header cannot be read.
    """
    header = open_dicom(path).header
    columns = {}
    for name, keywords in _KEYWORDS.items():
        value = " ".join(filter(None, (_text(header, keyword) for keyword in keywords)))
        if value:
            columns[name] = plain_age(value) if name == "age" else value
    return _text(header, "PatientID") or _text(header, "PatientName"), columns


def _text(header: Any, keyword: str) -> str:  # noqa: ANN401 - pydicom.Dataset
    try:
        return str(header.get(keyword) or "").strip(" \0")
    except (TypeError, ValueError, NotImplementedError):  # a value that is none of its kind
        return ""
