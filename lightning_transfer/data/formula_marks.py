"""The marks of `FormulaImages`: what may lie on a texture, from a crack of one pixel to a shade over half the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lightning_transfer.data.formula_textures import Array, filtered, frequencies, grid, rotated

__all__ = ["MARKS"]

# Heights are in deviations of the texture of most contrast; many marks are faint, as on real parts.


def _sign(rng: np.random.Generator, share_dark: float = 0.5) -> np.float32:
    return np.float32(-1 if rng.random() < share_dark else 1)


def _soft(distance: Array, sharpness: float) -> Array:
    """Return 1 where a signed distance is negative, 0 where it is positive, with a soft edge between."""
    return np.asarray(1 / (1 + np.exp(np.clip(distance * np.float32(sharpness), -30, 30))))


def _plain(rng: np.random.Generator, size: int) -> Array:
    return np.zeros((size, size), dtype=np.float32)


def _strokes(rng: np.random.Generator, size: int) -> Array:
    """Draw one to three thin, straight or slightly bent lines."""
    mark = _plain(rng, size)
    for _ in range(int(rng.integers(1, 4))):
        u, v = rotated(rng, size)
        width = np.float32(rng.uniform(0.6, 1.5) / size)
        bent = v - np.float32(rng.uniform(-1, 1)) * u * u
        line = np.exp(-((bent / width) ** 2)) * _soft(np.abs(u) - np.float32(rng.uniform(0.08, 0.4)), size)
        mark += _sign(rng) * np.float32(rng.uniform(1, 4)) * line
    return mark


def _crack(rng: np.random.Generator, size: int) -> Array:
    """Draw a thin dark line that changes its direction, now and then with a branch: a random walk."""
    steps = int(rng.integers(12, 40))
    turns = rng.normal(0, rng.uniform(0.25, 0.7), steps).cumsum() * 0.6 + rng.uniform(0, 2 * np.pi)
    stride = 1.2 / size
    path = np.stack([np.cos(turns), np.sin(turns)]).cumsum(axis=1) * stride
    points = path - path.mean(axis=1, keepdims=True) + rng.uniform(-0.3, 0.3, (2, 1))
    if rng.random() < 0.4:
        start, angle = int(rng.integers(steps)), rng.uniform(0, 2 * np.pi)
        length = np.arange(1, int(rng.integers(4, 14))) * stride
        points = np.concatenate([points, points[:, [start]] + np.outer((np.cos(angle), np.sin(angle)), length)], axis=1)
    x, y = grid(size)
    points = points.astype(np.float32)
    distance = np.full((size, size), np.inf, dtype=np.float32)
    for px, py in points.T:
        np.minimum(distance, (x - px) ** 2 + (y - py) ** 2, out=distance)
    width = np.float32(rng.uniform(0.6, 1.3) / size)
    return np.asarray(_sign(rng, 0.85) * np.float32(rng.uniform(1, 4)) * np.exp(-distance / width**2))


def _pits(rng: np.random.Generator, size: int) -> Array:
    """Draw one to six small discs, mostly dark, some with a bright rim."""
    x, y = grid(size)
    mark = _plain(rng, size)
    rim = np.float32(rng.uniform(0.2, 0.8) if rng.random() < 0.4 else 0)
    for _ in range(int(rng.integers(1, 7))):
        cx, cy = rng.uniform(-0.45, 0.45, 2).astype(np.float32)
        radius = np.float32(rng.uniform(0.8, 3.2) / size)
        distance = np.hypot(x - cx, y - cy)
        mark += _soft(distance - radius, 2 * size)
        if rim:
            mark -= rim * np.exp(-(((distance - radius - 1 / size) * size) ** 2)).astype(np.float32)
    return mark * _sign(rng, 0.75) * np.float32(rng.uniform(1, 4))


def _patch(rng: np.random.Generator, size: int) -> Array:
    """Draw one blob with a wavy outline."""
    u, v = rotated(rng, size)
    outline = 1 + np.float32(rng.uniform(0, 0.3)) * np.sin(np.arctan2(v, u) * int(rng.integers(2, 6)))
    radius = np.hypot(u, v * np.float32(rng.uniform(1, 2.5))) / outline
    return (
        _sign(rng)
        * np.float32(rng.uniform(0.8, 2.5))
        * _soft(radius - np.float32(rng.uniform(0.07, 0.25)), rng.uniform(20, 80))
    )


def _chip(rng: np.random.Generator, size: int) -> Array:
    """Break a piece off one border: another level behind a ragged edge, often with a bright or dark lip."""
    x, y = grid(size)
    side = ((x, y), (-x, y), (y, x), (-y, x))[int(rng.integers(4))]
    ragged = filtered(rng, size, frequencies(size)[2] ** np.float32(-1.6))
    ragged *= np.float32(rng.uniform(0.01, 0.04)) / ragged.std()
    depth, place = np.float32(rng.uniform(0.05, 0.35)), np.float32(rng.uniform(-0.4, 0.4))
    bowl = depth * np.exp(-(((side[1] - place) / np.float32(rng.uniform(0.1, 0.5))) ** 2))
    edge = side[0] + np.float32(0.52) - bowl + ragged
    mark = _sign(rng, 0.6) * np.float32(rng.uniform(1, 3)) * _soft(edge, 1.5 * size)
    if rng.random() < 0.6:
        mark += _sign(rng) * np.float32(rng.uniform(0.5, 2)) * np.exp(-((edge * np.float32(size / 1.5)) ** 2))
    return np.asarray(mark, dtype=np.float32)


def _rough(rng: np.random.Generator, size: int) -> Array:
    """Roughen an elongated region: noise of fine grain, or streaks along it."""
    u, v = rotated(rng, size)
    window = np.exp(-((u / np.float32(rng.uniform(0.15, 0.5))) ** 2) - (v / np.float32(rng.uniform(0.05, 0.2))) ** 2)
    fx, fy, radius = frequencies(size)
    if rng.random() < 0.5:
        amplitude = np.exp(-(((radius - np.float32(rng.uniform(8, 20))) / 6) ** 2))
    else:
        angle = rng.uniform(0, 2 * np.pi)
        along = fx * np.float32(np.cos(angle)) + fy * np.float32(np.sin(angle))
        amplitude = np.exp(-((along / 3) ** 2)) * (radius > 5)
    noise = filtered(rng, size, amplitude)
    return np.asarray(np.float32(rng.uniform(0.8, 2.5)) / noise.std() * noise * window)


def _shade(rng: np.random.Generator, size: int) -> Array:
    """Darken or lighten a large region or band, without any edge."""
    u, v = rotated(rng, size)
    length = rng.uniform(0.2, 0.35) if rng.random() < 0.6 else 2.0
    bump = np.exp(-((u / np.float32(length)) ** 2) - (v / np.float32(rng.uniform(0.12, 0.3))) ** 2)
    return _sign(rng) * np.float32(rng.uniform(0.7, 2.2)) * bump


MARKS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "plain": _plain,
    "strokes": _strokes,
    "crack": _crack,
    "pits": _pits,
    "patch": _patch,
    "chip": _chip,
    "rough": _rough,
    "shade": _shade,
}
"""Name of each mark, and what draws it as an addition to the texture, ``(size, size)``."""
