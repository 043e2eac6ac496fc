"""Put inputs of like length into one batch, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["group_by_length"]

_POOL = 50
"""Batches that are sorted together: enough for little padding, and few enough that batches differ in each epoch."""


def group_by_length(
    order: Sequence[int], lengths: Sequence[int], batch_size: int, generator: torch.Generator
) -> list[int]:
    """Rearrange a random order so that each run of ``batch_size`` items is of like length, and the runs are shuffled.

    As transformers' ``group_by_length``, but for the runs, which it leaves sorted within a pool: there training would
    see short texts before long ones, again and again. The items that fill no batch stay at the end.

    Args:
        order: A permutation, or a draw with repeats.
        lengths: Of every item, by its number.
        batch_size: Items in a run.
        generator: Shuffles the runs.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = group_by_length([3, 0, 2, 1, 4], [1, 9, 1, 9, 5], 2, generator)
        >>> sorted(sorted([found[:2], found[2:4]])), found[4:]
        ([[0, 2], [3, 1]], [4])
    """
    whole = len(order) - len(order) % batch_size
    runs: list[list[int]] = []
    pool = _POOL * batch_size
    for start in range(0, whole, pool):
        part = sorted(order[start : min(start + pool, whole)], key=lambda item: lengths[item])
        runs += [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
    shuffled = [runs[place] for place in torch.randperm(len(runs), generator=generator).tolist()]
    return [item for run in shuffled for item in run] + list(order[whole:])
