"""How sure a prediction is: several views of a picture, or several checkpoints, and how far they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.errors import CheckpointError, listing
from lightning_transfer.evaluation.calibrate import fit_calibration
from lightning_transfer.evaluation.predictions import predictions
from lightning_transfer.evaluation.predictor import Predictor, load
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.metrics import probabilities
from lightning_transfer.modules.views import check_views, mean_logits, views_of
from lightning_transfer.types import Batch, Calibration, Prediction, Record, Schema

__all__ = ["Ensemble", "UncertainPrediction", "join_outputs", "load_ensemble", "predict_views"]


@dataclass(frozen=True)
class UncertainPrediction:
    """A prediction, and how far those that it is the mean of disagree.

    Attributes:
        prediction: Of the mean.
        variance: Class -> variance of its probability over views or members; the population's, 0 if all agree.
        num_members: Views or members.
    """

    prediction: Prediction
    variance: Mapping[str, float]
    num_members: int

    @property
    def uncertainty(self) -> float:
        """The largest standard deviation of a class: at most one half, where they contradict each other."""
        return float(max(self.variance.values(), default=float("nan")) ** 0.5)


@dataclass(frozen=True)
class Ensemble:
    """Several checkpoints that answer together (Lakshminarayanan et al. 2017): their mean, and their variance.

    Each member reads an item with its own preprocessing and has its own temperature; their probabilities are averaged.
    The decision is that of ``calibration``. Fitted thresholds of the members are not those of their mean, so until
    `calibrated` has seen calibration data, one half decides, or the most probable class.

    Attributes:
        members: With the same task and classes.
        calibration: Of the mean.
    """

    members: tuple[Predictor, ...]
    calibration: Calibration = field(
        default_factory=lambda: Calibration(rule="not fitted: one half, or the most probable class")
    )

    @property
    def schema(self) -> Schema:
        """Classes and task, which all members share."""
        return self.members[0].schema

    def member_probabilities(self, items: Sequence[Any], batch_size: int = 32) -> np.ndarray[Any, Any]:
        """Return what each member says after its temperature, ``(members, N, classes)``; binary has two columns."""
        found = []
        for member in self.members:
            logits, _ = member.outputs(items, batch_size)
            found.append(probabilities(logits.double().numpy(), self.schema.task, member.calibration.temperature))
        return np.stack(found)

    def outputs(self, items: Sequence[Any], target: Tensor | None = None, batch_size: int = 32) -> Outputs:
        """Return logits whose probabilities are the mean, with labels if there are any, for every evaluation.

        Args:
            items: As `Predictor.predict`.
            target: Labels of the items, as in `Batch`.
            batch_size: Items in one forward pass.
        """
        parts = []
        for member in self.members:
            logits, features = member.outputs(items, batch_size)
            parts.append(Outputs(logits / member.calibration.temperature, features, target, torch.arange(len(logits))))
        return join_outputs(parts, self.schema)

    def calibrated(self, outputs: Outputs, groups: Sequence[Any] | None = None, **options: Any) -> Ensemble:  # noqa: ANN401
        """Return the ensemble with temperature and thresholds of its own.

        Args:
            outputs: Of `outputs`, on the calibration split, with labels.
            groups: As `fit_calibration`.
            options: As `fit_calibration`.
        """
        return replace(self, calibration=fit_calibration(outputs, self.schema, groups=groups, **options))

    def predict(self, items: Sequence[Any], batch_size: int = 32) -> list[UncertainPrediction]:
        """Return for each item, in order, the mean prediction and the variance of its members.

        Args:
            items: As `Predictor.predict`.
            batch_size: Items in one forward pass.
        """
        if not len(items):
            return []
        shares = self.member_probabilities(items, batch_size)
        logits = self.outputs(items, batch_size=batch_size).logits
        return _uncertain(logits, shares, items, self.schema, self.calibration)


def load_ensemble(runs_or_ckpts: Sequence[str | Path], device: torch.device | str = "cpu") -> Ensemble:
    """Restore several finished runs that answer together.

    Args:
        runs_or_ckpts: At least two, such as the folds of a cross-validation or fits with several seeds.
        device: Where to compute.

    Raises:
        ValueError: If there are fewer than two.
        CheckpointError: If one cannot be read, or their tasks or classes differ.
    """
    if isinstance(runs_or_ckpts, str | Path) or len(runs_or_ckpts) < 2:
        raise ValueError(f"Expected at least 2 runs or checkpoints, got {runs_or_ckpts!r}. Use `load` for one.")
    members = tuple(load(item, device) for item in runs_or_ckpts)
    first = members[0].schema
    for member in members[1:]:
        if (member.schema.task, member.schema.classes) != (first.task, first.classes):
            raise CheckpointError(
                f"`{member.path}` is for {member.schema.task} with {listing(member.schema.classes, 20)}, and "
                f"`{members[0].path}` for {first.task} with {listing(first.classes, 20)}. An ensemble has one task and "
                "the same classes in one order."
            )
    return Ensemble(members)


def join_outputs(parts: Sequence[Outputs], schema: Schema) -> Outputs:
    """Return one set of outputs whose probabilities are the mean over models, for every function that takes outputs.

    Args:
        parts: Of the same records, with logits after each model's own temperature; features are the first's.
        schema: Says how logits become probabilities.

    Raises:
        ValueError: If there are none, or they are of other records.

    Example:
        >>> one = Outputs(torch.zeros(1, 1), torch.zeros(1, 2), None, torch.arange(1))
        >>> two = one.with_logits(torch.full((1, 1), 100.0))
        >>> join_outputs([one, two], Schema(task="binary", classes=("none", "covid"))).logits.sigmoid()
        tensor([[0.7500]])
    """
    if not parts:
        raise ValueError("Expected the outputs of at least one model, got [].")
    first = parts[0]
    for place, part in enumerate(parts[1:], start=1):
        if not torch.equal(part.index, first.index):
            raise ValueError(f"The outputs {place} are of other records than the first. Run all models on one split.")
    return first.with_logits(mean_logits(torch.stack([part.logits for part in parts]), schema.task))


def predict_views(
    predictor: Predictor, items: Sequence[Any], views: Sequence[str] = ("shift", "scale", "rotate")
) -> list[UncertainPrediction]:
    """Return the mean prediction over views of each picture, and how far they disagree (Wang et al. 2019).

    The checkpoint's thresholds are those of the picture itself, unless it was fitted with ``test_time_views``. A model
    that was averages over these views in any case: ask it for the same ones here.

    Args:
        predictor: A restored classifier of whole images.
        items: As `Predictor.predict`.
        views: Of `VIEWS`, beside the picture itself.

    Raises:
        ValueError: If a view is unknown.
        CheckpointError: If the model reads tiles, or no images.
    """
    chosen, schema = check_views(views), predictor.schema
    kind = schema.preprocessing.get("kind")
    if kind not in ("image", "scan") or schema.preprocessing.get("tiling"):
        raise CheckpointError(f"Views are of whole images, and `{predictor.path}` reads tiles or something else.")
    module = predictor.module
    device = next(module.parameters()).device
    own = getattr(module, "test_time_views", ())
    rows = []
    try:
        if own:
            module.test_time_views = ()  # type: ignore[assignment] # or each view would be an average of its own views
        with torch.inference_mode():
            for item in items:
                image = predictor.preprocess(item.input if isinstance(item, Record) else item)
                if image.ndim != 3:
                    raise CheckpointError(f"Views are of pictures, and `{predictor.path}` reads volumes.")
                seen = torch.cat(list(views_of(image[None].to(device), chosen)))
                output = module.predict_step(Batch(seen, None, torch.arange(len(seen))), 0)
                rows.append(output.logits.float().cpu())
    finally:
        if own:
            module.test_time_views = own
    if not rows:
        return []
    every = torch.stack(rows, dim=1)
    calibration = predictor.calibration
    shares = np.stack([probabilities(view.double().numpy(), schema.task, calibration.temperature) for view in every])
    return _uncertain(mean_logits(every, schema.task), shares, items, schema, calibration)


def _uncertain(
    logits: Tensor, shares: np.ndarray[Any, Any], items: Sequence[Any], schema: Schema, calibration: Calibration
) -> list[UncertainPrediction]:
    names = [
        item.id if isinstance(item, Record) else str(item) if isinstance(item, str | Path) else str(place)
        for place, item in enumerate(items)
    ]
    found = predictions(logits, names, schema, calibration)
    variances = shares.var(axis=0)
    return [
        UncertainPrediction(row, dict(zip(schema.classes, map(float, variances[place]), strict=True)), len(shares))
        for place, row in enumerate(found)
    ]
