"""Find out how medical images are laid out, say so, and make records of them: tables, folders, volumes, arrays."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_transfer.data.findings_table import path_group
from lightning_transfer.data.folders import IMAGE_SUFFIXES
from lightning_transfer.data.paths import check_folder, resolve_inside
from lightning_transfer.data.tables import OnBadFile, Skipped, split_name
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record, Split

__all__ = ["SCAN_LAYOUTS", "ScanLayout", "ScanSet", "find_scan_layout", "is_volume", "read_scan_folder"]
__all__ += ["read_medmnist", "read_nnunet"]

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
_NIFTI = (".nii", ".nii.gz")
_DICOM = (".dcm", ".dicom", ".ima", "")
_MANY = 2000  # files that are looked at to tell the layout
_SPLITS = ("train", "training", "val", "valid", "validation", "calibration", "test", "testing")
_MEDMNIST: Mapping[str, Split] = {"train": "train", "val": "val", "test": "test"}


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


def is_volume(path: str | Path) -> bool:
    """Return whether a file's name is that of a NIfTI volume.

    Example:
        >>> is_volume("head.nii.gz"), is_volume("head.png")
        (True, False)
    """
    return str(path).lower().endswith(_NIFTI)


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
    suffixes = {"dicom": _DICOM, "pictures": IMAGE_SUFFIXES, "nifti": _NIFTI}[layout]
    paths = _files(root, suffixes)
    if not paths:
        raise DataError(f"The root `{root}` holds no file that ends in {', '.join(filter(None, suffixes))}.")
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


def read_medmnist(file: Path, classes: Sequence[str] | None = None, *, labelled: bool = True) -> ScanSet:
    """Read one record a row of ``train_images``, ``val_images`` and ``test_images``, with the labels beside them.

    Args:
        file: Of MedMNIST (2D): images ``(N, H, W)`` or ``(N, H, W, 3)``, labels ``(N, 1)`` or ``(N, L)``.
        classes: Names of the labels, in their order; None calls them by their numbers.
        labelled: Whether labels are wanted; the file may then hold any array ``..._images``.

    Raises:
        DataError: If the file is no such archive, or lacks labels.
    """
    import numpy as np

    found = ScanSet()
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = [name for name in archive.files if name.endswith("_images")]
            if not names:
                raise DataError(
                    f"`{file.name}` holds no array such as `train_images`. Arrays in it: {listing(archive.files)}."
                )
            for name in names:
                part = name.removesuffix("_images")
                labels = archive[f"{part}_labels"] if labelled and f"{part}_labels" in archive.files else None
                if labelled and labels is None:
                    raise DataError(f"`{file.name}` has `{name}` and no `{part}_labels`.")
                count = _rows(archive, name)
                if labels is not None and len(labels) != count:
                    raise DataError(f"`{file.name}`: {count} `{name}` and {len(labels)} `{part}_labels`.")
                found.classes = found.classes or _medmnist_classes(labels, classes, file)
                for row in range(count):
                    label = None if labels is None else _medmnist_label(labels[row], found.classes or (), file)
                    found.records.append(
                        Record(f"{part}/{row}", ImagePart(str(file), row, name), label, _MEDMNIST.get(part))
                    )
    except (OSError, ValueError, EOFError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Cannot read the arrays of `{file.name}`: {error}.") from error
    return found


def read_nnunet(
    root: Path,
    size_of: Callable[[Path], tuple[int, int, int]],
    *,
    channel: int = 0,
    step: int = 1,
    labelled: bool = True,
    on_bad_file: OnBadFile = "error",
) -> ScanSet:
    """Read one record a slice (or a 2D image) of ``imagesTr``, with its mask from ``labelsTr``; a case is a patient.

    Args:
        root: Folder with ``dataset.json``, in the form of nnU-Net 2 or of the Medical Segmentation Decathlon.
        size_of: Returns the size of a volume ``(x, y, slices)``, from its header.
        channel: Which of several channels (``CASE_0000``, ``CASE_0001``) is read.
        step: Every how many-th slice.
        labelled: Whether masks are wanted; else ``imagesTs`` is read, or ``imagesTr`` where there is none.
        on_bad_file: ``skip`` leaves out cases whose image or mask cannot be opened, and lists them.

    Raises:
        DataError: If the description, an image or a mask is missing or wrong.
    """
    description = _description(root)
    ending = str(description.get("file_ending") or ".nii.gz")
    found = ScanSet(classes=_nnunet_classes(description, root))
    folder = "imagesTr" if labelled or not (root / "imagesTs").is_dir() else "imagesTs"
    cases = _cases(root / folder, ending, channel, _num_channels(description))
    for place, (case, image) in enumerate(cases.items()):
        try:
            mask = root / "labelsTr" / f"{case}{ending}" if labelled else None
            if mask is not None and not mask.is_file():
                raise DataError(f"The case `{case}` has no mask `labelsTr/{case}{ending}`.")
            if not is_volume(image):
                found.records.append(Record(case, image, None, group=case, mask=mask))
                continue
            depth = size_of(image)[2]
            if mask is not None and size_of(mask) != size_of(image):
                raise DataError(f"The case `{case}` has an image of {size_of(image)} and a mask of {size_of(mask)}.")
        except DataError as error:
            if on_bad_file == "error":
                raise
            found.skipped.append(Skipped(Record(case, image), str(error), place))
            continue
        for index in range(0, depth, step):
            part: Any = None if mask is None else ImagePart(str(mask), index)
            found.records.append(
                Record(f"{case}#{index}", ImagePart(str(image), index), None, group=case, mask=part)
            )
    if not found.records:
        raise DataError(f"`{root / folder}` holds no case that ends in `{ending}` and can be used.")
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
    if is_volume(path):
        return "nifti"
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "pictures"
    if suffix in (".dcm", ".dicom", ".ima"):
        return "dicom"
    if suffix == "" or suffix[1:].isdecimal():
        try:
            with path.open("rb") as stream:
                return "dicom" if stream.read(132)[128:] == b"DICM" else None
        except OSError:
            return None
    return None


def _walk(folder: Path, limit: int | None = None) -> list[str]:
    """Return the paths of files below a folder, without hidden ones; folders that are links are not followed."""
    found: list[str] = []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not Path(top, name).is_symlink())
        found += [Path(top, name).relative_to(folder).as_posix() for name in sorted(names) if not name.startswith(".")]
        if limit is not None and len(found) >= limit:
            return found[:limit]
    return sorted(found)


def _files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    if suffixes is _DICOM:
        return [path for path in _walk(folder) if _kind(folder / path) == "dicom"]
    return [path for path in _walk(folder) if path.lower().endswith(tuple(suffixes))]


def _rows(archive: Any, name: str) -> int:  # noqa: ANN401 - numpy.lib.npyio.NpzFile
    """Return the length of an array, from its header: the array itself may not fit."""
    import numpy as np

    with archive.zip.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return int(read(stream)[0][0])


def _medmnist_classes(labels: Any, classes: Sequence[str] | None, file: Path) -> tuple[str, ...] | None:  # noqa: ANN401
    if labels is None:
        return None if classes is None else tuple(classes)
    wide = labels.ndim == 2 and labels.shape[1] > 1
    count = int(labels.shape[1]) if wide else int(labels.max()) + 1
    if classes is None:
        width = len(str(max(count - 1, 0)))
        return tuple(f"{place:0{width}d}" for place in range(count))
    if len(classes) < count:
        raise DataError(f"`{file.name}` has {count} classes, and `classes` names {len(classes)}.")
    return tuple(classes)


def _medmnist_label(row: Any, classes: Sequence[str], file: Path) -> str | tuple[float | None, ...]:  # noqa: ANN401
    values = [float(value) for value in row.reshape(-1)]
    if len(values) == 1:
        place = int(values[0])
        if not 0 <= place < len(classes):
            raise DataError(f"`{file.name}` has the label {place}, and there are {len(classes)} classes.")
        return classes[place]
    return tuple(values)


def _description(root: Path) -> Mapping[str, Any]:
    file = root / "dataset.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read nnU-Net's description `{file}`: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise DataError(f"`{file}` names no `labels`. Expected such as " + '{"labels": {"background": 0, "liver": 1}}.')
    return content


def _nnunet_classes(description: Mapping[str, Any], root: Path) -> tuple[str, ...]:
    """Return the classes in the order of the values in the masks; nnU-Net 1 has value -> name, nnU-Net 2 the reverse."""
    labels: Mapping[Any, Any] = description["labels"]
    pairs = {}
    for key, value in labels.items():
        name, number = (value, key) if str(key).isdecimal() and isinstance(value, str) else (key, value)
        if isinstance(number, list):
            raise DataError(f"`{root / 'dataset.json'}`: `{name}` is a region of several labels, which is not read.")
        if name == "ignore":
            continue
        if not str(number).isdecimal():
            raise DataError(f"`{root / 'dataset.json'}`: the label `{name}` is `{number}`. Expected a whole number.")
        pairs[int(number)] = str(name)
    if sorted(pairs) != list(range(len(pairs))):
        raise DataError(f"`{root / 'dataset.json'}`: labels are {sorted(pairs)}. Expected 0, 1, 2 and so on.")
    return tuple(pairs[number] for number in sorted(pairs))


def _num_channels(description: Mapping[str, Any]) -> int:
    return len(description.get("channel_names") or description.get("modality") or {0: ""})


def _cases(folder: Path, ending: str, channel: int, num_channels: int) -> dict[str, Path]:
    """Return case -> image; names end in the channel's number, but for the Decathlon's with one channel."""
    if not folder.is_dir():
        raise DataError(f"There is no folder `{folder}`.")
    if not 0 <= channel < num_channels:
        raise DataError(f"`channel` is {channel}, and `dataset.json` names {num_channels}, from 0.")
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(ending) and item.name[0] != ".")
    numbered = f"_{channel:04d}{ending}"
    found = {name.removesuffix(numbered): folder / name for name in names if name.endswith(numbered)}
    if not found and num_channels == 1:
        found = {name.removesuffix(ending): folder / name for name in names}
    return found
