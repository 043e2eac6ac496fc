"""What an image says without any network: brightness, colour, edges. For the baseline that pretraining must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.image_files import ImageSource, Pixels, read_image

__all__ = ["plain_image_features"]

_Float = npt.NDArray[np.float32]

_THUMBNAIL = 16
_SIDE = 128
_CELLS = 4
_ORIENTATIONS = 8
_SHADES = 8
_PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
_STEPS = (0.02, 0.05, 0.1, 0.2, 0.4)


def plain_image_features(
    images: Sequence[ImageSource], read: Callable[[ImageSource], Pixels] = read_image, num_threads: int = 4
) -> _Float:
    """Return ``(N, 431)`` numbers that describe pictures as they are, each decoded once.

    A grey thumbnail of 16 x 16 pixels; mean, deviation and histogram of each channel; percentiles of the brightness at
    full size, which show a small spot that the thumbnail loses; at 128 x 128 pixels how much edge of which of 8
    orientations lies in each of 4 x 4 cells (Dalal and Triggs 2005, without their blocks), and how many pixels differ
    from their neighbours by how much. Proportions are not kept.

    Args:
        images: Paths, PIL images or arrays.
        read: Decodes one as ``(H, W, C)``.
        num_threads: Pictures decoded at the same time; Pillow does most of it without Python's lock.

    Raises:
        DataError: If a picture cannot be read.

    Example:
        >>> plain_image_features([np.zeros((20, 30), dtype=np.uint8)]).shape
        (1, 431)
    """
    with ThreadPoolExecutor(num_threads) as pool:
        rows = list(pool.map(lambda image: _describe(read(image)), images))
    return np.stack(rows) if rows else np.zeros((0, _width()), dtype=np.float32)


def _describe(pixels: Pixels) -> _Float:
    colours = _colours(pixels)
    grey = colours @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow
    small = _resize(grey, _SIDE)
    shades = np.minimum((colours * _SHADES).astype(np.int64), _SHADES - 1) + _SHADES * np.arange(3)
    parts = [
        _resize(grey, _THUMBNAIL).ravel(),
        colours.mean(axis=(0, 1)),
        colours.std(axis=(0, 1)),
        np.bincount(shades.ravel(), minlength=3 * _SHADES) / grey.size,
        np.percentile(grey, _PERCENTILES),
        *_edges(small),
    ]
    return np.concatenate(parts).astype(np.float32)


def _edges(grey: _Float) -> list[npt.NDArray[Any]]:
    """Return the strength of each orientation in each cell, and of how many pixels the difference exceeds each step."""
    down, right = np.gradient(grey)
    strength = np.hypot(down, right)
    # Unsigned: an edge from dark to bright is one from bright to dark, seen from the other side.
    angle = np.mod(np.arctan2(down, right), np.pi)
    orientation = np.minimum((angle / np.pi * _ORIENTATIONS).astype(np.int64), _ORIENTATIONS - 1)
    cell = np.arange(len(grey)) * _CELLS // len(grey)
    place = (cell[:, None] * _CELLS + cell[None, :]) * _ORIENTATIONS + orientation
    total = np.bincount(place.ravel(), strength.ravel(), minlength=_CELLS * _CELLS * _ORIENTATIONS)
    shares = [(strength > step).mean() for step in _STEPS]
    return [np.sqrt(total / grey.size), np.asarray([*shares, strength.mean(), strength.std(), strength.max()])]


def _colours(pixels: Pixels) -> _Float:
    """Return ``(H, W, 3)`` in ``[0, 1]``; transparency is left out."""
    top = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1.0
    opaque = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return opaque.astype(np.float32) / np.float32(top)


def _resize(grey: _Float, side: int) -> _Float:
    from PIL import Image

    return np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BOX))


def _width() -> int:
    return _THUMBNAIL**2 + 3 * 2 + 3 * _SHADES + len(_PERCENTILES) + _CELLS**2 * _ORIENTATIONS + len(_STEPS) + 3
