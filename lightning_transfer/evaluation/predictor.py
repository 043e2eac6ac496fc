"""Use a finished run from Python: checkpoint in, predictions out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from lightning_transfer.data.texts_items import NO_TEXT, cleaned_texts
from lightning_transfer.errors import CheckpointError, DataError, listing
from lightning_transfer.evaluation.neighbours import TrainingExamples
from lightning_transfer.evaluation.predictions import predictions
from lightning_transfer.evaluation.routing_decide import UNREADABLE, RoutingDecision, decide
from lightning_transfer.evaluation.routing_policy import ROUTING_KEY, RoutingPolicy
from lightning_transfer.evaluation.sounds import is_samples, open_sound, sound_features
from lightning_transfer.evaluation.tiles import join_logits
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import BackboneCard, Batch, Calibration, Prediction, Record, Schema

if TYPE_CHECKING:
    from lightning_transfer.modules import TransferModule

__all__ = ["Predictor", "load"]

_MODEL_FILE = "model.ckpt"


@dataclass(frozen=True)
class Predictor:
    """A restored model, with all that it needs to read new files.

    Attributes:
        module: In eval mode.
        schema: Classes and preprocessing of the training data.
        calibration: Temperature and threshold.
        preprocess: Maps one item to the tensor that the module takes; with a tiling, to one such tensor a tile. Of
            texts a `TextPreprocessing`, which maps a cleaned text to a dict of tensors.
        path: The checkpoint.
        examples: Training examples to compare with; None where the checkpoint keeps none.
        routing: When to route and when to ask; None where the recipe does not route.
    """

    module: TransferModule
    schema: Schema
    calibration: Calibration
    preprocess: Callable[[Any], Any]
    path: Path
    examples: TrainingExamples | None = None
    routing: RoutingPolicy | None = None

    def predict(self, items: Sequence[Any], batch_size: int = 32) -> list[Prediction]:
        """Return a prediction for each item, in order, with the nearest training example where there are any.

        Texts are cleaned as those of the training. One of which nothing is left keeps its place, with the decision
        ``unreadable`` and the reason.

        Args:
            items: Records, or what the preprocessing reads: for images paths, PIL images or arrays; for sound paths,
                `AudioSegment` or pairs of samples and their rate, see `open_sound`. For texts strings,
                or mappings with ``subject`` and ``body``; the text of a record is taken as it is, since those who read
                tables clean it.
            batch_size: Items, or tiles, in one forward pass; memory grows with it, the result does not depend on it but
                for rounding. Texts are run with those of like length.

        Raises:
            TypeError: If a single item is passed, or something that is no text where texts are read.
            ValueError: If ``batch_size`` is smaller than 1.
            DataError: If an image cannot be read.
        """
        _check(items, batch_size)
        texts = self._texts(items)
        logits, features = self._run_all(items, texts, batch_size)
        if not len(logits):
            return []
        names = [_name(item, place, texts is not None) for place, item in enumerate(items)]
        nearest = None if self.examples is None else self.examples.nearest(features)
        found = predictions(logits, names, self.schema, self.calibration, nearest)
        if texts is None:
            return found
        return [
            row if text else Prediction(row.id, None, {}, None, UNREADABLE, NO_TEXT)
            for row, text in zip(found, texts, strict=True)
        ]

    def route(self, items: Sequence[Any], batch_size: int = 32) -> list[RoutingDecision]:
        """Return for each item, in order, whether to route it and where to, or to ask, or that it is out of scope.

        Args:
            items: As `predict`.
            batch_size: As `predict`.

        Raises:
            ValueError: If the checkpoint has no routing policy; the other errors are those of `predict`.
        """
        if self.routing is None:
            raise ValueError(
                f"`{self.path}` has no routing policy: its recipe does not route, or its task is not multi-class. Use "
                "`predict`."
            )
        _check(items, batch_size)
        texts = self._texts(items)
        logits, features = self._run_all(items, texts, batch_size)
        names = [_name(item, place, texts is not None) for place, item in enumerate(items)]
        temperature = self.calibration.temperature
        found = decide(logits, features, names, self.schema, temperature, self.routing, self.examples)
        if texts is None:
            return found
        return [
            row if text else RoutingDecision(row.id, UNREADABLE, None, (), None, None, None, None, NO_TEXT)
            for row, text in zip(found, texts, strict=True)
        ]

    def outputs(self, items: Sequence[Any], batch_size: int = 32) -> tuple[Tensor, Tensor]:
        """Return logits ``(N, L)`` before temperature and features ``(N, F)`` of the items, a row each, on the CPU.

        Rows of texts of which cleaning leaves nothing are NaN.

        Args:
            items: As `predict`.
            batch_size: As `predict`.

        Raises:
            TypeError: As `predict`, as the other errors.
        """
        _check(items, batch_size)
        return self._run_all(items, self._texts(items), batch_size)

    def _texts(self, items: Sequence[Any]) -> list[str] | None:
        """Return the cleaned texts of the items; None where the model reads something else."""
        if self.schema.preprocessing.get("kind") != "text":
            return None
        return cleaned_texts(items, self.preprocess.cleaning)  # type: ignore[attr-defined] # a TextPreprocessing

    def _run_all(self, items: Sequence[Any], texts: Sequence[str] | None, batch_size: int) -> tuple[Tensor, Tensor]:
        """Run all items in eval mode, and put the modes back."""
        device = next(self.module.parameters()).device
        modes = {part: part.training for part in self.module.modules()}
        self.module.eval()
        try:
            with torch.inference_mode():
                if texts is not None:
                    inputs = {place: self.preprocess(text) for place, text in enumerate(texts) if text}
                    return self._run_padded(inputs, len(texts), batch_size, device)
                if self.schema.preprocessing.get("kind") == "audio":
                    return self._run_padded(self._sounds(items), len(items), batch_size, device)
                if self.schema.preprocessing.get("tiling") is not None:
                    parts = [self._predict_tiles(self.preprocess(_input(item)), batch_size, device) for item in items]
                else:
                    parts = [
                        self._run(torch.stack([self.preprocess(_input(item)) for item in chunk]).to(device), len(chunk))
                        for chunk in (items[start : start + batch_size] for start in range(0, len(items), batch_size))
                    ]
        finally:
            for part, training in modes.items():
                part.training = training
        if not parts:
            return self._no_rows(0)
        logits, features = (torch.cat(column) for column in zip(*parts, strict=True))
        return logits, features

    def _sounds(self, items: Sequence[Any]) -> dict[int, Any]:
        spec: Any = self.preprocess  # an AudioPreprocessing
        sounds = [open_sound(item, place, spec.sampling_rate) for place, item in enumerate(items)]
        return {place: sound_features(sound, spec) for place, sound in enumerate(sounds)}

    def _run_padded(
        self, inputs: Mapping[int, Mapping[str, Tensor]], count: int, batch_size: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Run items, shortest first, so that few batches are padded far; each row is put in its item's place."""
        order = sorted(inputs, key=lambda place: next(iter(inputs[place].values())).numel())
        logits, features = self._no_rows(count)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = self.preprocess.collate([inputs[place] for place in places])  # type: ignore[attr-defined]
            logits[places], features[places] = self._run(move_data_to_device(batch, device), len(places))
        return logits, features

    def _no_rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Return logits and features of items that were not run."""
        nothing = float("nan")
        return (
            torch.full((count, self.schema.num_logits), nothing),
            torch.full((count, self.module.card.num_features), nothing),
        )

    def _predict_tiles(self, tiles: Tensor, batch_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return logits and features of one item, a row each, from those of its tiles."""
        parts = [self._run(part.to(device), len(part)) for part in torch.split(tiles, batch_size)]
        logits, features = (torch.cat(column) for column in zip(*parts, strict=True))
        return join_logits(logits, self.schema)[None], features.mean(dim=0, keepdim=True)

    def _run(self, inputs: Tensor | Mapping[str, Tensor], count: int) -> tuple[Tensor, Tensor]:
        """Return logits and features of a batch."""
        output = self.module.predict_step(Batch(inputs, None, torch.arange(count)), 0)
        return output.logits.float().cpu(), output.features.float().cpu()


def load(
    run_or_ckpt: str | Path, device: torch.device | str = "cpu", max_false_reject_rate: float | None = None
) -> Predictor:
    """Restore a finished run for prediction, from its checkpoint alone.

    A run that transcribes gives a `Recogniser`, whose ``predict`` returns transcripts; one that draws
    masks a `Segmenter`.

    Args:
        run_or_ckpt: A run's folder, whose ``model.ckpt`` is taken, or a checkpoint.
        device: Where to compute.
        max_false_reject_rate: Decide by the threshold of another rate that was fitted (1, 2 and 5% always are); None
            takes the one that was chosen at the fit.

    Raises:
        ValueError: If no threshold was fitted for that rate.
        CheckpointError: If there is no such file, it is not one of ours, or its preprocessing is of a kind that cannot
            be rebuilt here.

    Example:
        >>> load("runs/none")
        Traceback (most recent call last):
        ...
        lightning_transfer.errors.CheckpointError: There is no run and no checkpoint at `runs/none`. ...
    """
    path = _checkpoint_path(Path(run_or_ckpt))
    from lightning_transfer.modules.transfer import CHECKPOINT_KEY, TransferModule, read_checkpoint  # only here: slow

    checkpoint = read_checkpoint(path)
    module = TransferModule.restore(checkpoint, path)
    if module.schema is None:
        raise CheckpointError(f"`{path}` holds no schema, so its classes are unknown. Train again.")
    preprocess = _preprocessing(module.schema, module.card, path)
    module.to(device).eval()
    if module.schema.preprocessing.get("kind") == "audio" and module.schema.task == "transcription":
        from lightning_transfer.evaluation.recogniser import Recogniser

        return Recogniser(module, module.schema, module.calibration, preprocess, path)
    if module.schema.task == "segmentation":
        from lightning_transfer.evaluation.segmenter import Segmenter

        return Segmenter(module, module.schema, module.calibration, preprocess, path)
    calibration = module.calibration if max_false_reject_rate is None else module.calibration.at(max_false_reject_rate)
    payload = checkpoint[CHECKPOINT_KEY]
    examples = TrainingExamples.from_payload(payload)
    routing = None if payload.get(ROUTING_KEY) is None else RoutingPolicy.from_dict(payload[ROUTING_KEY])
    return Predictor(module, module.schema, calibration, preprocess, path, examples, routing)


def _checkpoint_path(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(
            f"There is no run and no checkpoint at `{path}`. Give the folder that a run printed as `Run folder:`, or a "
            "`.ckpt` file."
        )
    if not (path / _MODEL_FILE).is_file():
        found = listing(sorted(item.name for item in path.iterdir())) or "nothing"
        raise CheckpointError(
            f"The folder `{path}` has no `{_MODEL_FILE}`: it is no run, or one that did not finish. Found: {found}. "
            "An unfinished run's last state is under `checkpoints/`."
        )
    return path / _MODEL_FILE


def _preprocessing(schema: Schema, card: BackboneCard, path: Path) -> Callable[[Any], Any]:
    from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
    from lightning_transfer.data.images import ImagePreprocessing
    from lightning_transfer.data.scan_volumes import reads_scans
    from lightning_transfer.data.texts_tokens import TextPreprocessing

    kind = schema.preprocessing.get("kind")
    if kind not in ("image", "scan", "text", "audio"):
        raise CheckpointError(
            f"`{path}` has preprocessing of kind `{kind}`, and this version can rebuild `image`, `scan`, `text` and"
            " `audio`."
        )
    try:
        if kind == "audio":
            return AudioPreprocessing.from_dict(schema.preprocessing, card)
        if kind == "text":
            return TextPreprocessing.from_dict(schema.preprocessing, card)
        if kind == "scan":
            return reads_scans(schema.preprocessing)
        spec = ImagePreprocessing.from_dict(schema.preprocessing)
        return spec if spec.tiling is None else spec.tiles
    except KeyError as error:
        raise CheckpointError(f"The preprocessing in `{path}` cannot be rebuilt: it lacks {error}.") from error
    except (TypeError, ValueError, DataError) as error:
        raise CheckpointError(f"The preprocessing in `{path}` cannot be rebuilt: {error}") from error


def _check(items: Sequence[Any], batch_size: int) -> None:
    """Refuse a single item, and a batch of none."""
    if isinstance(items, str | Path | ImagePart | Record | Mapping) or is_samples(items):
        raise TypeError(f"Expected a sequence of items, got one {type(items).__name__}. Write `predict([item])`.")
    if batch_size < 1:
        raise ValueError(f"Expected `batch_size` of at least 1, got {batch_size}.")


def _input(item: Any) -> Any:  # noqa: ANN401 - path, picture, array or record
    return item.input if isinstance(item, Record) else item


def _name(item: Any, place: int, is_text: bool) -> str:  # noqa: ANN401
    if isinstance(item, Record):
        return item.id
    return str(item) if isinstance(item, str | Path | ImagePart) and not is_text else str(place)
