"""Use a finished run from Python: checkpoint in, predictions out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.errors import CheckpointError, TransferError, listing
from lightning_transfer.evaluation.scores import decision_score, negative_index, predicted_classes
from lightning_transfer.metrics import probabilities
from lightning_transfer.types import Calibration, Record, Schema

if TYPE_CHECKING:
    from lightning_transfer.modules import TransferModule

__all__ = ["Prediction", "Predictor", "load", "predictions"]

_MODEL_FILE = "model.ckpt"


@dataclass(frozen=True)
class Prediction:
    """What a model says of one item.

    Attributes:
        id: The record's id, the path, or the position as text.
        predicted: The most probable class; for multi-label the classes above one half.
        probabilities: Class -> probability after temperature.
        score: Probability of anything but the negative class; None if there is no such class.
        decision: The class after the stored threshold: the negative class below it, the most probable other class
            from it on. The same as ``predicted`` where no threshold is stored.
    """

    id: str
    predicted: str | tuple[str, ...]
    probabilities: Mapping[str, float]
    score: float | None
    decision: str | tuple[str, ...]


@dataclass(frozen=True)
class Predictor:
    """A restored model, with all that it needs to read new files.

    Attributes:
        module: In eval mode.
        schema: Classes and preprocessing of the training data.
        calibration: Temperature and threshold.
        preprocess: Maps one item to the tensor that the module takes.
        path: The checkpoint.
    """

    module: TransferModule
    schema: Schema
    calibration: Calibration
    preprocess: Callable[[Any], Tensor]
    path: Path

    def predict(self, items: Sequence[Any], batch_size: int = 32) -> list[Prediction]:
        """Return a prediction for each item, in order.

        Args:
            items: Records, or what the preprocessing reads: for images paths, PIL images or arrays.
            batch_size: Items in one forward pass; memory grows with it, the result does not depend on it.

        Raises:
            TypeError: If a single item is passed.
            ValueError: If ``batch_size`` is smaller than 1.
            DataError: If an item cannot be read.
        """
        if isinstance(items, str | Path | Record):
            raise TypeError(f"Expected a sequence of items, got one {type(items).__name__}. Write `predict([item])`.")
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` of at least 1, got {batch_size}.")
        device = next(self.module.parameters()).device
        modes = {part: part.training for part in self.module.modules()}
        parts: list[Tensor] = []
        self.module.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(items), batch_size):
                    inputs = [self.preprocess(_input(item)) for item in items[start : start + batch_size]]
                    parts.append(self.module(torch.stack(inputs).to(device)).float().cpu())
        finally:
            for part, training in modes.items():
                part.training = training
        names = [_name(item, place) for place, item in enumerate(items)]
        return predictions(torch.cat(parts), names, self.schema, self.calibration) if parts else []


def load(run_or_ckpt: str | Path, device: torch.device | str = "cpu") -> Predictor:
    """Restore a finished run for prediction, from its checkpoint alone.

    Args:
        run_or_ckpt: A run's folder, whose ``model.ckpt`` is taken, or a checkpoint.
        device: Where to compute.

    Raises:
        CheckpointError: If there is no such file, it is not one of ours, or its preprocessing is of a kind that cannot
            be rebuilt here.

    Example:
        >>> load("runs/none")
        Traceback (most recent call last):
        ...
        lightning_transfer.errors.CheckpointError: There is no run and no checkpoint at `runs/none`. ...
    """
    path = _checkpoint_path(Path(run_or_ckpt))
    from lightning_transfer.modules import TransferModule  # results alone need no model

    module = TransferModule.from_checkpoint(path)
    if module.schema is None:
        raise CheckpointError(f"`{path}` holds no schema, so its classes are unknown. Train again.")
    preprocess = _preprocessing(module.schema, path)
    module.to(device).eval()
    return Predictor(module, module.schema, module.calibration, preprocess, path)


def predictions(logits: Tensor, ids: Sequence[str], schema: Schema, calibration: Calibration) -> list[Prediction]:
    """Turn logits ``(N, num_logits)`` into predictions, with the stored temperature and threshold.

    Raises:
        TransferError: If a logit is not finite.

    Example:
        >>> schema = Schema(task="multiclass", classes=("good", "pit", "scratch"), negative_class="good")
        >>> calibration = Calibration(threshold=0.2)
        >>> [row] = predictions(torch.tensor([[1.0, 0.0, -1.0]]), ["a.png"], schema, calibration)
        >>> row.predicted, round(row.score, 3), row.decision
        ('good', 0.335, 'pit')
    """
    values = logits.double().numpy()
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(wrong):
        raise TransferError(
            f"The logits of {len(wrong)} of {len(ids)} items are NaN or infinite, first for `{ids[wrong[0]]}`. The "
            "model has diverged, or the input is not finite."
        )
    chosen = predicted_classes(values, schema)
    probs = probabilities(values, schema.task, calibration.temperature)
    rows = zip(ids, chosen, probs, strict=True)
    if schema.task == "multilabel":
        named = [(key, _labels(row, schema), share) for key, row, share in rows]
        return [Prediction(key, labels, _by_class(share, schema), None, labels) for key, labels, share in named]
    negative = negative_index(schema)
    scores = None if negative is None else decision_score(values, schema, calibration.temperature)[0]
    result = []
    for place, (key, best, share) in enumerate(rows):
        predicted = schema.classes[best]
        score = None if scores is None else float(scores[place])
        decision = predicted
        if score is not None and negative is not None and calibration.threshold is not None:
            others = np.where(np.arange(schema.num_classes) == negative, -1.0, share)
            decision = schema.classes[int(others.argmax()) if score >= calibration.threshold else negative]
        result.append(Prediction(key, predicted, _by_class(share, schema), score, decision))
    return result


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


def _preprocessing(schema: Schema, path: Path) -> Callable[[Any], Tensor]:
    from lightning_transfer.data.images import ImagePreprocessing

    kind = schema.preprocessing.get("kind")
    if kind != "image":
        raise CheckpointError(f"`{path}` has preprocessing of kind `{kind}`, and this version can rebuild `image`.")
    try:
        return ImagePreprocessing.from_dict(schema.preprocessing)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The preprocessing in `{path}` cannot be rebuilt: {error}") from error


def _input(item: Any) -> Any:  # noqa: ANN401 - path, picture, array or record
    return item.input if isinstance(item, Record) else item


def _name(item: Any, place: int) -> str:  # noqa: ANN401
    if isinstance(item, Record):
        return item.id
    return str(item) if isinstance(item, str | Path) else str(place)


def _labels(row: Any, schema: Schema) -> tuple[str, ...]:  # noqa: ANN401 - array of 0 and 1
    return tuple(name for name, called in zip(schema.classes, row, strict=True) if called)


def _by_class(share: Any, schema: Schema) -> dict[str, float]:  # noqa: ANN401 - array of floats
    return dict(zip(schema.classes, map(float, share), strict=True))
