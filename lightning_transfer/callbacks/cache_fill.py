"""Run the frozen layers once over a split, and keep what they give: the probe before it, the pass, the estimate."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_transfer.backbones.cut import Cut
from lightning_transfer.backbones.find_cut import activations_of, evaluating, find_cut
from lightning_transfer.callbacks.cache_conditions import CacheRefusedError
from lightning_transfer.data.activation_files import ActivationFiles, ActivationWriter
from lightning_transfer.data.length_groups import batches_in_order
from lightning_transfer.data.stored_batches import StoredBatches, StoredLayout, pack, record_dataset
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["Probe", "Split", "fill", "probe_cut"]

Key = tuple[int, "int | None"]
"""An item, and the seed of its changes."""

_CLOSE = 1e-4
"""Largest difference between features of items in a batch and alone, as a share of the largest number."""


@dataclass(frozen=True)
class Split:
    """The items of one loader, in the order in which they are run.

    Attributes:
        name: ``train``, ``val``, or ``val 1`` of several.
        loader: Of the trainer.
        views: How often each item is stored.
        seed: Of the changes of the views.
    """

    name: str
    loader: DataLoader[Any]
    views: int = 1
    seed: int = 0

    @property
    def dataset(self) -> Any:  # noqa: ANN401 - a `RecordDataset`
        """The data set, without the order of evaluation around it."""
        return record_dataset(self.loader.dataset)[0]

    @property
    def items(self) -> list[int]:
        """Numbers of the items that the loader may draw."""
        chosen = record_dataset(self.loader.dataset)[1]
        drawn = self.loader.sampler
        if chosen is None and isinstance(drawn, list):  # batches made by length, of some items or all
            return sorted({item for batch in drawn for item in (batch if isinstance(batch, list) else [batch])})
        return list(range(len(self.dataset)) if chosen is None else chosen)

    def batches(self, lengths: Sequence[float] | None, budget: float | None) -> list[list[int]]:
        """Return the items in batches, those of like length together."""
        items = self.items
        if lengths is not None and budget is not None:
            return batches_in_order(items, lengths, budget)
        if lengths is not None:
            items.sort(key=lambda item: lengths[item])
        size = max(self.loader.batch_size or 1, 8)
        return [items[start : start + size] for start in range(0, len(items), size)]

    def keys(self, items: Sequence[int], view: int) -> list[Key]:
        """Return what the data set is asked for."""
        if not self.dataset.is_random:
            return [(item, None) for item in items]
        return [(item, (self.seed * 1_000_003 + item * self.views + view) % 2**62) for item in items]

    def collate(self, keys: Sequence[Key]) -> Batch:
        """Load items, in this process, and make a batch of them."""
        batch: Batch = self.loader.collate_fn([self.dataset[_plain(key)] for key in keys])
        return batch


@dataclass(frozen=True)
class Probe:
    """What a few items told.

    Attributes:
        cut: Where the backbone is cut.
        layout: Of the tensors of an item.
        bytes_per_item: About, without a smaller dtype.
    """

    cut: Cut
    layout: StoredLayout
    bytes_per_item: float


def probe_cut(trainer: Trainer, module: Any, split: Split, trains: Collection[int]) -> Probe:  # noqa: ANN401 - a TransferModule
    """Find the cut with two items, and prove that what is stored of each alone gives what both give in a batch.

    Args:
        trainer: Of the fit; its precision is that of the pass.
        module: With its head.
        split: Of which the items are; the first and the last in its order, which differ most in length.
        trains: Identities of the parameters that train while the cut is in use.

    Raises:
        CacheRefusedError: If the backbone cannot be cut, or features depend on the batch that an item is in.
    """
    items = [item for batch in split.batches(_lengths(trainer, split), None) for item in batch]
    chosen = [items[0], items[-1]] if len(items) > 1 else items
    keys = split.keys(chosen, 0)
    # Loaded before the context, which may change the dtype of what augmentations draw.
    batch, *alone = [_moved(trainer, split.collate(some)) for some in (keys, *([key] for key in keys))]
    with evaluating(module), trainer.precision_plugin.forward_context():
        reads = [name for name in module.read_layers]
        try:
            cut = find_cut(module.backbone, batch.input, trains, rows=len(chosen), reads=reads)
        except BackboneError as error:
            raise CacheRefusedError(str(error).rstrip(".")) from error
        writer = ActivationWriter(None, memory_limit=float("inf"), size_limit=float("inf"))
        for number, one in enumerate(alone):
            layout, tensors = _kept(cut, module.backbone, module, one, split)
            writer.add([number], tensors)
        files = ActivationFiles([writer.finish({})])
        stored = StoredBatches(files, layout, lambda _: None, lambda item: item)
        again = _moved(trainer, stored.batch(range(len(keys))))
        with _cut_at(module, cut):
            pairs = [(module.features(batch.input), module.features(again.input))]
            if reads:
                pairs.append((module(batch.input), module(again.input)))
        for whole, halves in pairs:
            difference = float((whole.float() - halves.float()).abs().max())
            if not difference <= _tolerance(whole):
                raise CacheRefusedError(
                    f"what `{type(module.backbone).__name__}` gives for an item depends on the others in its batch (by "
                    f"{difference:.2g}), as where a norm sees the padding"
                )
    return Probe(cut, layout, files.nbytes / len(chosen))


def fill(
    trainer: Trainer,
    module: Any,  # noqa: ANN401 - a TransferModule
    backbone: nn.Module,
    probe: Probe,
    split: Split,
    writer: ActivationWriter,
) -> Any:  # noqa: ANN401 - a part
    """Run the first half of the backbone over this process's share of a split, and return what was written.

    Args:
        trainer: Of the fit.
        module: That the backbone belongs to.
        backbone: Its backbone, or a copy with folded norms.
        probe: Of the module as it is now.
        split: All of whose items are run, in all their views.
        writer: Takes them.
    """
    lengths = _lengths(trainer, split)
    budget = getattr(getattr(trainer, "datamodule", None), "batch_budget", None)
    plain = split.batches(lengths, budget)
    batches = [(items, view) for view in range(split.views) for items in plain]
    own = batches[trainer.global_rank :: trainer.world_size]
    loader = DataLoader(
        split.dataset,
        batch_sampler=[[_plain(key) for key in split.keys(items, view)] for items, view in own],
        num_workers=split.loader.num_workers,
        collate_fn=split.loader.collate_fn,
        # Its own, or the global state would move by a draw.
        generator=torch.Generator().manual_seed(0),
    )
    try:
        with _bar(trainer, f"Feature cache: {split.name}", len(own)) as bar, torch.no_grad():
            for (items, view), loaded in zip(own, loader, strict=True):
                batch = _moved(trainer, loaded)
                with trainer.precision_plugin.forward_context():
                    _, tensors = _kept(probe.cut, backbone, module, batch, split)
                if any(len(tensor) != len(items) for tensor in tensors):
                    raise CacheRefusedError(
                        f"{len(items)} items of the {split.name} data became {len(tensors[0])} rows, as long texts in "
                        "chunks do; only the features of the whole backbone could be kept"
                    )
                writer.add([item * split.views + view for item in items], tensors)
                bar.update(1)
        return writer.finish({"layout": probe.layout.to_dict()})
    except BaseException:
        writer.discard()
        raise


def _kept(
    cut: Cut,
    backbone: nn.Module,
    module: Any,  # noqa: ANN401 - a TransferModule
    batch: Batch,
    split: Split,
) -> tuple[StoredLayout, list[Tensor]]:
    kept = activations_of(cut, cut.prefix(backbone, batch.input), batch.input, module.kept_input(batch.input))
    return pack(kept, batch.target if split.dataset.loads_targets else None)


def _tolerance(whole: Tensor) -> float:
    return _CLOSE * max(1e-6, float(whole.float().abs().max()))


def _plain(key: Key) -> Any:  # noqa: ANN401 - an item, with a seed if it has one
    return key[0] if key[1] is None else key


def _moved(trainer: Trainer, batch: Batch) -> Batch:
    """Return a batch as the fit loop would hand it to the module."""
    moved: Batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
    return moved


def _lengths(trainer: Trainer, split: Split) -> Sequence[float] | None:
    data = getattr(trainer, "datamodule", None)
    found: Sequence[float] | None = None if data is None else data.input_lengths(split.dataset.records)
    return found


@contextmanager
def _cut_at(module: Any, cut: Cut) -> Iterator[None]:  # noqa: ANN401 - a TransferModule
    before, module.cut = module.cut, cut
    try:
        yield
    finally:
        module.cut = before


@contextmanager
def _bar(trainer: Trainer, description: str, total: int) -> Iterator[Any]:
    """Show Lightning's bar, where the trainer shows one."""
    from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

    show = trainer.is_global_zero and trainer.progress_bar_callback is not None
    bar = Tqdm(desc=description, total=total, disable=not show, leave=False, dynamic_ncols=True)
    try:
        yield bar
    finally:
        bar.close()
