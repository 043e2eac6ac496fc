"""Formula-driven images: a seeded source task that needs nobody's data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["FORMULA_CLASSES", "FormulaImages"]

Array = NDArray[Any]  # float32 throughout
Texture = Callable[[np.random.Generator, int], Array]

# Each class is one texture with one kind of mark on it, so a network has to see both scales at once.
_MIN_SIZE = 16


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[Array, Array]:
    """Return pixel centres ``(x, y)`` in ``[-0.5, 0.5)``, each of shape ``(size, size)``."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x, y = np.meshgrid(axis, axis)
    return x, y


@lru_cache(maxsize=8)
def _frequencies(size: int) -> tuple[Array, Array, Array]:
    """Return ``(fx, fy, |f|)`` of the half spectrum in cycles per image; ``|f|`` is at least 1."""
    fx, fy = np.meshgrid(np.arange(size // 2 + 1, dtype=np.float32), np.fft.fftfreq(size, 1 / size).astype(np.float32))
    return fx, fy, np.maximum(np.hypot(fx, fy), 1)


def _rotated(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Return the pixel grid turned by a random angle about a random point near the centre."""
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = x - np.float32(rng.uniform(-0.3, 0.3)), y - np.float32(rng.uniform(-0.3, 0.3))
    return cos * x + sin * y, cos * y - sin * x


def _filtered(rng: np.random.Generator, size: int, amplitude: Array) -> Array:
    """Shape white Gaussian noise by a spectrum given on `_frequencies`."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    spectrum *= amplitude
    spectrum[0, 0] = 0
    return np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)


def _wave(rng: np.random.Generator, phase: Array) -> Array:
    """Turn a phase into a wave between a sine and a square."""
    sharpness = np.float32(rng.uniform(0.5, 4))
    wave: Array = np.sin(np.float32(2 * np.pi) * (phase + np.float32(rng.random())))
    return np.asarray(np.tanh(sharpness * wave))


def _grating(low: float, high: float) -> Texture:
    def draw(rng: np.random.Generator, size: int) -> Array:
        u, _ = _rotated(rng, size)
        return _wave(rng, u * np.float32(rng.uniform(low, high)))

    return draw


def _checker(low: float, high: float) -> Texture:
    def draw(rng: np.random.Generator, size: int) -> Array:
        u, v = _rotated(rng, size)
        frequency = np.float32(rng.uniform(low, high))
        return _wave(rng, u * frequency) * _wave(rng, v * frequency * np.float32(rng.uniform(0.8, 1.25)))

    return draw


def _noise(slope: float) -> Texture:
    def draw(rng: np.random.Generator, size: int) -> Array:
        _, _, radius = _frequencies(size)
        return _filtered(rng, size, radius ** np.float32(-slope + rng.uniform(-0.15, 0.15)))

    return draw


def _band(low: float, high: float) -> Texture:
    def draw(rng: np.random.Generator, size: int) -> Array:
        _, _, radius = _frequencies(size)
        centre = rng.uniform(low, high)
        return _filtered(rng, size, np.exp(-(((radius - np.float32(centre)) / np.float32(0.2 * centre)) ** 2)))

    return draw


def _brushed(rng: np.random.Generator, size: int) -> Array:
    fx, fy, radius = _frequencies(size)
    angle = rng.uniform(0, 2 * np.pi)
    along = fx * np.float32(np.cos(angle)) + fy * np.float32(np.sin(angle))
    return _filtered(rng, size, np.exp(-((along / np.float32(rng.uniform(1, 2.5))) ** 2)) / np.sqrt(radius))


def _distances(rng: np.random.Generator, size: int) -> tuple[Array, NDArray[np.intp]]:
    """Return the squared distances of each pixel to random seeds, ``(seeds, pixels)``, and the nearest seed."""
    x, y = _grid(size)
    seeds = rng.uniform(-0.6, 0.6, (2, int(rng.integers(12, 30)), 1)).astype(np.float32)
    distance = (x.reshape(1, -1) - seeds[0]) ** 2 + (y.reshape(1, -1) - seeds[1]) ** 2
    return distance, distance.argmin(axis=0)


def _cells(rng: np.random.Generator, size: int) -> Array:
    distance, nearest = _distances(rng, size)
    return rng.standard_normal(len(distance), dtype=np.float32)[nearest].reshape(size, size)


def _walls(rng: np.random.Generator, size: int) -> Array:
    distance, _ = _distances(rng, size)
    first, second = np.sqrt(np.partition(distance, 1, axis=0)[:2])
    sign = np.float32(rng.choice((-1, 1)))
    return np.asarray(sign * np.exp(-(second - first).reshape(size, size) * np.float32(rng.uniform(20, 50))))


def _rings(rng: np.random.Generator, size: int) -> Array:
    u, v = _rotated(rng, size)
    return _wave(rng, np.hypot(u, v * np.float32(rng.uniform(0.6, 1))) * np.float32(rng.uniform(4, 12)))


def _marble(rng: np.random.Generator, size: int) -> Array:
    u, _ = _rotated(rng, size)
    _, _, radius = _frequencies(size)
    warp = _filtered(rng, size, radius ** np.float32(-2))
    warp *= np.float32(rng.uniform(0.4, 0.9)) / warp.std()
    return _wave(rng, u * np.float32(rng.uniform(3, 9)) + warp)


def _leaves(rng: np.random.Generator, size: int) -> Array:
    """Paint overlapping rectangles and ellipses of random grey (the dead leaves model)."""
    image = np.zeros((size, size), dtype=np.float32)
    for _ in range(24):
        u, v = _rotated(rng, size)
        half = rng.uniform(0.05, 0.25, 2).astype(np.float32)
        u, v = np.abs(u / half[0]), np.abs(v / half[1])
        inside = (np.maximum(u, v) if rng.random() < 0.5 else u * u + v * v) < 1
        image[inside] = np.float32(rng.standard_normal())
    return image


# One system of three contractions; each image turns and shears it a little, as FractalDB does.
_MAPS = np.array(
    [
        [[0.55, -0.30, -0.20], [0.30, 0.55, -0.25]],
        [[0.50, 0.25, 0.30], [-0.25, 0.50, 0.10]],
        [[-0.40, 0.20, -0.05], [0.25, 0.45, 0.35]],
    ]
)


def _fractal(rng: np.random.Generator, size: int) -> Array:
    """Draw the attractor of an iterated function system (FractalDB, Kataoka et al. 2020)."""
    maps = (_MAPS * rng.uniform(0.85, 1.15, _MAPS.shape)).astype(np.float32)
    points = rng.uniform(-0.5, 0.5, (2, 3000)).astype(np.float32)
    choices = rng.integers(0, len(maps), (10, points.shape[1]))
    for choice in choices:
        row = maps[choice]
        points = np.einsum("nij,jn->in", row[:, :, :2], points) + row[:, :, 2].T
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=np.float32)
    points = turn @ (points - points.mean(axis=1, keepdims=True))
    cells = np.clip((points / (5 * points.std()) + 0.5) * size, 0, size - 1).astype(np.intp)
    counts = np.bincount(cells[1] * size + cells[0], minlength=size * size).reshape(size, size)
    return np.float32(rng.choice((-1, 1))) * np.log1p(counts).astype(np.float32)


def _plain(rng: np.random.Generator, size: int) -> Array | None:
    return None


def _strokes(rng: np.random.Generator, size: int) -> Array:
    """Draw one to three thin, slightly bent lines."""
    mark = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        u, v = _rotated(rng, size)
        width = np.float32(rng.uniform(0.7, 1.5) / size)
        bent = v - np.float32(rng.uniform(-1, 1)) * u * u
        line = np.exp(-((bent / width) ** 2)) / (1 + np.exp((np.abs(u) - np.float32(rng.uniform(0.1, 0.4))) * size))
        mark += np.float32(rng.choice((-1, 1)) * rng.uniform(2, 4)) * line
    return mark


def _spots(rng: np.random.Generator, size: int) -> Array:
    """Draw two to seven small discs of one sign."""
    x, y = _grid(size)
    mark = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(2, 8))):
        cx, cy = rng.uniform(-0.45, 0.45, 2).astype(np.float32)
        radius = np.float32(rng.uniform(1, 3.2) / size)
        mark += 1 / (1 + np.exp(np.minimum((np.hypot(x - cx, y - cy) - radius) * (2 * size), 30)))
    return mark * np.float32(rng.choice((-1, 1)) * rng.uniform(2, 4))


def _patch(rng: np.random.Generator, size: int) -> Array:
    """Draw one soft blob with a wavy outline."""
    u, v = _rotated(rng, size)
    angle = np.arctan2(v, u)
    outline = 1 + np.float32(rng.uniform(0, 0.3)) * np.sin(angle * int(rng.integers(2, 6)))
    radius = np.hypot(u, v * np.float32(rng.uniform(1, 1.8))) / outline
    edge = np.minimum((radius - np.float32(rng.uniform(0.1, 0.28))) * np.float32(rng.uniform(15, 80)), 30)
    return np.asarray(np.float32(rng.choice((-1, 1)) * rng.uniform(1.2, 2.5)) / (1 + np.exp(edge)))


_TEXTURES: dict[str, Texture] = {
    "coarse grating": _grating(2.5, 5),
    "fine grating": _grating(8, 14),
    "coarse checker": _checker(2, 4),
    "fine checker": _checker(6, 11),
    "cells": _cells,
    "walls": _walls,
    "flat noise": _noise(0.6),
    "pink noise": _noise(1.3),
    "cloud noise": _noise(2.2),
    "coarse blobs": _band(4, 6),
    "fine blobs": _band(10, 15),
    "brushed": _brushed,
    "rings": _rings,
    "marble": _marble,
    "leaves": _leaves,
    "fractal": _fractal,
}
_MARKS: dict[str, Callable[[np.random.Generator, int], Array | None]] = {
    "plain": _plain,
    "strokes": _strokes,
    "spots": _spots,
    "patch": _patch,
}

FORMULA_CLASSES: tuple[str, ...] = tuple(f"{texture}, {mark}" for texture in _TEXTURES for mark in _MARKS)
"""Names of the source classes, in the order of their numbers: each texture with each mark."""


def _render(rng: np.random.Generator, label: int, size: int) -> Array:
    """Draw one image of a class as ``(3, size, size)`` in ``[0, 1]``; light, contrast and colour are nuisance."""
    texture = list(_TEXTURES.values())[label // len(_MARKS)]
    mark = list(_MARKS.values())[label % len(_MARKS)]
    image = texture(rng, size)
    image = (image - image.mean()) * np.float32(rng.uniform(0.3, 1) / (float(image.std()) + 1e-6))
    drawn = mark(rng, size)
    if drawn is not None:
        image += drawn
    x, y = _grid(size)
    light = rng.normal(0, 0.8, 2).astype(np.float32)
    image += light[0] * x + light[1] * y
    image += np.float32(rng.uniform(0, 0.25)) * rng.standard_normal((size, size), dtype=np.float32)
    level, gain = np.full(3, rng.uniform(0.25, 0.75)), np.full(3, rng.uniform(0.06, 0.2))
    if rng.random() < 0.5:
        level, gain = level + rng.uniform(-0.2, 0.2, 3), gain * rng.choice((-1, 1), 3) * rng.uniform(0.4, 1.5, 3)
    colour: Array = gain.astype(np.float32)[:, None, None] * image + level.astype(np.float32)[:, None, None]
    return colour.clip(0, 1)


class FormulaImages(Dataset[tuple[Tensor, int]]):
    """Draw grey and colour images of 64 formula-driven classes: 16 textures, each with one of 4 kinds of mark.

    The source task of the embedded image backbones. Use it as the probe of a ``ForgettingMonitor``: another seed
    gives images that the pretraining never saw, of the same classes. Nothing is read from disk and no third
    party's data is used. Image ``i`` has class ``i % 64`` and depends on ``(seed, i, size)`` only.

    Args:
        num_images: Length of the data set; a multiple of 64 is balanced.
        size: Height and width in pixels, at least 16.
        seed: Picks the drawings within each class, not the classes. The embedded weights were trained with seed 0.
        mean: Per channel, subtracted from images in ``[0, 1]``; take it from the backbone's card.
        std: Per channel, divides what is left.

    Raises:
        ValueError: If a size, a seed or a statistic is out of range.

    Example:
        >>> probe = FormulaImages(128, seed=1)
        >>> image, label = probe[65]
        >>> tuple(image.shape), label, probe.classes[label]
        ((3, 64, 64), 1, 'coarse grating, strokes')
    """

    classes: tuple[str, ...] = FORMULA_CLASSES

    def __init__(
        self,
        num_images: int,
        *,
        size: int = 64,
        seed: int = 0,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        if num_images < 1:
            raise ValueError(f"Expected `num_images` of at least 1, got {num_images}.")
        if size < _MIN_SIZE:
            raise ValueError(f"Expected `size` of at least {_MIN_SIZE} pixels, got {size}.")
        if seed < 0:
            raise ValueError(f"Expected `seed` of at least 0, got {seed}.")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3:
                raise ValueError(f"Expected three values in `{name}`, one for each colour, got {list(values)}.")
        if min(std) <= 0:
            raise ValueError(f"Expected positive values in `std`, got {list(std)}.")
        self.num_images, self.size, self.seed = num_images, size, seed
        self.mean, self.std = tuple(mean), tuple(std)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.draw(index)
        mean, std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (self.mean, self.std))
        return (torch.from_numpy(image) - mean) / std, label

    def draw(self, index: int) -> tuple[Array, int]:
        """Draw one image without normalisation.

        Args:
            index: Position in the data set; negative ones count from the end.

        Returns:
            The image, ``(3, size, size)`` float32 in ``[0, 1]``, and its class number.

        Raises:
            IndexError: If the position is outside the data set.
        """
        if not -self.num_images <= index < self.num_images:
            raise IndexError(f"No image {index}: the data set holds {self.num_images}.")
        index %= self.num_images
        label = index % len(FORMULA_CLASSES)
        return _render(np.random.default_rng((self.seed, index)), label, self.size), label
