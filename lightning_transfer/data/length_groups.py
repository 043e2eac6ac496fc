"""Put inputs of like length into one batch, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

__all__ = ["batches_in_order", "group_by_length", "length_buckets"]

_POOL = 50
"""Batches that are sorted together: enough for little padding, and few enough that batches differ in each epoch."""

_RATIO = 1.15
"""Longest to shortest of a bucket: so much of a batch may be padding, and no more where there are enough inputs."""


def group_by_length(
    order: Sequence[int], lengths: Sequence[float], batch_size: int, generator: torch.Generator
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


def length_buckets(lengths: Sequence[float], budget: float) -> list[tuple[list[int], int]]:
    """Put inputs of like length into buckets, each with the number of batches that it is cut into.

    A batch that is padded to the longest of its bucket holds at most ``budget``; an input that is longer than that has
    one of its own. Buckets begin at the longest input, and have at least one full batch but for the last.

    Args:
        lengths: Of every input.
        budget: Longest input of a batch times number of inputs, at most.

    Returns:
        Numbers of the inputs, longest first, and how many batches they fill.

    Example:
        >>> length_buckets([1.0, 4.0, 1.1, 3.8, 1.0, 1.05], budget=8)
        [([1, 3], 1), ([2, 5, 0, 4], 1)]
    """
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    buckets: list[tuple[list[int], int]] = []
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        size = max(1, int(budget // longest)) if longest > 0 else len(order)
        end = start
        while end < len(order) and (end - start < size or lengths[order[end]] * _RATIO >= longest):
            end += 1
        buckets.append((order[start:end], -(-(end - start) // size)))
        start = end
    return buckets


def batches_in_order(items: Iterable[int], lengths: Sequence[float], budget: float) -> list[list[int]]:
    """Cut items, shortest first, into batches of at most ``budget``; always the same, for evaluation.

    Example:
        >>> batches_in_order([2, 0, 1, 3], [1.0, 2.0, 1.0, 2.5], budget=4)
        [[2, 0], [1], [3]]
    """
    batches: list[list[int]] = []
    for item in sorted(items, key=lambda item: lengths[item]):
        if batches and (len(batches[-1]) + 1) * lengths[item] <= budget:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches
