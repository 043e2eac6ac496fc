"""Feed records to a model: dataset, collation, sampler, loader; what is drawn is a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, WeightedRandomSampler

from lightning_transfer.data.length_groups import batches_in_order, group_by_length
from lightning_transfer.data.record_loader import RecordLoader, ResumableLoader
from lightning_transfer.data.stored_batches import StoredBatches
from lightning_transfer.types import Batch, Record, Task

__all__ = [
    "NO_TOKEN",
    "Collate",
    "EpochSampler",
    "RecordDataset",
    "ResumableLoader",
    "class_weights",
    "encode_label",
    "expand",
    "make_loader",
    "stack_inputs",
]

NO_TOKEN = -100
"""Behind the end of a target that is shorter than others of its batch: what torch's losses leave out."""

PieceIndex = tuple[int, int, int]
Item = tuple[Any, "Tensor | None", "int | PieceIndex"]


def encode_label(record: Record, classes: Sequence[str], task: Task) -> Tensor | None:
    """Return the label as the loss wants it, or None if it is unknown.

    Returns:
        int64 index for multi-class; float 0 or 1 for binary; floats with NaN for missing for multi-label.

    Example:
        >>> encode_label(Record(id="1", input=None, label="bad"), ("good", "bad"), "binary")
        tensor(1.)
    """
    if isinstance(record.label, tuple):
        return torch.tensor([float("nan") if value is None else value for value in record.label])
    if record.label is None or record.label not in classes:
        return None
    place = list(classes).index(record.label)
    return torch.tensor(float(place)) if task == "binary" else torch.tensor(place)


def class_weights(records: Sequence[Record]) -> Tensor:
    """Return one over the frequency of each record's class, so that classes are drawn equally often."""
    counts: dict[Any, int] = {}
    for record in records:
        counts[record.label] = counts.get(record.label, 0) + 1
    return torch.tensor([1.0 / counts[record.label] for record in records], dtype=torch.float64)


def expand(
    records: Sequence[Record], pieces: Callable[[Record], Sequence[Record] | None]
) -> tuple[list[Record], list[PieceIndex] | None]:
    """Return the pieces of all records, in order, and for each: position of its record, its number, number of pieces.

    Where no record has pieces, return the records, and None.

    Example:
        >>> rows = [Record("a", "xy"), Record("b", "z")]
        >>> found, index = expand(rows, lambda row: [Record(row.id + char, char) for char in row.input])
        >>> [piece.id for piece in found], index
        (['ax', 'ay', 'bz'], [(0, 0, 2), (0, 1, 2), (1, 0, 1)])
    """
    found = [pieces(record) for record in records]
    if all(parts is None for parts in found):
        return list(records), None
    items: list[Record] = []
    index: list[PieceIndex] = []
    for place, (record, parts) in enumerate(zip(records, found, strict=True)):
        own = [record] if parts is None else list(parts)
        items.extend(own)
        index.extend((place, number, len(own)) for number in range(len(own)))
    return items, index


class RecordDataset(Dataset[Item]):
    """One split's records as ``(input, target, index)``.

    Args:
        records: Of one split.
        load: Turns a record into a tensor or a dict of tensors.
        classes: In the order of the logits.
        task: Decides the form of the target; None for no target.
        augment: Called on training inputs with a generator seeded by the sampler.
        index: What each item says of its place, as `expand` returns it; None is its number.
        encode: Turns a record into its target, where that is no class; None is `encode_label`.
        pair: Loads input and target together when an item is asked for, and changes both by a generator if there is
            one; in place of ``load``, ``augment`` and ``encode``. For targets that are files, such as masks.
    """

    def __init__(
        self,
        records: Sequence[Record],
        load: Callable[[Record], Any],
        classes: Sequence[str],
        task: Task | None,
        augment: Callable[[Any, torch.Generator], Any] | None = None,
        index: Sequence[PieceIndex] | None = None,
        encode: Callable[[Record], Tensor | None] | None = None,
        pair: Callable[[Record, torch.Generator | None], tuple[Any, Tensor]] | None = None,
    ) -> None:
        self.records = list(records)
        self._index = index
        self._load = load
        self._augment = augment
        self._pair = pair
        self.stored: StoredBatches | None = None  # a cache, which a `RecordLoader` reads instead
        self._targets: list[Tensor | None] = [None] * len(self.records)
        if task is not None and pair is None:
            target = encode or partial(encode_label, classes=classes, task=task)
            self._targets = [target(record) for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def is_random(self) -> bool:
        """Whether inputs are changed at random when a sampler gives a seed."""
        return self._augment is not None

    @property
    def loads_targets(self) -> bool:
        """Whether targets come from files, with the input."""
        return self._pair is not None

    def targets_of(self, items: Sequence[int]) -> Tensor | None:
        """Return the targets of a batch; None unless each item has one."""
        return join_targets([self._targets[item] for item in items])

    def place_of(self, item: int) -> int | PieceIndex:
        """Return what an item says of its place."""
        return item if self._index is None else self._index[item]

    @property
    def owners(self) -> list[int]:
        """Position of the record that each item is of, or is a piece of."""
        return list(range(len(self.records))) if self._index is None else [row[0] for row in self._index]

    def in_order(self, only: Collection[int] | None, lengths: Sequence[float] | None) -> Dataset[Item]:
        """Return the items of some records, shortest first.

        Args:
            only: Positions of the records, each with all its pieces; None takes all.
            lengths: Of each item; None leaves them in their order.
        """
        if only is None and lengths is None:
            return self
        places = self.items_of(only)
        return Subset(self, places if lengths is None else sorted(places, key=lambda item: lengths[item]))

    def items_of(self, only: Collection[int] | None) -> list[int]:
        """Return the places of the items of some records, each with all its pieces; None takes all."""
        return [item for item, owner in enumerate(self.owners) if only is None or owner in only]

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - an item, or a list of them
        """Return one item; the sampler of training adds a seed to the index. A list of keys gives the items of each."""
        return [self._item(one) for one in key] if isinstance(key, list) else self._item(key)

    def _item(self, key: int | tuple[int, int]) -> Item:
        index, seed = key if isinstance(key, tuple) else (key, None)
        place = self.place_of(index)
        changes = self._augment is not None and seed is not None
        generator = torch.Generator().manual_seed(seed) if changes and seed is not None else None
        if self._pair is not None:
            return *self._pair(self.records[index], generator), place
        value = self._load(self.records[index])
        if self._augment is not None and generator is not None:
            value = self._augment(value, generator)
        return value, self._targets[index], place


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffle, or draw by weight, as a pure function of seed and epoch; each index comes with its own seed.

    Neither the global random state nor the number of workers has a say. Lightning calls ``set_epoch``; without it each
    pass is the next epoch.

    Args:
        size: Number of records.
        seed: Of all epochs.
        weights: Draw ``size`` records with replacement in proportion to these; None visits each once.
        lengths: Of every record; those of like length come together, see `group_by_length`.
        batch_size: How many come together; with several processes the records of all of them.
    """

    draws_batches = False  # whether each draw is a list, a whole batch

    def __init__(
        self,
        size: int,
        seed: int,
        weights: Tensor | None = None,
        *,
        lengths: Sequence[float] | None = None,
        batch_size: int = 1,
    ) -> None:
        self._size = size
        self._seed = seed
        self._weights = weights
        self._lengths = lengths
        self._batch_size = batch_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def _next_generator(self) -> torch.Generator:
        """Return the random numbers of this epoch, and go on to the next."""
        # A large odd stride keeps neighbouring seeds and epochs apart.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        self._epoch += 1
        return generator

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = self._next_generator()
        if self._weights is None:
            order = torch.randperm(self._size, generator=generator).tolist()
        else:
            # Its stub asks for floats; a tensor is taken as it is.
            order = list(WeightedRandomSampler(self._weights, self._size, generator=generator))  # type: ignore[arg-type]
        if self._lengths is not None:
            order = group_by_length(order, self._lengths, self._batch_size, generator)
        seeds = torch.randint(2**62, (self._size,), generator=generator).tolist()
        return iter(list(zip(order, seeds, strict=True)))


def stack_inputs(inputs: Sequence[Any]) -> Any:  # noqa: ANN401 - tensor or dict of tensors
    """Stack tensors, or pad the tensors of dicts with zeros to the longest.

    Example:
        >>> stack_inputs([{"ids": torch.tensor([1, 2])}, {"ids": torch.tensor([3])}])["ids"]
        tensor([[1, 2],
                [3, 0]])
    """
    first = inputs[0]
    if isinstance(first, Mapping):
        return {key: _pad([value[key] for value in inputs]) for key in first}
    return torch.stack(list(inputs))


def _pad(values: Sequence[Tensor], fill: float = 0) -> Tensor:
    """Stack tensors of one shape, else pad their first axis."""
    if len({value.shape for value in values}) == 1:
        return torch.stack(list(values))
    return pad_sequence(list(values), batch_first=True, padding_value=fill)


def join_targets(targets: Sequence[Tensor | None]) -> Tensor | None:
    """Stack targets, those of different length padded with `NO_TOKEN`; None unless every item has one."""
    known = [target for target in targets if target is not None]
    return _pad(known, NO_TOKEN) if len(known) == len(targets) else None


class Collate:
    """Turn items into a `Batch`; a class of its own so that worker processes can receive it.

    Args:
        collate_inputs: Turns a list of inputs into one.
    """

    def __init__(self, collate_inputs: Callable[[Sequence[Any]], Any] = stack_inputs) -> None:
        self._collate_inputs = collate_inputs

    def __call__(self, items: Sequence[Item] | Sequence[list[Item]]) -> Batch:
        """Return the batch; its target is None unless every item has one. One list of items is one batch as well."""
        drawn: Any = items
        rows: Sequence[Item] = drawn[0] if isinstance(drawn[0], list) else drawn
        inputs, targets, indices = zip(*rows, strict=True)
        return Batch(self._collate_inputs(inputs), join_targets(targets), torch.tensor(indices))


def make_loader(
    dataset: RecordDataset,
    sampler: EpochSampler | None,
    *,
    batch_size: int,
    num_workers: int,
    collate: Collate,
    drop_last: bool,
    seed: int,
    only: Collection[int] | None = None,
    lengths: Sequence[float] | None = None,
    budget: float | None = None,
) -> DataLoader[Batch]:
    """Return the loader of batches; with a sampler one that a resumed fit goes on with.

    Args:
        dataset: Of items.
        sampler: Of a training split; None keeps the order, or takes the shortest first where there are lengths.
        batch_size: Items in a batch.
        num_workers: Processes; 0 loads in this one.
        collate: Makes the batches.
        drop_last: Leave out a smaller last batch.
        seed: Of the workers' random numbers.
        only: Without a sampler: positions of the records that are wanted; None takes all.
        lengths: Of each item.
        budget: Without a sampler: most that a batch holds of them, padding included; None: ``batch_size`` items.
    """
    items: Dataset[Any] = dataset
    drawn: Any = sampler
    # Where whole batches are drawn, the loader takes each as one item: so Lightning's distributed samplers share whole
    # batches, and the loader's own lazy batch sampler keeps workers from drawing an epoch twice.
    whole = sampler is not None and sampler.draws_batches
    if sampler is None and lengths is not None and budget is not None:
        drawn, whole = batches_in_order(dataset.items_of(only), lengths, budget), True
    elif sampler is None:
        items = dataset.in_order(only, lengths)
    kind: type[RecordLoader] = RecordLoader if sampler is None else ResumableLoader
    return kind(
        items,
        batch_size=1 if whole else batch_size,
        sampler=drawn,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        drop_last=drop_last and not whole,
        # Each pass draws a seed for the workers; from the global state it would shift the dropout that follows.
        generator=torch.Generator().manual_seed(seed),
    )
