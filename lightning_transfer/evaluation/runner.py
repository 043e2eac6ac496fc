"""Run a trained module over data, and keep what it said of each record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn

from lightning_transfer.data.loading import encode_label
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.tiles import join_tiles
from lightning_transfer.modules.segmentation import PixelOutput
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Batch, ModelOutput, Record, Schema

__all__ = ["Outputs", "collect_features", "collect_outputs", "collect_transcripts", "stream_outputs"]

_log = logging.getLogger(__name__)


_Result = TypeVar("_Result")


class _Predicts(Protocol):
    def predict_step(self, batch: Batch, batch_idx: int) -> ModelOutput: ...


class _Transcribes(Protocol):
    def transcribe(self, batch: Batch) -> list[Transcript]: ...


class _PredictsMasks(Protocol):
    def predict_step(self, batch: Batch, batch_idx: int) -> PixelOutput: ...


@dataclass(frozen=True)
class Outputs:
    """What a model said of each record of one split, in the order of the records, each once; all on the CPU.

    Attributes:
        logits: ``(N, num_logits)`` float32, before any temperature; ``(N, 0)`` where only features were collected.
        features: Pooled backbone features ``(N, F)`` float32.
        target: Labels as in `Batch`; None if unknown.
        index: Position of each record in its split ``(N,)``, rising.
    """

    logits: Tensor
    features: Tensor
    target: Tensor | None
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def from_batches(cls, batches: Sequence[ModelOutput], schema: Schema | None = None) -> Outputs:
        """Join the outputs of all batches, sort them by record, and drop repeats.

        Distributed samplers repeat a few records to fill the last batch; counted twice they would bend every metric.
        Tiles become one row a record, by the rule of the schema: see `join_tiles`.

        Raises:
            ValueError: If there is no batch, only some batches have labels, or there are tiles and no schema.

        Example:
            >>> batch = ModelOutput(torch.ones(3, 2), torch.ones(3, 4), None, torch.tensor([2, 0, 2]))
            >>> Outputs.from_batches([batch]).index.tolist()
            [0, 2]
        """
        if not batches:
            raise ValueError(
                "There are 0 batches, so there is nothing to evaluate. Check the split and `limit_*_batches`."
            )
        labelled = sum(batch.target is not None for batch in batches)
        if labelled not in (0, len(batches)):
            raise ValueError(f"Only {labelled} of {len(batches)} batches have labels. Label all records or none.")
        index = torch.cat([batch.index.detach().cpu() for batch in batches])
        kept, first = _first_of_each(index)
        targets = [batch.target.detach().cpu() for batch in batches if batch.target is not None]
        logits = torch.cat([batch.logits.detach().float().cpu() for batch in batches])[first]
        features = torch.cat([batch.features.detach().float().cpu() for batch in batches])[first]
        target = torch.cat(targets)[first] if targets else None
        if kept.ndim == 2:
            return cls(*join_tiles(logits, features, target, kept, schema))
        return cls(logits, features, target, kept)

    @classmethod
    def from_labels(cls, records: Sequence[Record], schema: Schema) -> Outputs:
        """Return the labels alone, with logits and features of width 0: no model runs, and no file is read.

        Raises:
            ValueError: If only some records have labels.

        Example:
            >>> schema = Schema(task="multiclass", classes=("good", "bad"))
            >>> Outputs.from_labels([Record(id="1", input="1.png", label="bad")], schema).target
            tensor([1])
        """
        encoded = [encode_label(record, schema.classes, schema.task) for record in records]
        known = [target for target in encoded if target is not None]
        if len(known) not in (0, len(records)):
            raise ValueError(f"Only {len(known)} of {len(records)} records have labels. Label all records or none.")
        nothing = torch.zeros(len(records), 0)
        return cls(nothing, nothing, torch.stack(known) if known else None, torch.arange(len(records)))

    def only(self, positions: Collection[int]) -> Outputs:
        """Return the records at these positions of the split, in rising order."""
        chosen = torch.isin(self.index, torch.tensor(sorted(positions), dtype=self.index.dtype))
        target = None if self.target is None else self.target[chosen]
        return Outputs(self.logits[chosen], self.features[chosen], target, self.index[chosen])

    def followed_by(self, other: Outputs) -> Outputs:
        """Return these records and those of another list behind them, whose positions count on; without labels.

        Example:
            >>> one = Outputs(torch.zeros(2, 3), torch.zeros(2, 1), None, torch.arange(2))
            >>> one.followed_by(one).index.tolist()
            [0, 1, 2, 3]
        """
        return Outputs(
            torch.cat([self.logits, other.logits]),
            torch.cat([self.features, other.features]),
            None,
            torch.cat([self.index, other.index + int(self.index.max()) + 1]),
        )

    def with_logits(self, logits: Tensor) -> Outputs:
        """Return the same records as another model sees them."""
        if len(logits) != len(self):
            raise ValueError(f"Expected logits for {len(self)} records, got {len(logits)}.")
        return replace(self, logits=logits.float())


def collect_outputs(
    module: _Predicts,
    loader: Iterable[Batch],
    device: torch.device | str | None = None,
    show_progress: bool = True,
) -> Outputs:
    """Run ``module.predict_step`` over a loader, in eval mode and without gradients.

    The modes of all submodules, and the device, are put back afterwards. For evaluation outside a Trainer; within one,
    ``trainer.predict`` returns the batches that `Outputs.from_batches` takes.

    Args:
        module: A `TransferModule`, or any module whose ``predict_step(batch, batch_idx)`` returns a `ModelOutput`.
        loader: Yields `Batch`; its order does not matter.
        device: Where to compute; None stays where the module is.
        show_progress: Whether to show a bar.

    Raises:
        TypeError: If ``module`` is no `torch.nn.Module`.
        ValueError: If the loader is empty.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"Expected a module with `predict_step`, got {type(module).__name__}.")
    return _collect(module, module.predict_step, loader, device, show_progress, "Evaluating")


def collect_features(
    backbone: nn.Module,
    loader: Iterable[Batch],
    device: torch.device | str | None = None,
    show_progress: bool = True,
) -> Outputs:
    """Run a bare backbone over a loader, for baselines on the features that it had before any fine-tuning.

    As `collect_outputs`, with logits of width 0.
    """

    def step(batch: Batch, batch_idx: int) -> ModelOutput:
        features = backbone(batch.input)
        return ModelOutput(features.new_zeros(len(features), 0), features, batch.target, batch.index)

    return _collect(backbone, step, loader, device, show_progress, "Features")


def collect_transcripts(
    module: _Transcribes,
    loader: Iterable[Batch],
    device: torch.device | str | None = None,
    show_progress: bool = True,
) -> list[Transcript]:
    """Run ``module.transcribe`` over a loader, as `collect_outputs` does; long records come in pieces.

    Args:
        module: Of speech.
        loader: Yields `Batch`.
        device: Where to compute; None stays where the module is.
        show_progress: Whether to show a bar.

    Raises:
        TypeError: If ``module`` is no `torch.nn.Module`.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"Expected a module with `transcribe`, got {type(module).__name__}.")
    heard = _run(module, lambda batch, _: module.transcribe(batch), loader, device, show_progress, "Transcribing")
    return [item for batch in heard for item in batch]


def stream_outputs(
    module: _PredictsMasks,
    loader: Iterable[Batch],
    sink: Callable[[PixelOutput], object],
    device: torch.device | str | None = None,
    show_progress: bool = True,
) -> None:
    """Run ``module.predict_step`` over a loader, as `collect_outputs` does, and hand each batch on: nothing is kept.

    Args:
        module: A `SegmentationModule`.
        loader: Yields `Batch`.
        sink: Takes what was drawn on a batch.
        device: Where to compute; None stays where the module is.
        show_progress: Whether to show a bar.

    Raises:
        TypeError: If ``module`` is no `torch.nn.Module`.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"Expected a module with `predict_step`, got {type(module).__name__}.")

    def step(batch: Batch, position: int) -> None:
        sink(module.predict_step(batch, position))

    _run(module, step, loader, device, show_progress, "Drawing")


def _collect(
    module: nn.Module,
    step: Callable[[Batch, int], ModelOutput],
    loader: Iterable[Batch],
    device: torch.device | str | None,
    show_progress: bool,
    description: str,
) -> Outputs:
    def on_cpu(batch: Batch, position: int) -> ModelOutput:
        return ModelOutput(*(_to_cpu(item) for item in step(batch, position)))

    batches = _run(module, on_cpu, loader, device, show_progress, description)
    return Outputs.from_batches(batches, getattr(module, "schema", None))


def _run(
    module: nn.Module,
    step: Callable[[Batch, int], _Result],
    loader: Iterable[Batch],
    device: torch.device | str | None,
    show_progress: bool,
    description: str,
) -> list[_Result]:
    """Return what a step says of each batch, in eval mode and without gradients; device and modes are put back."""
    home = next((item.device for item in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    place = home if device is None else torch.device(device)
    modes = {part: part.training for part in module.modules()}
    found: list[_Result] = []
    try:
        module.to(place)
        module.eval()
        total = len(loader) if isinstance(loader, Sized) else None
        with torch.inference_mode(), progress(description, total, show_progress) as bar:
            for position, batch in enumerate(loader):
                found.append(step(move_data_to_device(batch, place), position))
                bar.update(1)
    finally:
        module.to(home)
        for part, training in modes.items():
            # Not by `.train()`: frozen parts refuse it, and each part had a mode of its own.
            part.training = training
    return found


def _to_cpu(item: Tensor | None) -> Any:  # noqa: ANN401 - None stays None, in the one field that may be
    return None if item is None else item.cpu()


def _first_of_each(index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct indices, or rows of them, in rising order, and where each occurs first."""
    kept, place = torch.unique(index, dim=0, return_inverse=True)
    first = torch.full((len(kept),), len(index)).scatter_reduce(0, place, torch.arange(len(index)), "amin")
    return kept, first
