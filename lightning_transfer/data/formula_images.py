"""Formula-driven images: a seeded source task that needs nobody's data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_transfer.data.formula_marks import MARKS
from lightning_transfer.data.formula_textures import TEXTURES, Array, grid

__all__ = ["FORMULA_CLASSES", "FormulaImages"]

# Each class is one texture with one kind of mark on it, so a network has to see both scales at once.
_MIN_SIZE = 16

FORMULA_CLASSES: tuple[str, ...] = tuple(f"{texture}, {mark}" for texture in TEXTURES for mark in MARKS)
"""Names of the source classes, in the order of their numbers: each texture with each mark."""


def _border(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Darken or lighten a narrow band along some borders, as where a part ends."""
    inside = np.stack([side + np.float32(0.5) for side in (x, -x, y, -y)])[rng.random(4) < 0.5]
    if not len(inside):
        return np.zeros_like(x)
    width = np.float32(rng.uniform(0.01, 0.08))
    return np.asarray(np.float32(rng.uniform(-4, 2)) * np.exp(-inside.min(axis=0) / width))


def _render(rng: np.random.Generator, label: int, size: int) -> tuple[Array, Array]:
    """Draw image and mark of a class, as ``(3, size, size)`` in ``[0, 1]`` and ``(size, size)``.

    Light, contrast and colour are nuisance.
    """
    texture = list(TEXTURES.values())[label // len(MARKS)](rng, size)
    mark = list(MARKS.values())[label % len(MARKS)](rng, size)
    image = (texture - texture.mean()) * np.float32(rng.uniform(0.15, 1) / (float(texture.std()) + 1e-6)) + mark
    x, y = grid(size)
    light = rng.normal(0, 0.8, 4).astype(np.float32)
    image += light[0] * x + light[1] * y + light[2] * x * x + light[3] * y * y
    if rng.random() < 0.4:
        image += _border(rng, x, y)
    image += np.float32(rng.uniform(0, 0.2)) * rng.standard_normal((size, size), dtype=np.float32)
    level, gain = np.full(3, rng.uniform(0.25, 0.75)), np.full(3, rng.uniform(0.04, 0.2))
    if rng.random() < 0.5:
        level, gain = level + rng.uniform(-0.2, 0.2, 3), gain * rng.choice((-1, 1), 3) * rng.uniform(0.4, 1.5, 3)
    colour: Array = gain.astype(np.float32)[:, None, None] * image + level.astype(np.float32)[:, None, None]
    return colour.clip(0, 1), mark


class FormulaImages(Dataset[tuple[Tensor, int]]):
    """Draw grey and colour images of 128 formula-driven classes: 16 textures, each with one of 8 kinds of mark.

    The source task of the embedded image backbones. Use it as the probe of a ``ForgettingMonitor``: another seed
    gives images that the pretraining never saw, of the same classes. Nothing is read from disk and no third
    party's data is used. Image ``i`` has class ``i % 128`` and depends on ``(seed, i, size)`` only.

    Args:
        num_images: Length of the data set; a multiple of 128 is balanced.
        size: Height and width in pixels, at least 16.
        seed: Picks the drawings within each class, not the classes. The embedded weights were trained with seed 0.
        mean: Per channel, subtracted from images in ``[0, 1]``; take it from the backbone's card.
        std: Per channel, divides what is left.

    Raises:
        ValueError: If a size, a seed or a statistic is out of range.

    Example:
        >>> probe = FormulaImages(128, seed=1)
        >>> image, label = probe[9]
        >>> tuple(image.shape), label, probe.classes[label]
        ((3, 64, 64), 9, 'fine grating, strokes')
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
        image, label, _ = self.draw_with_mark(index)
        return image, label

    def draw_with_mark(self, index: int) -> tuple[Array, int, Array]:
        """Draw as `draw`, and return what was added to the texture too, ``(size, size)``; zero where nothing was."""
        index %= self.num_images
        label = index % len(FORMULA_CLASSES)
        image, mark = _render(np.random.default_rng((self.seed, index)), label, self.size)
        return image, label, mark
