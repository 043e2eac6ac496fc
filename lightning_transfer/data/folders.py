"""Read records from a folder for each class, with masks from a folder beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_transfer.data.paths import check_folder, resolve_inside
from lightning_transfer.data.tables import split_name
from lightning_transfer.errors import DataError, listing
from lightning_transfer.types import Record, Split

__all__ = ["IMAGE_SUFFIXES", "is_mask_folder", "records_from_files", "records_from_folder"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")

_SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "calibration", "test", "testing")


def records_from_folder(
    root: str | Path,
    *,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    group_pattern: str | None = None,
    mask_folder: str | None = None,
    ignored: list[str] | None = None,
) -> list[Record]:
    """Read one record from each file of ``root/CLASS/...``, or of ``root/SPLIT/CLASS/...``.

    The second layout is taken when all folders have names of splits (``train``, ``val``, ``calibration``, ``test``)
    and ``train`` is one of them. Files below a class folder count at any depth.

    Args:
        root: The folder.
        suffixes: Endings of the files that are records, in lower case.
        group_pattern: Regular expression for the path below ``root``; what its first parentheses match is the group.
        mask_folder: A folder of the root that holds masks and is no class: `is_mask_folder` says whether it is one.
            The mask of ``a/1.jpg`` is ``MASKS/a/1.png`` or ``MASKS/a/1_mask.png``; that of ``test/a/1.jpg`` may also be
            ``MASKS/a/1_mask.png``. A mask without an image is warned of.
        ignored: Receives the paths of hidden files and of files with other endings; None logs them.

    Returns:
        Records in the order of their paths; the id is the path below ``root``.

    Raises:
        DataError: If the root is wrong, holds no class folders, a class folder holds no such file, split and class
            folders are mixed, or a link leaves the root.
    """
    folder = check_folder(root)
    left_out: list[str] = []
    names = [name for name in _folders(folder) if name != mask_folder]
    if not names:
        files = _files(folder, folder, suffixes, [])
        content = f"only files: {listing(file.name for file in files)}" if files else "and no such files"
        raise DataError(f"The root `{folder}` holds no class folders, {content}. Expected `root/CLASS/file`.")
    left_out.extend(item.name for item in sorted(folder.iterdir()) if not item.is_dir() or item.name.startswith("."))
    masks = {} if mask_folder is None else _masks(folder, mask_folder, suffixes, left_out)
    as_splits = [name for name in names if name.lower() in _SPLIT_FOLDERS and _folders(folder / name)]
    tops: list[tuple[Split | None, Path]] = [(None, folder)]
    if "train" in {name.lower() for name in as_splits}:
        if len(as_splits) < len(names):
            raise DataError(
                f"The root `{folder}` mixes split folders ({', '.join(as_splits)}) with others:"
                f" {listing(name for name in names if name not in as_splits)}. Move one kind elsewhere."
            )
        tops = [(split_name(name, f"`{folder}`"), folder / name) for name in names]
    records: list[Record] = []
    for split, top in tops:
        for name in names if top == folder else _folders(top):
            files = _files(folder, top / name, suffixes, left_out)
            if not files:
                raise DataError(
                    f"The class folder `{top / name}` holds no file that ends in {', '.join(suffixes)}."
                    " Fill it or remove it."
                )
            for file in files:
                path = file.relative_to(folder).as_posix()
                inside = resolve_inside(folder, path, f"`{folder}`")
                mask = _find_mask(masks, path, split)
                records.append(Record(path, inside, name, split, _group(path, group_pattern), mask=mask))
    _report(left_out, ignored)
    _warn_of_lone_masks(masks, records, folder)
    return records


def is_mask_folder(root: str | Path, name: str) -> bool:
    """Return whether a folder of the root holds masks: its folders are all named like others of the root.

    A class of that name, with images directly in its folder, is none.
    """
    folder = check_folder(root)
    if name not in _folders(folder):
        return False
    inside = _folders(folder / name)
    others = [other for other in _folders(folder) if other != name]
    lone = any(item.is_file() and item.suffix.lower() in IMAGE_SUFFIXES for item in (folder / name).iterdir())
    return bool(inside) and set(inside) <= set(others) and not lone


def records_from_files(
    root: str | Path,
    *,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    mask_folder: str | None = None,
    ignored: list[str] | None = None,
) -> list[Record]:
    """Read one record without label from each file below a folder, at any depth, for prediction.

    Args:
        root: The folder.
        suffixes: Endings of the files that are records, in lower case.
        mask_folder: A folder of the root whose files are no records.
        ignored: Receives the paths of hidden files and of files with other endings; None logs them.

    Raises:
        DataError: If the root is wrong, holds no such file, or a link leaves it.
    """
    folder = check_folder(root)
    left_out: list[str] = []
    files = _files(folder, folder, suffixes, left_out)
    if mask_folder is not None:
        files = [file for file in files if file.relative_to(folder).parts[0] != mask_folder]
    if not files:
        raise DataError(f"The root `{folder}` holds no file that ends in {', '.join(suffixes)}.")
    _report(left_out, ignored)
    paths = [file.relative_to(folder).as_posix() for file in files]
    return [Record(path, resolve_inside(folder, path, f"`{folder}`")) for path in paths]


def _masks(root: Path, name: str, suffixes: Sequence[str], ignored: list[str]) -> dict[tuple[str, str], Path]:
    """Return the masks by folder below the mask folder, and name without its ending and ``_mask``."""
    found: dict[tuple[str, str], Path] = {}
    for file in _files(root, root / name, suffixes, ignored):
        path = file.relative_to(root / name)
        key = (path.parent.as_posix(), path.stem.removesuffix("_mask"))
        if key in found:
            raise DataError(f"`{found[key]}` and `{file}` are masks of the same image. Remove one of them.")
        found[key] = resolve_inside(root, file.relative_to(root).as_posix(), f"`{root}`")
    return found


def _find_mask(masks: Mapping[tuple[str, str], Path], path: str, split: Split | None) -> Path | None:
    """Return the mask of the same path, or for test images of the path without the split."""
    image = PurePosixPath(path)
    parents = [image.parent.as_posix()]
    if split == "test":
        parents.append(PurePosixPath(*image.parent.parts[1:]).as_posix())
    return next((masks[parent, image.stem] for parent in parents if (parent, image.stem) in masks), None)


def _warn_of_lone_masks(masks: Mapping[tuple[str, str], Path], records: Sequence[Record], root: Path) -> None:
    used = {record.mask for record in records}
    lone = [path.relative_to(root).as_posix() for path in masks.values() if path not in used]
    if lone:
        rank_zero_warn(
            f"{len(lone)} of {len(masks)} masks have no image: {listing(lone)}. A mask has the path of its image below"
            " the mask folder, with or without `_mask` before the ending."
        )


def _report(left_out: list[str], ignored: list[str] | None) -> None:
    """Hand over what is no record, or count and list it in the log."""
    if ignored is not None:
        ignored.extend(left_out)
    elif left_out:
        rank_zero_info(f"{len(left_out)} files are ignored, as they are hidden or no data: {listing(left_out)}.")


def _folders(folder: Path) -> list[str]:
    """Return the names of the folders inside, sorted, without hidden ones."""
    return sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))


def _files(root: Path, folder: Path, suffixes: Sequence[str], ignored: list[str]) -> list[Path]:
    """Return the files below a folder in the order of their paths; list the others in ``ignored``."""
    found: list[Path] = []
    for top, folders, names in os.walk(folder, onerror=_refuse):
        # A link to a folder is not followed: it may lead in a circle.
        hidden = [name for name in folders if name.startswith(".") or Path(top, name).is_symlink()]
        folders[:] = [name for name in folders if name not in hidden]
        ignored.extend((Path(top, name).relative_to(root)).as_posix() for name in hidden)
        for name in names:
            path = Path(top, name)
            if not name.startswith(".") and path.suffix.lower() in suffixes:
                found.append(path)
            else:
                ignored.append(path.relative_to(root).as_posix())
    return sorted(found)


def _refuse(error: OSError) -> None:
    """Stop at a folder that cannot be listed, which ``os.walk`` would pass over in silence."""
    raise DataError(f"Cannot list the folder `{error.filename}`: {error.strerror}.") from error


def _group(path: str, pattern: str | None) -> str | None:
    """Return what the pattern's first parentheses match in a path."""
    if pattern is None:
        return None
    match = re.search(pattern, path)
    if match is None or not match.groups():
        raise DataError(
            f"`group_pattern` `{pattern}` finds no group in `{path}`. It needs parentheses around the group's name."
        )
    return match.group(1)
