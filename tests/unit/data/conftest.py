"""A small image datamodule, and folders to feed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.types import BackboneCard, Record


@pytest.fixture
def card() -> BackboneCard:
    return BackboneCard(
        name="test/card", architecture="test/card", input_size=(3, 16, 24), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5)
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a table of tickets."""

    def put(content: str | bytes, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write ``count`` small images into each class folder."""

    def make(classes: Sequence[str] = ("bad", "good"), count: int = 20, root: str = "images") -> Path:
        rng = np.random.default_rng(0)
        for name in classes:
            folder = tmp_path / root / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (12, 10), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"lot{index // 2}_{index}.png")
        return tmp_path / root

    return make


@pytest.fixture
def grouped_records() -> Callable[[int], list[Record]]:
    """Random groups of random sizes and random classes, some of them rare."""

    def make(seed: int, num_groups: int = 60) -> list[Record]:
        rng = np.random.default_rng(seed)
        classes = np.array(["a", "b", "c", "d"])
        records = []
        for group in range(num_groups):
            shares = rng.dirichlet([2.0, 1.0, 0.5, 0.2])
            for label in rng.choice(classes, size=rng.integers(1, 9), p=shares):
                records.append(Record(id=f"r{len(records)}", input=None, label=str(label), group=f"g{group}"))
        return records

    return make
