"""Seeded pictures of metal surfaces with defects, so that a first run needs neither network nor data."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_transfer.errors import DataError
from lightning_transfer.files import write_folder

__all__ = ["DEFECTS", "write_surfaces"]

Array = NDArray[np.float64]

DEFECTS: tuple[str, ...] = ("scratch", "pit", "stain", "crack")
_DEFECT_SHARE = 0.4
_MARKER = "surfaces.json"
_FORMAT = 3  # of the set: raise it when the same parameters give other pictures or columns


class _Lot(NamedTuple):
    """What all images of one lot share: how the sheet was made, and how it was lit."""

    kind: str
    angle: float  # of brushing or rolling, radians
    grain: float  # slope or width of the texture's spectrum
    contrast: float  # standard deviation of the texture, grey levels
    level: float  # mean grey
    light: tuple[float, float]  # slope of the illumination, grey levels across the image
    noise: float  # of the camera, grey levels
    bands: float  # period of the roller's marks, pixels


def _draw_lot(rng: np.random.Generator) -> _Lot:
    return _Lot(
        kind=str(rng.choice(("brushed", "rolled", "cast"))),
        angle=rng.uniform(0, np.pi),
        grain=rng.uniform(0.8, 1.6),
        contrast=rng.uniform(5, 13),
        level=rng.uniform(80, 175),
        light=(rng.normal(0, 18), rng.normal(0, 18)),
        noise=rng.uniform(1, 4),
        bands=rng.uniform(9, 20),
    )


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Array, Array]:
    """Return pixel positions ``(x, y)`` from the centre."""
    axis = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(axis, axis)
    return x, y


def _along(size: int, angle: float, centre: tuple[float, float] = (0.0, 0.0)) -> tuple[Array, Array]:
    """Return the coordinates along and across a direction through a point."""
    x, y = _grid(size)
    x, y = x - centre[0], y - centre[1]
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _texture(rng: np.random.Generator, lot: _Lot, size: int) -> Array:
    """Draw clean metal with zero mean and unit deviation."""
    fx, fy = np.meshgrid(np.fft.rfftfreq(size), np.fft.fftfreq(size))
    radius = np.maximum(np.hypot(fx, fy), 1 / size)
    if lot.kind == "cast":
        amplitude = radius**-lot.grain * np.exp(-((radius / 0.25) ** 2))
    else:
        along = fx * np.cos(lot.angle) + fy * np.sin(lot.angle)
        amplitude = np.exp(-((along * size / lot.grain) ** 2)) + 0.06 * radius**-0.5
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * amplitude
    spectrum[0, 0] = 0
    texture = np.fft.irfft2(spectrum, s=(size, size))
    texture /= texture.std()
    if lot.kind == "rolled":
        _, across = _along(size, lot.angle + np.pi / 2)
        texture = 0.8 * texture + 0.8 * np.sin(2 * np.pi * (across / lot.bands + rng.random()))
    return np.asarray(texture, dtype=np.float64)


def _somewhere(rng: np.random.Generator, size: int) -> tuple[float, float]:
    return rng.uniform(-0.32, 0.32) * size, rng.uniform(-0.32, 0.32) * size


def _scratch(rng: np.random.Generator, lot: _Lot, size: int) -> Array:
    """Draw a thin line, bright on one side and dark on the other, at an angle to the grain."""
    angle = lot.angle + rng.choice((-1, 1)) * rng.uniform(0.35, np.pi / 2)
    u, v = _along(size, angle, _somewhere(rng, size))
    v = v - rng.uniform(-0.006, 0.006) * u * u
    ends = 1 / (1 + np.exp(np.abs(u) - rng.uniform(0.14, 0.3) * size))
    width = rng.uniform(0.6, 1.0)
    return np.asarray(ends * (np.exp(-((v / width) ** 2)) - 0.5 * np.exp(-(((v - 1.6) / width) ** 2))))


def _pit(rng: np.random.Generator, lot: _Lot, size: int) -> Array:
    """Draw one to three small dark holes with a lighter rim."""
    mark = np.zeros((size, size))
    for _ in range(int(rng.integers(1, 4))):
        u, v = _along(size, rng.uniform(0, np.pi), _somewhere(rng, size))
        radius = rng.uniform(1.1, 2.3)
        distance = np.hypot(u, v * rng.uniform(1, 1.4))
        mark -= 1.3 * np.exp(-((distance / radius) ** 4)) - 0.5 * np.exp(-((distance - 1.6 * radius) ** 2))
    return mark


def _stain(rng: np.random.Generator, lot: _Lot, size: int) -> Array:
    """Draw a faint blot with a wavy outline and a slightly darker edge, as a dried drop leaves it."""
    u, v = _along(size, rng.uniform(0, np.pi), _somewhere(rng, size))
    turn = np.arctan2(v, u)
    outline = 1 + 0.15 * np.sin(2 * turn + rng.uniform(0, 6)) + 0.1 * np.sin(3 * turn + rng.uniform(0, 6))
    distance = np.hypot(u, v * rng.uniform(1, 1.5)) / outline - rng.uniform(0.1, 0.2) * size
    inside = 1 / (1 + np.exp(np.clip(distance * 1.5, -30, 30)))
    return np.asarray(rng.choice((-1, 1)) * (0.65 * inside + 0.35 * np.exp(-((distance / 1.5) ** 2))))


def _crack(rng: np.random.Generator, lot: _Lot, size: int) -> Array:
    """Draw a jagged dark path with a short branch."""
    mark = np.zeros((size, size))
    heading = rng.uniform(0, 2 * np.pi)
    start = np.array(_somewhere(rng, size)) - 0.16 * size * np.array([np.cos(heading), np.sin(heading)])
    branch_at = int(rng.integers(2, 5))
    segments = []
    point, branch = start, None
    for step in range(int(rng.integers(6, 9))):
        turned = heading + rng.normal(0, 0.65)
        end = point + rng.uniform(3, 6) * np.array([np.cos(turned), np.sin(turned)])
        segments.append((point, end))
        point = end
        if step == branch_at:
            branch = point
    if branch is not None:
        turned = heading + rng.choice((-1, 1)) * rng.uniform(0.7, 1.2)
        segments.append((branch, branch + rng.uniform(5, 9) * np.array([np.cos(turned), np.sin(turned)])))
    x, y = _grid(size)
    for first, second in segments:
        step_x, step_y = second - first
        t = np.clip(((x - first[0]) * step_x + (y - first[1]) * step_y) / (step_x**2 + step_y**2), 0, 1)
        distance = np.hypot(x - first[0] - t * step_x, y - first[1] - t * step_y)
        mark = np.maximum(mark, np.exp(-((distance / 0.75) ** 2)))
    return -mark


_DRAW: dict[str, Callable[[np.random.Generator, _Lot, int], Array]] = {
    "scratch": _scratch,
    "pit": _pit,
    "stain": _stain,
    "crack": _crack,
}
# Peak of each mark against the texture's deviation: stains are wide, so they show at a lower contrast.
_STRENGTH = {"scratch": (3.0, 5.5), "pit": (3.0, 5.5), "stain": (2.2, 4.0), "crack": (3.0, 5.5)}


def _draw(rng: np.random.Generator, lot: _Lot, label: str, size: int) -> NDArray[np.uint8]:
    """Draw one grey image of a lot."""
    image = _texture(rng, lot, size)
    if label in _DRAW:
        image += rng.uniform(*_STRENGTH[label]) * _DRAW[label](rng, lot, size)
    x, y = _grid(size)
    light = lot.level + rng.normal(0, 6) + (lot.light[0] * x + lot.light[1] * y) / size
    grey = light + lot.contrast * rng.uniform(0.85, 1.15) * image + lot.noise * rng.standard_normal((size, size))
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _labels(rng: np.random.Generator, first: int, count: int) -> list[str]:
    """Deal the labels of one lot: two defects in five images, kinds in turn over all lots, order shuffled."""
    dealt = []
    for position in range(first, first + count):
        defects = int(position * _DEFECT_SHARE + 1e-9)
        is_defect = int((position + 1) * _DEFECT_SHARE + 1e-9) > defects
        dealt.append(DEFECTS[defects % len(DEFECTS)] if is_defect else "good")
    return [dealt[index] for index in rng.permutation(count)]


def write_surfaces(root: Path, *, seed: int = 0, num_lots: int = 40, images_per_lot: int = 12, size: int = 64) -> Path:
    """Write pictures of metal surfaces in class folders, with a ``manifest.csv`` of ``path,label,group,surface``.

    Three images in five are ``good``; the others show a ``scratch``, a ``pit``, a ``stain`` or a ``crack``. The group
    is the lot: its images share texture, direction, contrast and light, so a split must not cut through it, and
    neither brightness nor contrast tells a defect. ``surface`` is how its sheets were made: brushed, rolled or cast.
    The folder appears whole or not at all. One that is already there is kept when it was written with the same
    arguments.

    Args:
        root: Folder to write; its parents are made.
        seed: Another seed gives other lots.
        num_lots: Number of groups.
        images_per_lot: Images in each lot.
        size: Height and width in pixels, at least 32.

    Returns:
        The folder.

    Raises:
        ValueError: If an argument is out of range.
        DataError: If the folder holds something else, or a damaged set.
    """
    for name, value, least in (("seed", seed, 0), ("num_lots", num_lots, 1), ("images_per_lot", images_per_lot, 1)):
        if value < least:
            raise ValueError(f"Expected `{name}` of at least {least}, got {value}.")
    if size < 32:
        raise ValueError(f"Expected `size` of at least 32 pixels, got {size}.")
    root = Path(root)
    wanted = {
        "format": _FORMAT,
        "seed": seed,
        "num_lots": num_lots,
        "images_per_lot": images_per_lot,
        "size": size,
    }
    write_folder(root, lambda part: _write(part, wanted), lambda: _is_there(root, wanted))
    return root


def _write(folder: Path, wanted: dict[str, int]) -> None:
    """Write all images, then the manifest, then the marker."""
    rows = []
    for label in ("good", *DEFECTS):
        (folder / label).mkdir(parents=True)
    count = wanted["images_per_lot"]
    for number in range(wanted["num_lots"]):
        rng = np.random.default_rng((wanted["seed"], number, 0))
        lot = _draw_lot(rng)
        group = f"lot{number:03d}"
        for index, label in enumerate(_labels(rng, number * count, count)):
            pixels = _draw(np.random.default_rng((wanted["seed"], number, index + 1)), lot, label, wanted["size"])
            path = f"{label}/{group}_{index:02d}.png"
            Image.fromarray(pixels).save(folder / path)
            rows.append((path, label, group, lot.kind))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "group", "surface"), *rows])
    (folder / _MARKER).write_text(json.dumps({**wanted, "images": len(rows)}) + "\n", encoding="utf-8")


def _is_there(root: Path, wanted: dict[str, int]) -> bool:
    """Tell whether the same set already stands at ``root``; False if there is nothing, an error if there is else."""
    remedy = "Choose another folder, or delete this one to have it written again."
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / _MARKER
    if not marker.is_file():
        raise DataError(f"`{root}` already exists and was not written by `write_surfaces` (no `{_MARKER}`). {remedy}")
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"`{marker}` is not readable as JSON: {error}. {remedy}") from error
    if not isinstance(found, dict):
        raise DataError(f"`{marker}` holds {found!r}, not the arguments of a set. {remedy}")
    other = [f"{key}={found.get(key)} (asked: {value})" for key, value in wanted.items() if found.get(key) != value]
    if other:
        raise DataError(f"`{root}` holds surfaces of other arguments: {', '.join(other)}. {remedy}")
    images = sum(1 for _ in root.glob("*/*.png"))
    if images != found.get("images") or not (root / "manifest.csv").is_file():
        raise DataError(f"`{root}` is damaged: {images} of {found.get('images')} images, or no manifest. {remedy}")
    return True
