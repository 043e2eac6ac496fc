"""Read masks of defects, and find those that do not fit their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.data.image_files import MAX_MEGAPIXELS, image_size, read_image
from lightning_transfer.data.tables import OnBadFile
from lightning_transfer.errors import DataError, listing
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

__all__ = ["check_masks", "read_mask", "record_mask"]

Mask = npt.NDArray[np.bool_]

_LOSSY = (".jpg", ".jpeg")


def read_mask(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> Mask:
    """Return a mask ``(H, W)``: True where any colour is above zero and, with alpha, not transparent.

    Raises:
        DataError: If it cannot be read, or is a JPEG, whose compression makes pixels beside a defect nonzero.
    """
    if Path(path).suffix.lower() in _LOSSY:
        raise DataError(f"The mask `{path}` is a JPEG, whose zeros are not exact. Save masks as PNG.")
    pixels = read_image(path, max_megapixels)
    colours = pixels if pixels.shape[2] in (1, 3) else pixels[..., :-1]
    mask: Mask = np.any(colours > 0, axis=2)
    return mask if pixels.shape[2] in (1, 3) else mask & (pixels[..., -1] > 0)


def record_mask(record: Record, negative_class: str | None = None, max_megapixels: float = MAX_MEGAPIXELS) -> Mask:
    """Return the mask of a record at the size of its image, upright.

    Args:
        record: With an image as input. Without mask, one of the negative class has a mask of zeros.
        negative_class: The class that means "nothing found".
        max_megapixels: Limit of both files.

    Raises:
        DataError: If there is no mask and the record is not of the negative class, or the mask has another size.
    """
    size = image_size(record.input, max_megapixels)
    if record.mask is None:
        if negative_class is None or record.label != negative_class:
            raise DataError(
                f"`{record.id}` is labelled `{record.label}` and has no mask. Only `{negative_class}` needs none."
            )
        return np.zeros(size, dtype=bool)
    if isinstance(record.mask, ImagePart):
        raise DataError(
            f"The mask `{record.mask}` is a part of a file; read it by `lightning_transfer.data.label_maps`."
        )
    mask = read_mask(record.mask, max_megapixels)
    if mask.shape != size:
        raise DataError(
            f"The mask `{record.mask}` has {mask.shape[0]} x {mask.shape[1]} pixels (height x width), and its image"
            f" {size[0]} x {size[1]}. Save the mask at the image's size."
        )
    return mask


def check_masks(
    records: Sequence[Record],
    on_bad_file: OnBadFile = "error",
    *,
    negative_class: str | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> list[Record]:
    """Read every mask once, and say which do not fit their image or their label.

    Args:
        records: With paths as masks; their images can be read.
        on_bad_file: ``error`` raises for masks that cannot be used; ``skip`` keeps the images and drops the masks.
        negative_class: The class whose masks must be zeros.
        max_megapixels: Limit of all files.

    Returns:
        The records, without masks that cannot be used or that show nothing of a defect.

    Raises:
        DataError: With the count and the first few.
    """
    checked: list[Record] = []
    bad: list[str] = []
    kinds: dict[str, list[str]] = {"empty": [], "missing": [], "false": []}
    for record in records:
        known_defect = negative_class is not None and isinstance(record.label, str) and record.label != negative_class
        if record.mask is None:
            if known_defect:
                kinds["missing"].append(record.id)
            checked.append(record)
            continue
        try:
            shows_defect = bool(record_mask(record, negative_class, max_megapixels).any())
        except DataError as error:
            bad.append(f"\n  {record.id}: {error}")
            checked.append(replace(record, mask=None))
            continue
        if known_defect and not shows_defect:
            kinds["empty"].append(record.id)
            record = replace(record, mask=None)
        if shows_defect and record.label is not None and record.label == negative_class:
            kinds["false"].append(record.id)
        checked.append(record)
    total = sum(record.mask is not None for record in records)
    if bad:
        found = f"{len(bad)} of {total} masks cannot be used:{listing(bad, 5)}\n"
        if on_bad_file == "error":
            raise DataError(
                f"{found}Mend them, leave them out, or set `on_bad_file: skip` to use their images without a mask."
            )
        rank_zero_warn(f"{found}Their images are used without a mask.")
    _warn(kinds, negative_class, some_masks=total > 0)
    return checked


def _warn(kinds: dict[str, list[str]], negative_class: str | None, *, some_masks: bool) -> None:
    if kinds["false"]:
        rank_zero_warn(
            f"{len(kinds['false'])} images labelled `{negative_class}` have a mask that shows a defect:"
            f" {listing(kinds['false'])}. Their labels or their masks are wrong."
        )
    if kinds["empty"]:
        rank_zero_warn(
            f"{len(kinds['empty'])} images of defects have an empty mask: {listing(kinds['empty'])}. Where their"
            " defects are counts as unknown."
        )
    if kinds["missing"] and some_masks:
        rank_zero_warn(
            f"{len(kinds['missing'])} images of defects have no mask, others have: {listing(kinds['missing'])}."
            " Where their defects are counts as unknown."
        )
