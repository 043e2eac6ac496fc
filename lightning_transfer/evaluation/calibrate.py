"""Fit temperature and thresholds on the calibration split, once, after training."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.errors import listing
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import decision_score, labels_of, negative_index
from lightning_transfer.metrics import (
    fit_operating_points,
    fit_temperature,
    probabilities,
    threshold_expected_f1,
)
from lightning_transfer.types import Calibration, Schema

__all__ = ["OPERATING_RATES", "fit_calibration"]

OPERATING_RATES = (0.01, 0.02, 0.05)
"""False-reject rates that get a threshold beside the stated one, so that a line can change its mind without a fit."""

_log = logging.getLogger(__name__)


def fit_calibration(
    outputs: Outputs,
    schema: Schema,
    *,
    groups: Sequence[Hashable] | None = None,
    max_false_reject_rate: float = 0.05,
    n_resamples: int = 2000,
) -> Calibration:
    """Return the temperature and the thresholds that belong into the checkpoint.

    First the temperature, then the thresholds on the score after it, the probability of anything but the negative
    class: the lowest at which at most ``max_false_reject_rate`` of the negatives are rejected. The order matters: with
    three or more classes a temperature changes which of two records has the higher score, since it moves the others'
    sum as a whole. The intervals take the temperature as it is. Without a negative class, or without negatives in the
    split there is no threshold, and ``rule`` says why. Multi-label: each class gets a threshold of its own, of the
    highest F1 that labels and probabilities together expect (`threshold_expected_f1`); 0.5 stays where a class has no
    positives, nothing but positives, or one probability for all, and ``label_rules`` says so.

    Args:
        outputs: Of the calibration split; never of test.
        schema: Names the task and the negative class.
        groups: Group of each record, in the order of ``outputs``, for the intervals; None makes each its own.
        max_false_reject_rate: Share of good items that may be rejected by mistake, in ``[0, 1]``.
        n_resamples: Draws for the intervals; 0 leaves the bootstrap out.

    Raises:
        TransferError: If the split has no labels.
        ValueError: If the rate is out of range, or ``groups`` has another length.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.5], [0.0, 1.0], [1.0, 0.8]])
        >>> outputs = Outputs(logits, torch.zeros(4, 1), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> schema = Schema(task="multiclass", classes=("good", "pit"), negative_class="good")
        >>> calibration = fit_calibration(outputs, schema, max_false_reject_rate=0.5)
        >>> [point.max_false_reject_rate for point in calibration.points]
        [0.5, 0.01, 0.02, 0.05]
    """
    if not 0.0 <= max_false_reject_rate <= 1.0:
        raise ValueError(f"Expected `max_false_reject_rate` in [0, 1], got {max_false_reject_rate}. 0.05 is usual.")
    if groups is not None and len(groups) != len(outputs):
        raise ValueError(f"Expected a group for each of {len(outputs)} calibration records, got {len(groups)}.")
    target = labels_of(outputs, schema)
    logits = outputs.logits.double().numpy()
    temperature = fit_temperature(logits, target, schema.task)
    negative = negative_index(schema)
    if schema.task == "multilabel":
        return _label_thresholds(logits, target, schema, temperature)
    if negative is None:
        return Calibration(temperature, None, "no negative class: arg max decides", len(outputs))
    known = target >= 0
    is_positive = target[known] != negative
    name = schema.classes[negative]
    if not is_positive.any():
        _log.warning(
            "Every calibration record is `%s`: the threshold is fitted, the temperature is not. Scores rank records, "
            "and are no calibrated probabilities.",
            name,
        )
    if is_positive.all():
        rule = f"no threshold: none of the {int(known.sum())} calibration records is `{name}`"
        _log.warning("%s, so arg max decides.", rule)
        return Calibration(temperature, None, rule, len(outputs))
    score, _ = decision_score(logits[known], schema, temperature)
    points = fit_operating_points(
        score,
        is_positive,
        list(dict.fromkeys((float(max_false_reject_rate), *OPERATING_RATES))),
        groups=None if groups is None else [group for group, keep in zip(groups, known, strict=True) if keep],
        negative=name,
        n_resamples=n_resamples,
    )
    return Calibration(temperature, points[0].threshold, points[0].rule, int(np.sum(known)), points)


def _label_thresholds(
    logits: NDArray[np.float64], target: NDArray[np.float64], schema: Schema, temperature: float
) -> Calibration:
    """Multi-label: a threshold for each class, on its probability after temperature."""
    probs = probabilities(logits, schema.task, temperature)
    found = [_label_threshold(probs[:, place], target[:, place]) for place in range(schema.num_classes)]
    kept = [f"`{name}` ({why})" for name, (_, why, fitted) in zip(schema.classes, found, strict=True) if not fitted]
    rule = "multi-label: for each class the threshold of highest expected F1"
    if kept:
        _log.warning("The threshold stays 0.5 for %s.", listing(kept, 20))
        rule += f"; 0.5 stays for {listing(kept)}"
    return Calibration(
        temperature,
        None,
        rule,
        int((~np.isnan(target)).any(axis=1).sum()),
        label_thresholds=tuple(value for value, _, _ in found),
        label_rules=tuple(why for _, why, _ in found),
    )


def _label_threshold(probs: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[float, str, bool]:
    """Return the threshold of one class, how it was chosen, and whether it was fitted."""
    known = ~np.isnan(target)
    positive, n = target[known] > 0.5, int(known.sum())
    if not positive.any():
        return 0.5, f"none of {n} calibration records has it" if n else "no calibration record says", False
    if positive.all():
        return 0.5, f"all of {n} calibration records have it", False
    if np.ptp(probs[known]) == 0.0:
        return 0.5, f"all of {n} calibration records have the probability {probs[known][0]:.3g}", False
    return threshold_expected_f1(probs[known], positive).value, f"{int(positive.sum())} of {n} have it", True
