"""Tell how a data set of images is laid out, and say so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning_transfer.data.folders import is_mask_folder
from lightning_transfer.data.paths import check_folder
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.types import Record

__all__ = ["MVTEC_GOOD", "ImageFormat", "describe_format", "find_format", "find_mask_folder"]

ImageFormat = Literal["mvtec", "folder", "csv"]

MVTEC_GOOD = "good"
_MVTEC_MASKS = "ground_truth"
_MASKS = "masks"
_MANIFEST = "manifest.csv"
_NAMES: dict[ImageFormat, str] = {
    "mvtec": "MVTec AD layout (train/good, test/DEFECT, ground_truth/DEFECT)",
    "folder": "a folder for each class",
    "csv": "CSV manifest",
}


def find_format(
    root: str | Path, manifest: str | None = None, wanted: Literal["auto", "mvtec", "folder", "csv"] = "auto"
) -> tuple[ImageFormat, Path]:
    """Return the format and where it was found: the table, or the root.

    A named manifest decides. Else the MVTec AD layout is taken where ``train`` has the one folder ``good`` beside a
    folder ``test``; else a ``manifest.csv`` in the root; else a folder for each class.

    Args:
        root: Folder of the data.
        manifest: CSV file, relative to the root.
        wanted: Use this format, and refuse data that are laid out otherwise.

    Raises:
        ValueError: If ``wanted`` contradicts ``manifest`` or is unknown.
        DataError: If the data do not have the wanted format, or hold several MVTec categories.
    """
    if wanted not in ("auto", *_NAMES):
        raise ValueError(f"Unknown `format` `{wanted}`.{closest(wanted, _NAMES)} Known: auto, {', '.join(_NAMES)}.")
    if manifest is not None and wanted not in ("auto", "csv"):
        raise ValueError(f"`format` is `{wanted}`, and `manifest` is `{manifest}`. Leave one of them out.")
    folder = check_folder(root)
    if manifest is not None:
        return "csv", folder / manifest
    if wanted == "csv" or (wanted == "auto" and not _is_mvtec(folder) and (folder / _MANIFEST).is_file()):
        if not (folder / _MANIFEST).is_file():
            tables = sorted(item.name for item in folder.glob("*.csv"))
            raise DataError(
                f"The root `{folder}` has no `{_MANIFEST}`. Tables in it: {listing(tables) or 'none'}."
                " Name one as `manifest`."
            )
        return "csv", folder / _MANIFEST
    if wanted != "folder":
        if _is_mvtec(folder):
            return "mvtec", folder
        categories = sorted(item.name for item in folder.iterdir() if _is_mvtec(item))
        if categories:
            raise DataError(
                f"The root `{folder}` holds {len(categories)} categories in MVTec AD layout: {listing(categories, 15)}."
                f" Choose one, such as `--data.root {folder / categories[0]}`."
            )
        if wanted == "mvtec":
            names = sorted(item.name for item in folder.iterdir() if item.is_dir())
            raise DataError(
                f"The root `{folder}` is not in MVTec AD layout: it needs `train/{MVTEC_GOOD}`, no other folder in"
                f" `train`, and `test`. Folders in it: {listing(names) or 'none'}."
            )
    return "folder", folder


def find_mask_folder(root: str | Path, format: ImageFormat) -> str | None:
    """Return the folder of the root that holds masks and no images: ``ground_truth``, ``masks``, or None."""
    name = _MVTEC_MASKS if format == "mvtec" else _MASKS
    folder = check_folder(root)
    return name if (folder / name).is_dir() and (format == "mvtec" or is_mask_folder(folder, name)) else None


def describe_format(format: ImageFormat, place: Path, records: Sequence[Record]) -> str:
    """Return the line that says what was found.

    Example:
        >>> describe_format("folder", Path("parts"), [Record("a", "a.png", mask="m.png"), Record("b", "b.png")])
        'Data: a folder for each class in `parts`, 2 images, 1 mask'
    """
    masks = sum(record.mask is not None for record in records)
    counts = f"{len(records)} image{'s' * (len(records) != 1)}, {masks or 'no'} mask{'s' * (masks != 1)}"
    return f"Data: {_NAMES[format]} in `{place}`, {counts}"


def _is_mvtec(folder: Path) -> bool:
    """Return whether training shows good parts only, beside a test folder."""
    train = folder / "train"
    if not train.is_dir() or not (folder / "test").is_dir():
        return False
    return {item.name for item in train.iterdir() if item.is_dir() and not item.name.startswith(".")} == {MVTEC_GOOD}
