"""What a report draws: how far probabilities come true, and what each threshold would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import decision_score, labels_of, negative_index, predicted_classes
from lightning_transfer.types import Calibration, Schema

__all__ = ["CurvePoint", "Reliability", "ReliabilityBin", "measure_reliability"]
__all__ += ["reliability_bins", "threshold_curve"]

_Float = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """The records whose prediction is about as sure.

    Attributes:
        low: Lower end of the bin.
        high: Upper end, which belongs to it.
        confidence: Mean probability of what was predicted.
        accuracy: Share of it that came true.
        n: Records; multi-label: known cells.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Reliability:
    """How far probabilities can be trusted, before and after the temperature of the calibration split.

    Attributes:
        before: Bins of equal width, empty ones left out, at temperature 1.
        after: The same at the stored temperature.
        ece_before: Expected calibration error over these bins.
        ece_after: The same; it is ``ece`` of the metrics.
        brier_before: Brier score, summed over the classes.
        brier_after: The same; it is ``brier`` of the metrics.
    """

    before: tuple[ReliabilityBin, ...]
    after: tuple[ReliabilityBin, ...]
    ece_before: float
    ece_after: float
    brier_before: float
    brier_after: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "before": [asdict(b) for b in self.before], "after": [asdict(b) for b in self.after]}


@dataclass(frozen=True)
class CurvePoint:
    """What a threshold does to the records that were evaluated.

    Attributes:
        threshold: A score of at least this is rejected.
        false_reject_rate: Share of the negatives that it rejects.
        recall: Share of all others that it finds.
    """

    threshold: float
    false_reject_rate: float
    recall: float


def measure_reliability(
    outputs: Outputs, schema: Schema, calibration: Calibration, *, num_bins: int = 15
) -> Reliability | None:
    """Compare confidence with accuracy, for the most probable class of each record; None without any label.

    The bins have equal width, as those of the calibration error, so that the picture shows the gaps that make up that
    number; ``n`` says how many records each rests on.

    Args:
        outputs: What the model said, of one split.
        schema: Task and classes.
        calibration: Holds the temperature.
        num_bins: In ``[0, 1]``.

    Raises:
        TransferError: If the labels do not fit.
    """
    target = labels_of(outputs, schema)
    known = ~np.isnan(target).all(axis=1) if schema.task == "multilabel" else target >= 0
    if not known.any():
        return None
    logits = outputs.logits.double().numpy()[known]
    before, after = (
        _judged(logits, target[known], schema, temperature) for temperature in (1.0, calibration.temperature)
    )
    ones = np.ones((1, len(before[0])))
    return Reliability(
        before=reliability_bins(*before[:2], num_bins),
        after=reliability_bins(*after[:2], num_bins),
        ece_before=float(metrics.calibration_error(ones, *before[:2], num_bins)[0]),
        ece_after=float(metrics.calibration_error(ones, *after[:2], num_bins)[0]),
        brier_before=float(before[2].mean()),
        brier_after=float(after[2].mean()),
    )


def _judged(
    logits: _Float, target: NDArray[Any], schema: Schema, temperature: float
) -> tuple[_Float, NDArray[np.bool_], _Float]:
    """Return the confidence in what was predicted, whether it is right, and the Brier terms."""
    probs = metrics.probabilities(logits, schema.task, temperature)
    right = predicted_classes(logits, schema) == target
    if schema.task == "multilabel":
        known = ~np.isnan(target)
        return np.maximum(probs, 1.0 - probs)[known], right[known], (probs[known] - target[known]) ** 2
    return probs.max(axis=1), right, metrics.brier_terms(probs, target)


def reliability_bins(confidence: _Float, is_right: NDArray[Any], num_bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Return the bins of equal width that are not empty.

    Args:
        confidence: Probability of what was predicted, or of one class, ``(N,)``.
        is_right: Whether it came true, ``(N,)``.
        num_bins: In ``[0, 1]``.

    Example:
        >>> reliability_bins(np.array([0.2, 0.3, 0.9]), np.array([0, 1, 1]), num_bins=2)[0].accuracy
        0.5
    """
    places = metrics.confidence_bins(confidence, num_bins)
    found = []
    for place in np.unique(places).tolist():
        chosen = places == place
        means = float(confidence[chosen].mean()), float(is_right[chosen].mean())
        found.append(ReliabilityBin(place / num_bins, (place + 1) / num_bins, *means, int(chosen.sum())))
    return tuple(found)


def threshold_curve(
    outputs: Outputs, schema: Schema, calibration: Calibration, *, max_points: int = 200
) -> tuple[CurvePoint, ...]:
    """Return the recall that each false-reject rate would have bought on these records, by rising rate.

    To look at, not to choose by: a threshold that was picked on the records that judge it is too good on them. Empty
    without a negative class, or where only one side occurs.

    Args:
        outputs: What the model said, of one split.
        schema: Names the negative class.
        calibration: Holds the temperature.
        max_points: Thinned out evenly beyond; both ends stay.

    Raises:
        TransferError: If the labels do not fit.
    """
    negative = negative_index(schema)
    if negative is None:
        return ()
    target = labels_of(outputs, schema)
    known = target >= 0
    is_positive = target[known] != negative
    if is_positive.all() or not is_positive.any():
        return ()
    score, _ = decision_score(outputs.logits.double().numpy()[known], schema, calibration.temperature)
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    found = np.cumsum(is_positive[order])
    # The last record of each distinct score: a threshold there rejects all down to it.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    ends = ends[_thinned(len(ends), max_points)]
    rejected = ends + 1 - found[ends]
    columns = (ranked[ends], rejected / (~is_positive).sum(), found[ends] / is_positive.sum())
    return tuple(CurvePoint(*row) for row in zip(*(column.tolist() for column in columns), strict=True))


def _thinned(count: int, most: int) -> Sequence[int] | NDArray[np.int64]:
    if count <= most:
        return range(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
