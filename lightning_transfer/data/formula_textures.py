"""The textures of `FormulaImages`: gratings, noises, cells, fractals, each drawn from a formula and a seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TEXTURES", "Array", "Texture", "filtered", "frequencies", "grid", "rotated"]

Array = NDArray[Any]  # float32 throughout
Texture = Callable[[np.random.Generator, int], Array]


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Array, Array]:
    """Return pixel centres ``(x, y)`` in ``[-0.5, 0.5)``, each of shape ``(size, size)``."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x, y = np.meshgrid(axis, axis)
    return x, y


@lru_cache(maxsize=8)
def frequencies(size: int) -> tuple[Array, Array, Array]:
    """Return ``(fx, fy, |f|)`` of the half spectrum in cycles per image; ``|f|`` is at least 1."""
    fx, fy = np.meshgrid(np.arange(size // 2 + 1, dtype=np.float32), np.fft.fftfreq(size, 1 / size).astype(np.float32))
    return fx, fy, np.maximum(np.hypot(fx, fy), 1)


def rotated(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Return the pixel grid turned by a random angle about a random point near the centre."""
    x, y = grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = x - np.float32(rng.uniform(-0.3, 0.3)), y - np.float32(rng.uniform(-0.3, 0.3))
    return cos * x + sin * y, cos * y - sin * x


def filtered(rng: np.random.Generator, size: int, amplitude: Array) -> Array:
    """Shape white Gaussian noise by a spectrum given on `frequencies`."""
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
        u, _ = rotated(rng, size)
        return _wave(rng, u * np.float32(rng.uniform(low, high)))

    return draw


def _checker(low: float, high: float) -> Texture:
    def draw(rng: np.random.Generator, size: int) -> Array:
        u, v = rotated(rng, size)
        frequency = np.float32(rng.uniform(low, high))
        return _wave(rng, u * frequency) * _wave(rng, v * frequency * np.float32(rng.uniform(0.8, 1.25)))

    return draw


def _noise(slope: float) -> Texture:
    def draw(rng: np.random.Generator, size: int) -> Array:
        _, _, radius = frequencies(size)
        return filtered(rng, size, radius ** np.float32(-slope + rng.uniform(-0.15, 0.15)))

    return draw


def _band(low: float, high: float) -> Texture:
    def draw(rng: np.random.Generator, size: int) -> Array:
        _, _, radius = frequencies(size)
        centre = rng.uniform(low, high)
        return filtered(rng, size, np.exp(-(((radius - np.float32(centre)) / np.float32(0.2 * centre)) ** 2)))

    return draw


def _brushed(rng: np.random.Generator, size: int) -> Array:
    fx, fy, radius = frequencies(size)
    angle = rng.uniform(0, 2 * np.pi)
    along = fx * np.float32(np.cos(angle)) + fy * np.float32(np.sin(angle))
    return filtered(rng, size, np.exp(-((along / np.float32(rng.uniform(1, 2.5))) ** 2)) / np.sqrt(radius))


def _distances(rng: np.random.Generator, size: int) -> tuple[Array, NDArray[np.intp]]:
    """Return the squared distances of each pixel to random seeds, ``(seeds, pixels)``, and the nearest seed."""
    x, y = grid(size)
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
    u, v = rotated(rng, size)
    return _wave(rng, np.hypot(u, v * np.float32(rng.uniform(0.6, 1))) * np.float32(rng.uniform(4, 12)))


def _marble(rng: np.random.Generator, size: int) -> Array:
    u, _ = rotated(rng, size)
    _, _, radius = frequencies(size)
    warp = filtered(rng, size, radius ** np.float32(-2))
    warp *= np.float32(rng.uniform(0.4, 0.9)) / warp.std()
    return _wave(rng, u * np.float32(rng.uniform(3, 9)) + warp)


def _leaves(rng: np.random.Generator, size: int) -> Array:
    """Paint overlapping rectangles and ellipses of random grey (the dead leaves model)."""
    image = np.zeros((size, size), dtype=np.float32)
    for _ in range(24):
        u, v = rotated(rng, size)
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


TEXTURES: dict[str, Texture] = {
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
