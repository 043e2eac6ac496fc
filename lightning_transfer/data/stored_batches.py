"""Batches of what a cache kept, in place of those that are loaded from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from lightning_transfer.data.activation_files import ActivationFiles
from lightning_transfer.types import Activations, Batch

__all__ = ["StoredBatches", "StoredLayout", "pack", "record_dataset", "view_of"]

_SMALL = {"attention_mask": torch.uint8}
"""Parts of an input that are stored with fewer bits than the network wants."""


@dataclass(frozen=True)
class StoredLayout:
    """Which of an item's tensors is what.

    Attributes:
        layers: Number of tensors of the kept layers.
        given: Name -> dtype of what is kept of the input.
        sizes: Names of the parts whose shape is kept.
        target: Whether the last tensor is the item's target, which would else be loaded from a file.
    """

    layers: int
    given: Mapping[str, str]
    sizes: tuple[str, ...]
    target: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"layers": self.layers, "given": dict(self.given), "sizes": list(self.sizes), "target": self.target}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoredLayout:
        """Rebuild from `to_dict`."""
        return cls(values["layers"], dict(values["given"]), tuple(values["sizes"]), values["target"])


def pack(kept: Activations, target: Tensor | None) -> tuple[StoredLayout, list[Tensor]]:
    """Return the tensors to store of a batch, and which is what; `StoredBatches` is the way back.

    Args:
        kept: Of the batch.
        target: Of the batch, where it would else be loaded from files; small whole numbers are stored as such.
    """
    given = [part.to(_SMALL.get(name, part.dtype)) for name, part in kept.given.items()]
    layout = StoredLayout(
        len(kept.layers),
        {name: str(part.dtype).removeprefix("torch.") for name, part in kept.given.items()},
        tuple(kept.sizes),
        target is not None,
    )
    return layout, [*kept.layers, *given, *kept.sizes.values(), *([] if target is None else [target.to(torch.int16)])]


def view_of(seed: int | None, views: int) -> int:
    """Return which of the stored views the sampler's seed of an item chooses."""
    return 0 if seed is None else seed % views


class StoredBatches:
    """Makes batches from what was kept, the same that the loader of a `RecordDataset` would make from files.

    Args:
        files: Item ``views * record + view``.
        layout: Of the tensors of an item.
        targets: Of a list of items, where they are not stored.
        places: What each item says of its place.
        views: Stored views of each item; the seed that a sampler draws chooses one.
        is_current: Tells whether what was kept is what the network would give now.
    """

    def __init__(
        self,
        files: ActivationFiles,
        layout: StoredLayout,
        targets: Callable[[Sequence[int]], Tensor | None],
        places: Callable[[int], Any],
        views: int = 1,
        is_current: Callable[[], bool] = lambda: True,
    ) -> None:
        self.files = files
        self.layout = layout
        self.is_current = is_current
        self._targets = targets
        self._places = places
        self._views = views

    def batch(self, keys: Sequence[Any]) -> Batch:
        """Return a batch of what a sampler drew: items, or lists of them, each with or without a seed."""
        drawn = [one for key in keys for one in (key if isinstance(key, list) else [key])]
        pairs: list[tuple[int, int | None]] = [one if isinstance(one, tuple) else (one, None) for one in drawn]
        tensors = self.files.take([item * self._views + view_of(seed, self._views) for item, seed in pairs])
        layout, items = self.layout, [item for item, _ in pairs]
        layers, rest = tensors[: layout.layers], tensors[layout.layers :]
        given = {
            name: part.to(getattr(torch, dtype))
            for (name, dtype), part in zip(layout.given.items(), rest[: len(layout.given)], strict=True)
        }
        sizes = dict(zip(layout.sizes, rest[len(layout.given) :], strict=False))
        target = tensors[-1].long() if layout.target else self._targets(items)
        return Batch(Activations(tuple(layers), given, sizes), target, torch.tensor([self._places(i) for i in items]))


def record_dataset(dataset: Any) -> tuple[Any, Sequence[int] | None]:  # noqa: ANN401 - any data set
    """Return the data set that a cache can stand in for, and which of its items are meant; None: all.

    What can be cached says so by an attribute ``stored``; others are returned as they are.
    """
    if isinstance(dataset, Subset) and hasattr(dataset.dataset, "stored"):
        return dataset.dataset, dataset.indices
    return dataset, None
