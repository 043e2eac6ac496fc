"""Batches of about equal cost where inputs differ in length: as many in each as their longest allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

from lightning_transfer.data.length_groups import length_buckets
from lightning_transfer.data.loading import EpochSampler

__all__ = ["LengthBatchSampler"]


class LengthBatchSampler(EpochSampler):
    """Draw batches of inputs of like length, by seed and epoch; each is a list of ``(index, seed)``.

    Every input comes once in an epoch, with others in each, and long batches and short ones take turns at random. The
    number of batches is the same in all epochs, so schedulers know it. A distributed sampler around it hands out whole
    batches; as all cost about the same, no process waits long.

    Args:
        lengths: Of every input.
        seed: Of all epochs.
        budget: Longest input of a batch times number of inputs, at most.

    Raises:
        ValueError: If the budget is not above 0.

    Example:
        >>> sampler = LengthBatchSampler([1.0, 1.0, 5.0, 1.0], seed=0, budget=5)
        >>> sorted(sorted(index for index, _ in batch) for batch in sampler), len(sampler)
        ([[0, 1, 3], [2]], 2)
    """

    draws_batches = True

    def __init__(self, lengths: Sequence[float], seed: int, *, budget: float) -> None:
        if budget <= 0:
            raise ValueError(f"Expected a budget above 0 for a batch, got {budget:g}.")
        self._buckets = length_buckets(lengths, budget)
        super().__init__(sum(count for _, count in self._buckets), seed)

    def __iter__(self) -> Iterator[Any]:
        generator = self._next_generator()
        batches: list[list[int]] = []
        for items, count in self._buckets:
            order = [items[place] for place in torch.randperm(len(items), generator=generator).tolist()]
            # Of sizes that differ by one at most: a last batch of one input would be a step by chance.
            ends = [len(order) * number // count for number in range(count + 1)]
            batches += [order[start:end] for start, end in pairwise(ends)]
        shuffled = [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]
        seeds = iter(torch.randint(2**62, (sum(map(len, shuffled)),), generator=generator).tolist())
        return iter([[(item, next(seeds)) for item in batch] for batch in shuffled])
