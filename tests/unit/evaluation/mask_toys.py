"""Pictures of squares, drawn more or less well, with a group, a label and a site each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.evaluation.segmentation_judge import JudgedMask, judge_mask
from lightning_transfer.types import Record, Schema

SCHEMA = Schema(
    task="segmentation",
    classes=("good", "defect"),
    negative_class="good",
    preprocessing={"kind": "image", "size": [16, 16], "pad": "none"},
)
SIZE = (16, 20)
KINDS = ("good", "pit", "crack")


def pictures(count: int = 30) -> tuple[list[Record], list[NDArray[np.int64]]]:
    """Return records, and the truth of each."""
    rng = np.random.default_rng(0)
    records, targets = [], []
    for place in range(count):
        kind = KINDS[place % 3]
        target = np.zeros(SIZE, dtype=np.int64)
        if kind != "good":
            top, left = rng.integers(0, 9, 2)
            target[top : top + (4 if kind == "pit" else 1), left : left + 7] = 1
        targets.append(target)
        meta = {"site": "ab"[place % 2]}
        records.append(Record(f"{kind}/{place}.png", f"{kind}/{place}.png", kind, "test", f"g{place // 3}", meta))
    return records, targets


def logits_of(target: NDArray[np.int64], noise: float, seed: int) -> NDArray[np.float32]:
    """Return logits that mean the truth, but for noise."""
    rng = np.random.default_rng(seed)
    odds = 3.0 * (target == 1) - 1.5 + noise * rng.standard_normal(target.shape)
    return np.stack([0 * odds, odds]).astype(np.float32)


def judged(targets: list[NDArray[np.int64]], noise: float = 1.0, seed: int = 1) -> list[JudgedMask]:
    return [judge_mask(place, logits_of(one, noise, seed + place), one) for place, one in enumerate(targets)]
