"""Read a set of medical images in whatever layout it has, as records whose group is the patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_transfer.data.findings_table import TableColumns, read_findings
from lightning_transfer.data.nifti_files import nifti_facts
from lightning_transfer.data.paths import check_folder
from lightning_transfer.data.scan_collections import read_medmnist, read_nnunet
from lightning_transfer.data.scan_layouts import SCAN_LAYOUTS, ScanLayout, ScanSet, read_scan_folder
from lightning_transfer.data.tables import OnBadFile
from lightning_transfer.data.uncertain_labels import class_of_finding
from lightning_transfer.errors import DataError, listing
from lightning_transfer.types import Record

__all__ = ["SetOptions", "add_test", "choose_views", "describe_set", "read_scan_set", "set_task"]


@dataclass(frozen=True)
class SetOptions:
    """How a set is read, whatever its layout.

    Attributes:
        findings: Columns of ``1``, ``0``, ``-1`` or nothing; with one alone the labels are classes, ``no NAME`` and
            ``NAME``.
        label_column: Of the class, where it is no finding.
        columns: Names of the table's other columns.
        patient_pattern: For the path; its first parentheses match the patient.
        study_pattern: Likewise, the study.
        extra_columns: Of the table, that are kept; None keeps all.
        classes: Names of the labels that a layout numbers.
        channel: Of nnU-Net's cases.
        slice_step: Every how many-th slice of nnU-Net's volumes.
    """

    findings: tuple[str, ...] = ()
    label_column: str | None = None
    columns: TableColumns = field(default_factory=TableColumns)
    patient_pattern: str | None = None
    study_pattern: str | None = None
    extra_columns: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    channel: int = 0
    slice_step: int = 1


def read_scan_set(
    layout: ScanLayout, place: Path, root: Path, options: SetOptions, *, labelled: bool, on_bad_file: OnBadFile
) -> ScanSet:
    """Read records.

    Args:
        layout: As `find_scan_layout` says.
        place: The table, the file of arrays, or the root.
        root: Folder that paths of a table are relative to.
        options: Of the reading.
        labelled: Whether labels are needed; prediction takes what there is.
        on_bad_file: ``skip`` leaves out rows and cases that cannot be used, and lists them.

    Raises:
        DataError: If the data cannot be used.
    """
    if layout == "csv":
        return _table(place, root, options, labelled=labelled, on_bad_file=on_bad_file)
    if layout == "npz":
        return read_medmnist(place, options.classes, labelled=labelled)
    folder = check_folder(place)
    if layout == "nnunet":
        return read_nnunet(
            folder,
            _volume_size,
            channel=options.channel,
            step=options.slice_step,
            labelled=labelled,
            on_bad_file=on_bad_file,
        )
    patterns: dict[str, Any] = {"patient_pattern": options.patient_pattern, "study_pattern": options.study_pattern}
    return read_scan_folder(folder, layout, labelled=labelled, **patterns)


def choose_views(records: Sequence[Record], views: Sequence[str]) -> list[Record]:
    """Return the records of some views, such as the frontal ones.

    Raises:
        DataError: If none is of these views; names what exists.

    Example:
        >>> rows = [Record("a", None, meta={"view": "PA"}), Record("b", None, meta={"view": "LATERAL"})]
        >>> [record.id for record in choose_views(rows, ["pa"])]
        ['a']
    """
    wanted = {view.strip().casefold() for view in views}
    counts = Counter(str(record.meta.get("view") or "") for record in records)
    absent = sorted(wanted - {name.casefold() for name in counts})
    if absent:
        known = listing((f"`{name or '(none)'}` {count}" for name, count in counts.most_common()), 10)
        raise DataError(f"No image is of the view `{absent[0]}` (`views`). Views: {known}.")
    return [record for record in records if str(record.meta.get("view") or "").casefold() in wanted]


def add_test(records: Sequence[Record], test: Sequence[Record]) -> list[Record]:
    """Return the records of two tables, those of the second as the test.

    Raises:
        DataError: If the first has a test of its own, or an image is in both.

    Example:
        >>> [record.split for record in add_test([Record("a", None)], [Record("b", None)])]
        [None, 'test']
    """
    if any(record.split == "test" for record in records):
        raise DataError("The table names a split `test`, and there is a `test_table`. Leave one of them out.")
    known = {record.id for record in records}
    both = [record.id for record in test if record.id in known]
    if both:
        names = listing(Path(name).name for name in both)
        raise DataError(f"{len(both)} images are in the table and in the `test_table`: {names}. Remove them from one.")
    return [*records, *(replace(record, split="test") for record in test)]


def describe_set(layout: ScanLayout, place: Path, records: Sequence[Record]) -> str:
    """Return the line that says what was found.

    Example:
        >>> describe_set("csv", Path("xrays.csv"), [Record("a", None, group="p1"), Record("b", None, group="p1")])
        'Data: a table of images (`xrays.csv`), 2 images of 1 patient'
    """
    patients = len({record.group for record in records if record.group is not None})
    images = f"{len(records)} image{'s' * (len(records) != 1)}"
    whose = f" of {patients} patient{'s' * (patients != 1)}" if patients else ", patients unknown"
    return f"Data: {SCAN_LAYOUTS[layout]} (`{place}`), {images}{whose}"


def _volume_size(path: Path) -> tuple[int, int, int]:
    found = nifti_facts(path)
    return found.width, found.height, found.frames


def _table(place: Path, root: Path, options: SetOptions, *, labelled: bool, on_bad_file: OnBadFile) -> ScanSet:
    found = read_findings(
        place,
        root,
        findings=options.findings,
        label_column=options.label_column,
        columns=options.columns,
        patient_pattern=options.patient_pattern,
        study_pattern=options.study_pattern,
        extra_columns=options.extra_columns,
        label_optional=not labelled,
        on_bad_file=on_bad_file,
    )
    records = found.records
    if len(options.findings) == 1:
        records = [replace(record, label=_single(record.label, options.findings[0])) for record in records]
    return ScanSet(records, None, found.skipped, found.uncertain, found.columns)


def _single(label: Any, name: str) -> str | None:  # noqa: ANN401 - a tuple of one, or None
    return class_of_finding(label[0] if isinstance(label, tuple) else None, name)


def set_task(options: dict[str, Any], findings: Sequence[str], label_column: str | None) -> None:
    """Choose the task that findings mean, in place: several are labels of their own, one is a class or none.

    Args:
        options: Of a `BaseDataModule`.
        findings: Names of their columns; empty leaves the options as they are.
        label_column: Of the class, where it is no finding.

    Raises:
        ValueError: If classes are named twice.

    Example:
        >>> options = {}
        >>> set_task(options, ["edema"], None)
        >>> options
        {'task': 'binary', 'negative_class': 'no edema'}
    """
    if findings and label_column is not None:
        raise ValueError(f"`findings` are {list(findings)}, and `label_column` is `{label_column}`. Leave one out.")
    if not findings:
        return
    if options.get("classes") is not None:
        raise ValueError(f"`findings` {list(findings)} are the classes, so leave out `classes` {options['classes']}.")
    if len(findings) == 1:
        options.update(task="binary", negative_class=f"no {findings[0]}")
    else:
        options.update(task="multilabel", classes=list(findings))
