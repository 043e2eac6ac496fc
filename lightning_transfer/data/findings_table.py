"""Read tables of medical images: patients, studies, sites, and a column a finding with 1, 0, -1 (uncertain) or nothing.

Made for millions of rows: paths are resolved once a folder, and what many rows have in common is held once. No message
says more of a row than its number, its file's name and the value that is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lightning_transfer.data.paths import check_folder, resolve_inside
from lightning_transfer.data.tables import OnBadFile, Skipped, read_csv, require_columns, split_name
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

__all__ = ["FACT_COLUMNS", "FindingsTable", "TableColumns", "path_group", "plain_age", "read_findings"]
__all__ += ["suggest_patient"]

FACT_COLUMNS = ("study", "site", "view", "age", "sex", "scanner")
"""Keys of ``Record.meta`` that mean the same in every medical data set, whatever the table calls them."""

UNCERTAIN = -1.0

_VALUES: Mapping[str, float | None] = {
    "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": UNCERTAIN, "-1.0": UNCERTAIN, "": None, "nan": None,
}  # fmt: skip
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([YMWDymwd]?)")
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table are called; None takes the role's own name where the table has it.

    Attributes:
        path: The file, relative to the root.
        patient: Who stays on one side of every split.
        study: The examination that the image belongs to.
        site: Hospital or department.
        view: Projection or series: PA, AP, lateral.
        age: In years, or as DICOM writes it (``054Y``, ``006M``).
        sex: As written.
        scanner: Device, or its maker.
        split: ``train``, ``val``, ``calibration`` or ``test``.
        mask: File of the mask, relative to the root.
        index: Number of the slice, the frame or the row, for files that hold many images.
    """

    path: str = "path"
    patient: str | None = None
    study: str | None = None
    site: str | None = None
    view: str | None = None
    age: str | None = None
    sex: str | None = None
    scanner: str | None = None
    split: str | None = None
    mask: str | None = None
    index: str | None = None


@dataclass
class FindingsTable:
    """What was read.

    Attributes:
        records: One a row; ``group`` is the patient, ``meta`` has `FACT_COLUMNS` where known, and what else was wanted.
            Labels: a class, or for findings ``1.0``, ``0.0`` or None each; an uncertain value is None here.
        uncertain: Id -> places of the findings that are uncertain there.
        skipped: Rows that cannot be used, with reasons.
        roles: Role -> column that was taken for it.
        columns: Names of all columns.
    """

    records: list[Record] = field(default_factory=list)
    uncertain: dict[str, tuple[int, ...]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    roles: dict[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


def read_findings(
    table: str | Path,
    root: str | Path,
    *,
    findings: Sequence[str] = (),
    label_column: str | None = None,
    columns: TableColumns | None = None,
    patient_pattern: str | None = None,
    study_pattern: str | None = None,
    extra_columns: Sequence[str] | None = None,
    label_optional: bool = False,
    on_bad_file: OnBadFile = "error",
) -> FindingsTable:
    """Read one record from each row.

    Args:
        table: CSV file.
        root: Folder that paths are relative to and may not leave.
        findings: Columns of ``1``, ``0``, ``-1`` or nothing.
        label_column: Of the class, where it is no finding.
        columns: Names of the others.
        patient_pattern: Regular expression for the path whose first parentheses match the patient, where no column
            does.
        study_pattern: Likewise, for the study.
        extra_columns: Kept in ``meta`` as they are; None keeps all that have no role.
        label_optional: Columns of labels may be missing (prediction).
        on_bad_file: ``skip`` leaves out rows that cannot be used, and lists them.

    Raises:
        DataError: If the table cannot be read, a column is unknown, a row is unusable, an image comes twice, or a path
            leaves the root. No message has a patient in it.
    """
    file = Path(table)
    ragged: list[tuple[int, str]] = []
    names, rows = read_csv(file, ragged=ragged if on_bad_file == "skip" else None)
    reader = _Reader(file, check_folder(root), names, findings, label_column, columns or TableColumns())
    reader.find(patient_pattern, study_pattern, extra_columns, label_optional=label_optional)
    found = FindingsTable(roles=reader.roles, columns=tuple(names))
    bad = dict(ragged)
    for place, cells in enumerate(rows):
        try:
            if place in bad:
                raise DataError(f"{bad[place]}.")
            record, uncertain = reader.record(place, cells)
        except DataError as error:
            if on_bad_file == "error":
                raise
            found.skipped.append(Skipped(Record(id=f"row {place + 2}", input=None), str(error), place))
            continue
        found.records.append(record)
        if uncertain:
            found.uncertain[record.id] = uncertain
    if not found.records:
        raise DataError(f"No row of `{file}` can be used: {listing(skip.reason for skip in found.skipped)}.")
    return found


class _Reader:
    """Turn rows of one table into records."""

    def __init__(
        self,
        file: Path,
        root: Path,
        names: Sequence[str],
        findings: Sequence[str],
        label_column: str | None,
        columns: TableColumns,
    ) -> None:
        self.file, self.root, self.names = file, root, names
        self.findings, self.label_column, self.columns = findings, label_column, columns
        self.roles: dict[str, str] = {}
        self._place: dict[str, int] = {}
        self._labels: list[int] = []
        self._kept: list[tuple[str, int]] = []
        self._patterns: dict[str, str | None] = {}
        self._rows: dict[tuple[str, int | None], int] = {}  # file and index -> row
        self._folders: dict[str, Path] = {}
        # What many rows share is made once: a million small tuples and dicts are a gigabyte.
        self._tuples: dict[tuple[float | None, ...], tuple[float | None, ...]] = {}
        self._metas: dict[tuple[str, ...], dict[str, str]] = {}

    def find(
        self,
        patient_pattern: str | None,
        study_pattern: str | None,
        extra_columns: Sequence[str] | None,
        *,
        label_optional: bool,
    ) -> None:
        """Find the column of each role, and refuse names that the table lacks."""
        wanted = {role.name: getattr(self.columns, role.name) for role in fields(self.columns)}
        labels = list(self.findings) or [name for name in (self.label_column,) if name is not None]
        if label_optional and not all(name in self.names for name in labels):
            labels = []
        named = {f"{role}_column": [name] for role, name in wanted.items() if name is not None}
        named["findings" if self.findings else "label_column"] = labels
        named["extra_columns"] = list(extra_columns or ())
        require_columns(named, self.names, self.file)
        for role, name in wanted.items():
            column = name or (role if role in self.names and role not in labels else None)
            if column is not None:
                self.roles[role] = column
        used = [*self.roles.values(), *labels]
        twice = sorted({name for name in used if used.count(name) > 1})
        if twice:
            raise DataError(f"The column `{twice[0]}` of `{self.file}` has two roles. Name another for one of them.")
        self._place = {role: self.names.index(name) for role, name in self.roles.items()}
        self._labels = [self.names.index(name) for name in labels]
        self._patterns = {"patient": patient_pattern, "study": study_pattern}
        others = extra_columns if extra_columns is not None else [name for name in self.names if name not in used]
        facts = [(role, self._place[role]) for role in FACT_COLUMNS if role in self._place]
        taken = {role for role, _ in facts}
        self._kept = [*facts, *((name, self.names.index(name)) for name in others if name not in taken)]

    def record(self, place: int, cells: Sequence[str]) -> tuple[Record, tuple[int, ...]]:
        """Return the record of a row, and which of its findings are uncertain."""
        where = f"`{self.file}`, row {place + 2}"  # as a spreadsheet counts: the header is row 1
        text = cells[self._place["path"]].strip()
        if not text:
            raise DataError(f"{where}: the column `{self.roles['path']}` is empty. Fill it or remove the row.")
        index = self._index(cells, where)
        first = self._rows.setdefault((text, index), place + 2)
        if first != place + 2:
            raise DataError(f"{where}: the image `{Path(text).name}` is already that of row {first}. Remove one.")
        path = self._resolve(text, where)
        label, uncertain = self._label(cells, where)
        patient = self._cell(cells, "patient") or self._matched("patient", text, where)
        split = self._cell(cells, "split")
        mask = self._cell(cells, "mask")
        record = Record(
            id=text if index is None else f"{text}#{index}",
            input=path if index is None else ImagePart(str(path), index),
            label=label,
            split=split_name(split, where) if split else None,
            group=patient or None,
            meta=self._meta(cells, text, where),
            mask=self._resolve(mask, where) if mask else None,
        )
        return record, uncertain

    def _cell(self, cells: Sequence[str], role: str) -> str:
        place = self._place.get(role)
        return "" if place is None else cells[place].strip()

    def _index(self, cells: Sequence[str], where: str) -> int | None:
        text = self._cell(cells, "index")
        if not text:
            return None
        if not text.isdecimal():
            raise DataError(
                f"{where}: `{self.roles['index']}` is `{text}`. Expected a whole number from 0, or nothing."
            )
        return int(text)

    def _matched(self, role: str, path: str, where: str) -> str:
        pattern = self._patterns[role]
        return "" if pattern is None else path_group(path, pattern, f"{role}_pattern", where)

    def _label(self, cells: Sequence[str], where: str) -> tuple[Any, tuple[int, ...]]:
        if not self._labels:
            return None, ()
        if not self.findings:
            return cells[self._labels[0]].strip() or None, ()
        values = []
        for name, place in zip(self.findings, self._labels, strict=True):
            text = cells[place].strip().lower()
            if text not in _VALUES:
                raise DataError(
                    f"{where}: `{name}` is `{cells[place]}`. Expected 1, 0, -1 (uncertain) or nothing (unknown)."
                )
            values.append(_VALUES[text])
        uncertain = tuple(place for place, value in enumerate(values) if value == UNCERTAIN)
        label = tuple(None if value == UNCERTAIN else value for value in values)
        return self._tuples.setdefault(label, label), uncertain

    def _meta(self, cells: Sequence[str], path: str, where: str) -> dict[str, str]:
        values = [cells[place].strip() for _, place in self._kept]
        if "study" not in self._place and self._patterns["study"] is not None:
            values.append(self._matched("study", path, where))
        key = tuple(values)
        if key not in self._metas:
            names = [name for name, _ in self._kept]
            found = dict(zip([*names, *["study"] * (len(values) - len(names))], values, strict=True))
            if "age" in found:
                found["age"] = plain_age(found["age"])
            self._metas[key] = found
        return self._metas[key]

    def _resolve(self, text: str, where: str) -> Path:
        """Return the file below the root; links are followed once a folder, and for a file that is one."""
        folder, name = os.path.split(text)
        if folder not in self._folders:
            self._folders[folder] = resolve_inside(self.root, folder or ".", where)
        path = self._folders[folder] / name
        if name in ("", ".", "..") or "\0" in name or path.is_symlink():
            return resolve_inside(self.root, text, where)
        return path


def plain_age(text: str) -> str:
    """Return an age in years as a number, from a number or from what DICOM writes; else the text as it is.

    Example:
        >>> plain_age("054Y"), plain_age("006M"), plain_age("63.0"), plain_age("adult")
        ('54', '0.5', '63', 'adult')
    """
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return text.strip()
    return f"{float(match.group(1)) / _PER_YEAR[match.group(2).upper()]:.4g}"


def path_group(path: str, pattern: str, option: str, where: str) -> str:
    """Return what the pattern's first parentheses match in a path.

    Raises:
        DataError: If it matches nothing, or has no parentheses; names the option and the file, not the whole path.

    Example:
        >>> path_group("train/patient07/view1.jpg", "patient([0-9]+)", "patient_pattern", "train.csv, row 2")
        '07'
    """
    match = re.search(pattern, path)
    if match is None or not match.groups() or not match.group(1):
        raise DataError(
            f"{where}: `{option}` `{pattern}` finds nothing in the path of `{Path(path).name}`. It needs parentheses"
            " around what it is to find."
        )
    return match.group(1)


def suggest_patient(names: Sequence[str]) -> str:
    """Return the hint that names a column which looks like the patient's; empty where none does.

    Example:
        >>> suggest_patient(["path", "patientid"])
        ' `patientid` looks like it.'
    """
    near = [name for name in names if re.search(r"patient|subject|person", name, re.IGNORECASE)]
    return f" `{near[0]}` looks like it." if near else closest("patient", names)
