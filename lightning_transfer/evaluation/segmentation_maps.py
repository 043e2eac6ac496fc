"""From logits in the network's frame to masks of the pictures themselves, as arrays and as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.data.label_maps import content_box
from lightning_transfer.files import atomic

__all__ = ["class_colours", "log_odds", "overlay", "present_classes", "restore_logits", "write_mask"]

# Okabe and Ito's, which people see apart whatever colours they see; the background is black.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_TRUE, _FALSE = (0, 158, 115), (213, 94, 0)


def restore_logits(logits: Tensor, size: tuple[int, int], spec: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return logits ``(C, h, w)`` of the network's frame at the size of the picture, ``(C, H, W)``, without padding.

    Logits are interpolated, not classes: a border between two pixels of the frame falls where the two are equal.

    Args:
        logits: Of one picture.
        size: Height and width of the picture.
        spec: Of the preprocessing: ``size`` and ``pad``.

    Example:
        >>> import torch
        >>> frame = torch.arange(8.0).reshape(1, 2, 4)
        >>> restore_logits(frame, (2, 2), {"size": [2, 4], "pad": "mean"}).tolist()
        [[[1.0, 2.0], [5.0, 6.0]]]
    """
    top, left, height, width = content_box(size, spec)
    inside = logits[None, :, top : top + height, left : left + width].float()
    if (height, width) != size:
        inside = F.interpolate(inside, size, mode="bilinear", align_corners=False)
    found: NDArray[np.float32] = inside[0].cpu().numpy()
    return found


def log_odds(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each pixel of ``(C, H, W)`` the log-odds of anything but the background, ``(H, W)``.

    Unlike a probability they never round to 1, so the surest pixels keep their order.

    Example:
        >>> log_odds(np.array([[[1.0]], [[3.0]]], dtype=np.float32)).tolist()
        [[2.0]]
    """
    others = logits[1:]
    most = others.max(axis=0)
    found: NDArray[np.float32] = most + np.log(np.exp(others - most).sum(axis=0)) - logits[0]
    return found


def class_colours(num_classes: int) -> list[tuple[int, int, int]]:
    """Return a colour for each class; black for the background.

    Example:
        >>> class_colours(2)
        [(0, 0, 0), (230, 159, 0)]
    """
    return [(0, 0, 0), *(_COLOURS[place % len(_COLOURS)] for place in range(num_classes - 1))]


def write_mask(path: str | Path, labels: NDArray[np.integer[Any]], num_classes: int) -> Path:
    """Write classes of pixels ``(H, W)`` as a PNG whose values are the numbers of the classes, with colours to look at.

    Args:
        path: The file; it appears whole or not at all.
        labels: From 0 to ``num_classes - 1``.
        num_classes: At most 256, with the background.

    Raises:
        ValueError: If a class does not fit.
    """
    from PIL import Image

    if num_classes > 256 or labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        raise ValueError(
            f"Expected classes from 0 to {num_classes - 1}, at most 255, got {labels.min(initial=0)} to "
            f"{labels.max(initial=0)}."
        )
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    # `convert` keeps the grey values as places of the palette.
    image.putpalette([part for colour in class_colours(num_classes) for part in colour])
    with atomic(path) as part:
        image.save(part, format="PNG", optimize=True)
    return Path(path)


def overlay(pixels: NDArray[Any], preds: NDArray[np.bool_], target: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Return a picture in grey with the border of the truth in green and the predicted region in orange.

    Args:
        pixels: ``(H, W, C)`` of uint8, uint16 or floats in [0, 1].
        preds: ``(H, W)``.
        target: ``(H, W)``; None where it is not known.

    Example:
        >>> overlay(np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4), bool), None).shape
        (4, 4, 3)
    """
    from scipy import ndimage

    top = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1.0
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    grey = colours.astype(np.float64).mean(axis=2) * (255.0 / top)
    drawn = np.repeat(grey[..., None], 3, axis=2)
    drawn[preds] = 0.5 * drawn[preds] + 0.5 * np.asarray(_FALSE)
    if target is not None:
        drawn[target & ~ndimage.binary_erosion(target)] = _TRUE
    return np.rint(drawn).astype(np.uint8)


def present_classes(labels: NDArray[np.integer[Any]], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes but the background that a mask shows.

    Example:
        >>> present_classes(np.array([[0, 2]]), ("good", "pit", "crack"))
        ('crack',)
    """
    return tuple(classes[place] for place in np.unique(labels).tolist() if place > 0)
