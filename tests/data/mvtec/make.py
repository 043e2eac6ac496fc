"""Write a small category in the layout of MVTec AD: good parts to train on, defects with masks in test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_mvtec(
    root: Path,
    *,
    good: int = 24,
    test_good: int = 8,
    defects: Mapping[str, int] | None = None,
    size: tuple[int, int] = (48, 64),
    seed: int = 0,
) -> Path:
    """Draw noise, with a bright square (``cut``) or a dark one (every other defect) where the mask says."""
    rng = np.random.default_rng(seed)
    kinds = {"cut": 8, "dent": 8} if defects is None else dict(defects)
    folders = [("train", "good", good), ("test", "good", test_good)]
    for split, name, count in [*folders, *(("test", kind, number) for kind, number in kinds.items())]:
        for index in range(count):
            pixels = rng.normal(128, 12, size).clip(0, 255).astype(np.uint8)
            mask = np.zeros(size, dtype=np.uint8)
            if name != "good":
                top, left = (int(rng.integers(0, side - 8)) for side in size)
                mask[top : top + 8, left : left + 8] = 255
                pixels[mask > 0] = 250 if name == "cut" else 5
                _save(mask, root / "ground_truth" / name / f"{index:03d}_mask.png")
            _save(pixels, root / split / name / f"{index:03d}.png")
    return root


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
