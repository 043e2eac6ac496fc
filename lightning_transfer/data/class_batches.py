"""Batches of several classes with several examples of each: what contrastive learning compares within a batch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence

import torch

from lightning_transfer.data.length_batches import LengthBatchSampler
from lightning_transfer.data.loading import EpochSampler, class_weights
from lightning_transfer.types import Record

__all__ = ["ClassBatchSampler", "leaves_single", "make_sampler"]


class ClassBatchSampler(EpochSampler):
    """Order examples so that each batch holds several classes, and several examples of each, by seed and epoch.

    An epoch shows about as many examples as there are, every class equally often: of large classes a part, another
    one in each epoch; small ones again. Examples of one class come in runs of ``examples_per_class``, without repeats
    unless the class is smaller than that. All batches are full.

    Args:
        labels: Class of each example.
        seed: Of all epochs.
        batch_size: Examples in a batch.
        examples_per_class: Length of a run; at least 2, so that every example has a partner.

    Raises:
        ValueError: If a batch does not hold two classes.

    Example:
        >>> sampler = ClassBatchSampler("aaabbb", seed=0, batch_size=4, examples_per_class=2)
        >>> ["".join(sorted("aaabbb"[place] for place, _ in list(sampler)[start : start + 4])) for start in (0, 4)]
        ['aabb', 'aabb']
    """

    def __init__(self, labels: Sequence[Hashable], seed: int, *, batch_size: int, examples_per_class: int) -> None:
        if examples_per_class < 2:
            raise ValueError(
                f"Expected `examples_per_class` of at least 2, got {examples_per_class}: an example is compared with "
                "others of its class. 4 is a good start."
            )
        if batch_size % examples_per_class or batch_size < 2 * examples_per_class:
            raise ValueError(
                f"A batch of {batch_size} cannot hold two or more classes with {examples_per_class} examples each. Set "
                f"`data.batch_size` to a multiple of {examples_per_class}, such as {16 * examples_per_class}, or "
                "change `model.examples_per_class`."
            )
        members: dict[Hashable, list[int]] = {}
        for place, label in enumerate(labels):
            members.setdefault(label, []).append(place)
        self._members = list(members.values())
        self._run = examples_per_class
        self._runs_per_batch = batch_size // examples_per_class
        runs = max(len(self._members), -(-len(labels) // examples_per_class))
        self._batches = -(-runs // self._runs_per_batch)
        super().__init__(self._batches * batch_size, seed)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = self._next_generator()
        runs = self._batches * self._runs_per_batch
        # Every class once before any comes again, in another order each time.
        classes: list[int] = []
        while len(classes) < runs:
            turn = torch.randperm(len(self._members), generator=generator).tolist()
            if classes and turn[0] == classes[-1]:
                turn.reverse()  # a batch of two runs would else hold one class
            classes += turn
        stock: list[list[int]] = [[] for _ in self._members]
        order: list[int] = []
        for number in classes[:runs]:
            order += self._draw(number, stock, generator)
        seeds = torch.randint(2**62, (len(order),), generator=generator).tolist()
        return iter(list(zip(order, seeds, strict=True)))

    def _draw(self, number: int, stock: list[list[int]], generator: torch.Generator) -> list[int]:
        """Take the next run of a class; what is used up is shuffled and begins anew."""
        members, run = self._members[number], list[int]()
        while len(run) < self._run:
            if not stock[number]:
                again = [members[place] for place in torch.randperm(len(members), generator=generator).tolist()]
                # What this run holds already comes last.
                stock[number] = [item for item in again if item not in run] + [item for item in again if item in run]
            run.append(stock[number].pop(0))
        return run


def make_sampler(
    records: Sequence[Record],
    seed: int,
    batch_size: int,
    processes: int = 1,
    weighted: bool = False,
    lengths: Sequence[float] | None = None,
    examples_per_class: int | None = None,
    budget: float | None = None,
) -> EpochSampler:
    """Return what chooses the order of training.

    Args:
        records: Of the training split, or their pieces.
        seed: Of all epochs.
        batch_size: Of each process.
        processes: That share the records.
        weighted: Draw every class equally often.
        lengths: Of each input; those of like length come together.
        examples_per_class: Batches of several classes with so many of each, whatever the lengths; None: no such rule.
        budget: Of the lengths of a batch, whose size then differs, see `LengthBatchSampler`; None: ``batch_size``.

    Raises:
        ValueError: If a budget is to go with another rule.
    """
    if budget is not None and lengths is not None:
        if weighted or examples_per_class is not None:
            rule = "`data.sampler: weighted`" if weighted else f"`model.examples_per_class` {examples_per_class}"
            raise ValueError(f"Batches within a budget of {budget:g} do not go with {rule}. Leave out one of them.")
        return LengthBatchSampler(lengths, seed, budget=budget)
    if examples_per_class is not None:
        labels = [record.label for record in records]
        return ClassBatchSampler(labels, seed, batch_size=batch_size, examples_per_class=examples_per_class)
    weights = class_weights(records) if weighted else None
    return EpochSampler(len(records), seed, weights, lengths=lengths, batch_size=batch_size * processes)


def leaves_single(count: int, batch_size: int, processes: int) -> bool:
    """Tell whether the last of several batches of a process holds one record alone, with which BatchNorm cannot train.

    Example:
        >>> leaves_single(9, 4, 1), leaves_single(9, 4, 2), leaves_single(1, 4, 1)
        (True, True, False)
    """
    share = math.ceil(count / processes)
    return share > batch_size and share % batch_size == 1
