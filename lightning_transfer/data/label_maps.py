"""Masks as classes of pixels: read them as they are stored, and put them where the network sees the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_transfer.data.image_files import EXIF_ORIENTATION, MAX_MEGAPIXELS, with_image
from lightning_transfer.data.masks import read_mask
from lightning_transfer.data.tables import OnBadFile
from lightning_transfer.errors import DataError, listing
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

__all__ = [
    "BACKGROUND",
    "UNKNOWN",
    "MaskValues",
    "check_label_maps",
    "content_box",
    "place_labels",
    "read_label_map",
    "record_labels",
]

LabelMap = NDArray[np.int64]
MaskValues = Literal["defect", "label", "index"]

UNKNOWN = -100
"""Class of a pixel that is padding, or of which nothing is known."""

BACKGROUND = "background"
"""Name of class 0 where the data name no negative class."""

_MOST_CLASSES = 2**16
_LOSSY = (".jpg", ".jpeg")


def read_label_map(mask: str | Path | ImagePart, max_megapixels: float = MAX_MEGAPIXELS) -> LabelMap:
    """Return the numbers that a mask holds, ``(H, W)``: grey values, places in a palette, labels of a volume's slice.

    Args:
        mask: A picture with one channel or a palette, or a part of a NIfTI volume or of an ``.npz`` file.
        max_megapixels: Limit of a picture.

    Raises:
        DataError: If it cannot be read, or holds no whole numbers.
    """
    if isinstance(mask, ImagePart) and _is_volume(mask.path):
        # Only where there are such masks: the reader needs an extra.
        reader: Callable[[str, int | None], Any] = import_module("lightning_transfer.data.nifti_files").read_nifti_slice
        return _whole(np.asarray(reader(mask.path, mask.index)), str(mask))
    if isinstance(mask, ImagePart) and mask.path.endswith(".npz"):
        return _whole(_array_of(mask), str(mask))
    path = Path(mask.path if isinstance(mask, ImagePart) else mask)
    if path.suffix.lower() in _LOSSY:
        raise DataError(f"The mask `{path}` is a JPEG, whose numbers are not exact. Save masks as PNG.")
    found: NDArray[Any] = with_image(path, max_megapixels, _indices)
    return _whole(found, str(path))


def _is_volume(path: str) -> bool:
    return path.lower().endswith((".nii", ".nii.gz"))


def _array_of(part: ImagePart) -> NDArray[Any]:
    try:
        with np.load(part.path, allow_pickle=False) as file:
            found: NDArray[Any] = file[part.key] if part.key else file[file.files[0]]
            return found if part.index is None else found[part.index]
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise DataError(f"Cannot read the mask `{part}`: {error}") from error


def _indices(image: Any, name: str) -> NDArray[Any]:  # noqa: ANN401 - a PIL image
    """Return the numbers of a picture as they are stored, upright."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image) if image.getexif().get(EXIF_ORIENTATION, 1) != 1 else image
    if upright.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
        raise DataError(
            f"The mask {name} is a picture of mode {upright.mode}, whose colours name no class. Save one channel whose "
            "values are the numbers of the classes, or a palette."
        )
    return np.asarray(upright)


def _whole(values: NDArray[Any], name: str) -> LabelMap:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2:
        raise DataError(f"The mask `{name}` has the shape {values.shape}. Expected height and width.")
    whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise DataError(f"The mask `{name}` holds numbers that are not whole, which name no class.")
    return whole


def record_labels(
    record: Record,
    classes: Sequence[str],
    values: MaskValues,
    size: tuple[int, int] | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> LabelMap | None:
    """Return the class of each pixel of a record, at the size of its own picture; None where nobody drew it.

    Args:
        record: Without a mask, one of the first class shows nothing else.
        classes: In the order of the logits; the first is the background.
        values: What the mask holds. ``defect``: nonzero is the second class. ``label``: nonzero is the record's class.
            ``index``: the number of the class.
        size: Height and width of the picture; None is not checked.
        max_megapixels: Limit of a file.

    Raises:
        DataError: If the mask cannot be read, does not fit the picture, or holds a class that does not exist.
    """
    if record.mask is None:
        known = record.label == classes[0] and size is not None
        return np.zeros(size, dtype=np.int64) if known and size is not None else None
    if values == "index":
        found = read_label_map(record.mask, max_megapixels)
    else:
        found = _shown(record, max_megapixels).astype(np.int64)
        if values == "label" and record.label != classes[0]:
            if record.label not in classes:
                raise DataError(
                    f"`{record.id}` is labelled `{record.label}`, which is no class. Classes: {listing(classes, 20)}."
                )
            found = found * list(classes).index(str(record.label))
        if values == "label" and record.label == classes[0] and found.any():
            return None  # a defect of an unknown kind
    if size is not None and found.shape != size:
        raise DataError(
            f"The mask `{record.mask}` has {found.shape[0]} x {found.shape[1]} pixels (height x width), and its image"
            f" {size[0]} x {size[1]}. Save the mask at the image's size."
        )
    if found.size and (found.min() < 0 or found.max() >= len(classes)):
        wrong = sorted({int(value) for value in np.unique(found)} - set(range(len(classes))))
        raise DataError(
            f"The mask `{record.mask}` holds {listing(wrong, 5)}, and the classes are 0 to {len(classes) - 1}:"
            f" {listing(classes, 20)}. Name all classes in `classes`, or read nonzero as one (`mask_values: defect`)."
        )
    if record.label is not None and record.label in classes[1:] and values != "index" and not found.any():
        return None  # a defect whose mask shows nothing: where it is, is not known
    return found


def check_label_maps(
    records: Sequence[Record],
    classes: Sequence[str] | None,
    size_of: Callable[[Record], tuple[int, int]],
    on_bad_file: OnBadFile = "error",
    max_megapixels: float = MAX_MEGAPIXELS,
) -> list[Record]:
    """Read every mask of numbers once, and say which do not fit their picture or the classes.

    Args:
        records: Their pictures can be read.
        classes: In the order of the numbers; None checks no number.
        size_of: Height and width of a record's picture.
        on_bad_file: ``error`` raises for masks that cannot be used; ``skip`` keeps the pictures and drops the masks.
        max_megapixels: Limit of a file.

    Returns:
        The records, without masks that cannot be used.

    Raises:
        DataError: With the count and the first few.
    """
    names = list(classes) if classes is not None else [str(number) for number in range(_MOST_CLASSES)]
    checked, bad = [], []
    for record in records:
        try:
            record_labels(record, names, "index", size_of(record), max_megapixels)
            checked.append(record)
        except DataError as error:
            bad.append(f"\n  {record.id}: {error}")
            checked.append(replace(record, mask=None))
    if bad:
        found = f"{len(bad)} masks cannot be used:{listing(bad, 5)}\n"
        if on_bad_file == "error":
            raise DataError(
                f"{found}Mend them, leave them out, or set `on_bad_file: skip` to use their images without a mask."
            )
        rank_zero_warn(f"{found}Their images are used without a mask.")
    return checked


def _shown(record: Record, max_megapixels: float) -> NDArray[np.bool_]:
    """Return where anything is drawn."""
    if isinstance(record.mask, ImagePart) or record.mask is None:
        drawn: NDArray[np.bool_] = read_label_map(record.mask or "", max_megapixels) != 0
        return drawn
    return read_mask(record.mask, max_megapixels)


def content_box(size: tuple[int, int], spec: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a picture within the network's frame, as its preprocessing puts it there.

    Args:
        size: Height and width of the picture.
        spec: Of the preprocessing: ``size`` and ``pad``.

    Example:
        >>> content_box((20, 20), {"size": [4, 8], "pad": "reflect"})
        (0, 2, 4, 4)
        >>> content_box((20, 20), {"size": [4, 8], "pad": "none"})
        (0, 0, 4, 8)
    """
    frame = int(spec["size"][0]), int(spec["size"][1])
    if spec.get("pad", "none") == "none":
        return 0, 0, *frame
    scale = min(frame[0] / size[0], frame[1] / size[1])
    height, width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return (frame[0] - height) // 2, (frame[1] - width) // 2, height, width


def place_labels(labels: LabelMap, spec: Mapping[str, Any]) -> LabelMap:
    """Return classes of pixels in the network's frame, each where the picture's is; the padding is -100.

    Smaller, each pixel of the frame takes the class that covers most of it; of classes that cover the same, the later
    one, so that a defect of half a pixel stays.

    Args:
        labels: ``(H, W)`` of the picture's own size, -100 where unknown.
        spec: Of the preprocessing: ``size`` and ``pad``.

    Example:
        >>> place_labels(np.array([[0, 0, 1, 1], [0, 0, 1, 0]]), {"size": [1, 4], "pad": "mean"}).tolist()
        [[-100, 0, 1, -100]]
    """
    from PIL import Image

    top, left, height, width = content_box((labels.shape[0], labels.shape[1]), spec)
    frame = np.full((int(spec["size"][0]), int(spec["size"][1])), UNKNOWN, dtype=np.int64)
    if (height, width) == labels.shape:
        inside = labels
    else:
        present = np.unique(labels)
        shares = [
            np.asarray(
                Image.fromarray((labels == name).astype(np.float32)).resize((width, height), Image.Resampling.BOX)
            )
            for name in present
        ]
        # Reversed, so that of equal shares the last one is found first; rounded, so that equal ones are equal.
        inside = present[::-1][np.argmax(np.round(shares[::-1], 4), axis=0)]
    frame[top : top + height, left : left + width] = inside
    return frame
