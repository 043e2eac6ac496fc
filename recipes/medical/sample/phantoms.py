"""Draw chests by formula: thorax, lungs, heart, spine, ribs, and three kinds of lesion."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FINDINGS", "Chest", "Scanner", "draw_chest"]

Array = NDArray[np.float64]

FINDINGS: tuple[str, ...] = ("nodule", "consolidation", "effusion")


class Chest(NamedTuple):
    """What all images of one patient share; lengths in halves of the image's side."""

    lung_width: float
    lung_height: float
    heart: float  # radius
    tilt: float  # of the ribs
    rib_gap: float
    thickness: float  # of the soft tissue: how much of the light it takes
    side: int  # on which lesions are: -1 is the image's left
    spot: tuple[float, float]  # where a nodule or consolidation is, within the lung, in [-1, 1]
    extent: float  # of the lesions, in [0, 1]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Chest:
        """Draw a patient."""
        return cls(
            lung_width=rng.uniform(0.26, 0.34),
            lung_height=rng.uniform(0.52, 0.64),
            heart=rng.uniform(0.2, 0.28),
            tilt=rng.uniform(0.15, 0.4),
            rib_gap=rng.uniform(0.15, 0.19),
            thickness=rng.uniform(0.9, 1.1),
            side=int(rng.choice((-1, 1))),
            spot=(rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.45)),
            extent=rng.uniform(0.0, 1.0),
        )


class Scanner(NamedTuple):
    """How a site's device and its way of working change the picture."""

    name: str
    bits: int  # stored, of 16
    photometric: str
    window: tuple[float, float] | None  # centre and width in the file; None: the whole range
    blur: int  # passes of a small kernel
    noise: float
    gamma: float
    border: float  # of the collimator, in halves of the side; 0 is none
    heart_scale: float  # bedside pictures are taken from the front, near by: the heart looks larger


def draw_chest(
    rng: np.random.Generator, chest: Chest, scanner: Scanner, findings: Collection[str], size: int = 160
) -> Array:
    """Return a picture ``(size, size)`` in ``[0, 1]`` in which dense tissue is bright.

    Args:
        rng: Draws what differs between two pictures of a patient: breath, position, noise.
        chest: The patient.
        scanner: The device.
        findings: Of `FINDINGS`, those that are there.
        size: Pixels on a side.

    Raises:
        ValueError: If a finding is unknown.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> scanner = Scanner("toy", 12, "MONOCHROME2", None, 0, 0.0, 1.0, 0.0, 1.0)
        >>> patient = Chest.draw(rng)
        >>> one = draw_chest(np.random.default_rng(1), patient, scanner, ())
        >>> other = draw_chest(np.random.default_rng(1), patient, scanner, ("effusion",))
        >>> one.shape, bool((other > one + 0.1).any()), bool((other < one - 0.1).any())
        ((160, 160), True, False)
    """
    unknown = sorted(set(findings) - set(FINDINGS))
    if unknown:
        raise ValueError(f"There is no finding `{unknown[0]}`. Known: {', '.join(FINDINGS)}.")
    x, y = _grid(size)
    x, y = x - rng.normal(0, 0.03), y - rng.normal(0, 0.03)
    breath = rng.uniform(0.92, 1.05)
    height = chest.lung_height * breath
    texture = _noise(rng, size, 5.0)
    shape = chest.thickness * _soft(1 - np.hypot(x / 0.92, y / 1.25), 14)
    picture = 0.62 * shape + 0.16 * np.exp(-((x / 0.09) ** 2)) * shape
    lungs = np.zeros_like(picture)
    for side in (-1, 1):
        lung = _lung(x, y, side, chest.lung_width, height)
        lungs = np.maximum(lungs, lung)
    picture -= 0.42 * lungs * (1 + 0.12 * texture)
    picture += 0.05 * _ribs(x, y, chest) * shape
    heart = chest.heart * scanner.heart_scale
    picture += 0.3 * _soft(1 - np.hypot((x - 0.12) / heart, (y - 0.28) / (1.15 * heart)), 6) * lungs
    inside = _lung(x, y, chest.side, chest.lung_width, height)
    for name in sorted(findings):
        picture += _LESIONS[name](rng, x, y, chest, height) * inside
    for _ in range(scanner.blur):
        picture = _blurred(picture)
    picture = np.clip(picture + rng.normal(0, scanner.noise, picture.shape), 0, 1) ** scanner.gamma
    if scanner.border:
        grid_x, grid_y = _grid(size)
        edge = np.maximum(
            np.abs(grid_x) - 1 + rng.uniform(0.5, 1) * scanner.border, np.abs(grid_y) - 1 + scanner.border
        )
        picture *= _soft(-edge, 60)
    return np.asarray(np.clip(picture, 0, 1))


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Array, Array]:
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    x, y = np.meshgrid(axis, axis)
    return x, y


def _soft(distance: Array, steepness: float) -> Array:
    """Return 1 inside (positive distance) and 0 outside, with a soft edge."""
    return np.asarray(1 / (1 + np.exp(np.clip(-steepness * distance, -60, 60))))


def _centre(side: int, width: float) -> float:
    return side * (width + 0.11)


def _lung(x: Array, y: Array, side: int, width: float, height: float) -> Array:
    """Draw a lung, wider at its base, whose base the diaphragm cuts off."""
    widened = width * (1 + 0.18 * np.clip(y, -1, 1))
    across = (x - _centre(side, width)) / widened
    oval = 1 - (np.abs(across) ** 2.4 + np.abs((y + 0.05) / height) ** 2.4)
    dome = height - 0.12 - y - 0.18 * across**2
    return _soft(oval, 9) * _soft(dome, 22)


def _ribs(x: Array, y: Array, chest: Chest) -> Array:
    """Draw the bands of the ribs, which fall towards the sides."""
    phase = (y - chest.tilt * np.abs(x) + 0.25 * x**2) / chest.rib_gap
    return np.asarray(np.exp(-((np.sin(np.pi * phase) / 0.35) ** 2)))


def _noise(rng: np.random.Generator, size: int, width: float) -> Array:
    """Draw smooth noise of unit deviation; ``width`` in pixels."""
    fx, fy = np.meshgrid(np.fft.rfftfreq(size), np.fft.fftfreq(size))
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-((width * np.hypot(fx, fy)) ** 2) * 8)
    found = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray(found / found.std())


def _place(chest: Chest, height: float) -> tuple[float, float]:
    return (
        _centre(chest.side, chest.lung_width) + chest.spot[0] * 0.7 * chest.lung_width,
        chest.spot[1] * 0.75 * height,
    )


def _nodule(rng: np.random.Generator, x: Array, y: Array, chest: Chest, height: float) -> Array:
    """Draw one round, well-defined spot, where it was in the patient's last picture."""
    at_x, at_y = _place(chest, height)
    radius = 0.06 + 0.045 * chest.extent
    return 0.34 * _soft(1 - np.hypot(x - at_x, y - at_y) / radius, 6)


def _consolidation(rng: np.random.Generator, x: Array, y: Array, chest: Chest, height: float) -> Array:
    """Draw a patch without an edge, mottled."""
    at_x, at_y = _place(chest, height)
    radius = 0.2 + 0.1 * chest.extent
    mottle = 1 + 0.45 * _noise(rng, len(x), 2.5)
    return 0.26 * np.exp(-(((x - at_x) ** 2 + (y - at_y) ** 2) / radius**2)) * mottle


def _effusion(rng: np.random.Generator, x: Array, y: Array, chest: Chest, height: float) -> Array:
    """Fill the base of the lung up to a line that rises at the side."""
    outwards = chest.side * x - abs(_centre(chest.side, chest.lung_width))
    level = height * (0.55 - 0.35 * chest.extent) + rng.normal(0, 0.02)
    return 0.38 * _soft(y - level + 0.5 * np.clip(outwards, 0, 1), 18)


_LESIONS = {"nodule": _nodule, "consolidation": _consolidation, "effusion": _effusion}


def _blurred(picture: Array) -> Array:
    padded = np.pad(picture, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4)
