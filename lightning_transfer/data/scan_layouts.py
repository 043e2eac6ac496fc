"""Find out how medical images are laid out, say so, and make records of them: tables, folders, volumes, arrays."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lightning_transfer.data.dicom_header import DICOM_SUFFIXES, is_dicom
from lightning_transfer.data.findings_table import path_group
from lightning_transfer.data.folders import IMAGE_SUFFIXES
from lightning_transfer.data.nifti_files import NIFTI_SUFFIXES, is_nifti
from lightning_transfer.data.paths import check_folder, resolve_inside
from lightning_transfer.data.tables import Skipped, split_name
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.types import Record, Split

__all__ = ["SCAN_LAYOUTS", "ScanLayout", "ScanSet", "find_predict_layout", "find_scan_layout"]
__all__ += ["read_scan_folder"]

ScanLayout = Literal["csv", "dicom", "pictures", "nifti", "npz", "nnunet"]

SCAN_LAYOUTS: Mapping[ScanLayout, str] = {
    "csv": "a table of images",
    "dicom": "a folder of DICOM files",
    "pictures": "a folder of pictures",
    "nifti": "a folder of NIfTI volumes",
    "npz": "MedMNIST's arrays (.npz)",
    "nnunet": "nnU-Net's layout (dataset.json, imagesTr, labelsTr)",
}

_MANIFEST = "manifest.csv"
_MANY = 2000  # files that are looked at to tell the layout
_SPLITS = ("train", "training", "val", "valid", "validation", "calibration", "test", "testing")


@dataclass
class ScanSet:
    """What was read from a layout.

    Attributes:
        records: ``group`` is the patient where known.
        classes: Names that the layout brings along, in the order of the labels; None where the labels are names.
        skipped: Files that cannot be used, with reasons.
        uncertain: Id -> places of uncertain findings.
        columns: Names of a table's columns, for hints.
    """

    records: list[Record] = field(default_factory=list)
    classes: tuple[str, ...] | None = None
    skipped: list[Skipped] = field(default_factory=list)
    uncertain: dict[str, tuple[int, ...]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


def find_scan_layout(
    root: str | Path, table: str | None = None, wanted: ScanLayout | Literal["auto"] = "auto"
) -> tuple[ScanLayout, Path]:
    """Return the layout and where it was found: the table, the array file, or the root.

    A named table decides. Else nnU-Net's ``dataset.json`` with ``imagesTr``, an ``.npz`` file, a ``manifest.csv``, and
    then the kind of files below the root.

    Args:
        root: Folder of the data, or an ``.npz`` file.
        table: CSV file, relative to the root.
        wanted: Use this layout.

    Raises:
        ValueError: If ``wanted`` is unknown, or contradicts ``table``.
        DataError: If there are no such data, or files of several kinds.
    """
    if wanted not in ("auto", *SCAN_LAYOUTS):
        raise ValueError(
            f"Unknown `layout` `{wanted}`.{closest(wanted, SCAN_LAYOUTS)} Known: auto, {', '.join(SCAN_LAYOUTS)}."
        )
    if table is not None and wanted not in ("auto", "csv"):
        raise ValueError(f"`layout` is `{wanted}`, and `table` is `{table}`. Leave one of them out.")
    place = Path(root).expanduser()
    if place.suffix == ".npz" and place.is_file():
        if wanted not in ("auto", "npz"):
            raise ValueError(f"`layout` is `{wanted}`, and `{place.name}` is a file of arrays. Use `npz`.")
        return "npz", place.resolve()
    folder = check_folder(root)
    if table is not None or wanted == "csv":
        return "csv", _table(folder, table)
    if wanted == "nnunet" or (wanted == "auto" and _is_nnunet(folder)):
        return "nnunet", folder
    if wanted == "npz" or (wanted == "auto" and _arrays(folder)):
        return "npz", _one_array(folder)
    if wanted == "auto" and (folder / _MANIFEST).is_file():
        return "csv", folder / _MANIFEST
    return (_by_files(folder) if wanted == "auto" else wanted), folder


def find_predict_layout(
    root: str | Path, table: str | None, wanted: ScanLayout | Literal["auto"]
) -> tuple[ScanLayout, Path]:
    """Return the layout of new images: they need no table, and none that the training data had.

    Args:
        root: Folder of the new images.
        table: Of the training data; read where the new ones have it too.
        wanted: The layout of the training data.

    Raises:
        DataError: If there are no images.
    """
    if table is not None and not (Path(root).expanduser() / table).is_file():
        return find_scan_layout(root)
    return find_scan_layout(root, table, "auto" if table or wanted == "csv" else wanted)


def read_scan_folder(
    root: Path,
    layout: Literal["dicom", "pictures", "nifti"],
    *,
    patient_pattern: str | None = None,
    study_pattern: str | None = None,
    labelled: bool = True,
) -> ScanSet:
    """Read one record a file from ``root/CLASS/...`` or ``root/SPLIT/CLASS/...``, at any depth below the class.

    Args:
        root: The folder, links resolved.
        layout: Which files count.
        patient_pattern: Regular expression for the path whose first parentheses match the patient.
        study_pattern: Likewise, for the study.
        labelled: Whether the first folder is a class; else every file below the root is taken, without label.

    Raises:
        DataError: If there is no such file, or one lies outside of the class folders.
    """
    suffixes = {"dicom": DICOM_SUFFIXES, "pictures": IMAGE_SUFFIXES, "nifti": NIFTI_SUFFIXES}[layout]
    paths = [path for path in _walk(root) if _kind(root / path) == layout]
    if not paths:
        raise DataError(f"The root `{root}` holds no file that ends in {', '.join(suffixes)}.")
    has_splits = labelled and "train" in {path.split("/")[0].lower() for path in paths}
    found = ScanSet()
    for path in paths:
        parts = path.split("/")
        split: Split | None = None
        if has_splits:
            if parts[0].lower() not in _SPLITS:
                raise DataError(f"The root `{root}` mixes split folders with `{parts[0]}`. Move one kind elsewhere.")
            split, parts = split_name(parts[0], f"`{root}`"), parts[1:]
        if labelled and len(parts) < 2:
            raise DataError(
                f"`{parts[-1]}` lies in no class folder. Expected `root/CLASS/file`, or a table of labels (`table`)."
            )
        meta = {} if study_pattern is None else {"study": path_group(path, study_pattern, "study_pattern", f"`{root}`")}
        group = None if patient_pattern is None else path_group(path, patient_pattern, "patient_pattern", f"`{root}`")
        inside = resolve_inside(root, path, f"`{root}`")
        found.records.append(Record(path, inside, parts[0] if labelled else None, split, group, meta))
    return found


def _table(folder: Path, table: str | None) -> Path:
    path = folder / (table or _MANIFEST)
    if not path.is_file():
        tables = sorted(item.relative_to(folder).as_posix() for item in folder.glob("*.csv"))
        raise DataError(
            f"The root `{folder}` has no table `{table or _MANIFEST}`.{closest(table or '', tables)} Tables in it:"
            f" {listing(tables) or 'none'}. Name one as `table`."
        )
    return path


def _is_nnunet(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() and ((folder / "imagesTr").is_dir() or (folder / "imagesTs").is_dir())


def _arrays(folder: Path) -> list[Path]:
    return sorted(item for item in folder.glob("*.npz") if item.is_file())


def _one_array(folder: Path) -> Path:
    found = _arrays(folder)
    if len(found) != 1:
        names = listing(item.name for item in found) or "none"
        raise DataError(f"The root `{folder}` holds {len(found)} files of arrays: {names}. Give one file as the root.")
    return found[0]


def _by_files(folder: Path) -> ScanLayout:
    counts: Counter[ScanLayout] = Counter()
    for path in _walk(folder, _MANY):
        kind = _kind(folder / path)
        if kind is not None:
            counts[kind] += 1
    if not counts:
        raise DataError(
            f"The root `{folder}` holds no images that are known: DICOM, NIfTI, {', '.join(IMAGE_SUFFIXES)}, .npz."
        )
    if len(counts) > 1:
        named = ", ".join(f"{SCAN_LAYOUTS[kind]} {count}" for kind, count in counts.most_common())
        raise DataError(
            f"The root `{folder}` holds files of several kinds ({named}). Choose one by `layout`, or list them in a"
            " table (`table`), which may mix them."
        )
    return next(iter(counts))


def _kind(path: Path) -> ScanLayout | None:
    """Return what a file is, by its name; one whose name says nothing by its content."""
    if is_nifti(path):
        return "nifti"
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "pictures"
    if suffix in DICOM_SUFFIXES:
        return "dicom"
    return "dicom" if (suffix == "" or suffix[1:].isdecimal()) and is_dicom(path) else None


def _walk(folder: Path, limit: int | None = None) -> list[str]:
    """Return the paths of files below a folder, without hidden ones; folders that are links are not followed."""
    found: list[str] = []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not Path(top, name).is_symlink())
        found += [Path(top, name).relative_to(folder).as_posix() for name in sorted(names) if not name.startswith(".")]
        if limit is not None and len(found) >= limit:
            return found[:limit]
    return sorted(found)
