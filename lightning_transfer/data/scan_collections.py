"""Read collections of medical images in the forms that the field publishes: MedMNIST's arrays, nnU-Net's folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_transfer.data.nifti_files import is_nifti
from lightning_transfer.data.scan_layouts import ScanSet
from lightning_transfer.data.tables import OnBadFile, Skipped
from lightning_transfer.errors import DataError, listing
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record, Split

__all__ = ["read_medmnist", "read_nnunet"]

_MEDMNIST: Mapping[str, Split] = {"train": "train", "val": "val", "test": "test"}


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
            if not is_nifti(image):
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
            found.records.append(Record(f"{case}#{index}", ImagePart(str(image), index), None, group=case, mask=part))
    if not found.records:
        raise DataError(f"`{root / folder}` holds no case that ends in `{ending}` and can be used.")
    return found


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
    """Return the classes in the order of the masks' values; nnU-Net 1 has value -> name, nnU-Net 2 the reverse."""
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
