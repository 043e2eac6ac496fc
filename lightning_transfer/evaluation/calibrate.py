"""Fit temperature and threshold on the calibration split, once, after training."""

from __future__ import annotations

import logging

import numpy as np

from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import decision_score, labels_of, negative_index
from lightning_transfer.metrics import fit_temperature, threshold_at_false_positive_rate
from lightning_transfer.types import Calibration, Schema

__all__ = ["fit_calibration"]

_log = logging.getLogger(__name__)


def fit_calibration(outputs: Outputs, schema: Schema, *, max_false_reject_rate: float = 0.05) -> Calibration:
    """Return the temperature and the threshold that belong into the checkpoint.

    The threshold is on the probability, after temperature, of anything but the negative class: the lowest at which at
    most ``max_false_reject_rate`` of the negatives are rejected. Without a negative class, in multi-label tasks, or
    without negatives in the split there is none, and ``rule`` says why.

    Args:
        outputs: Of the calibration split; never of test.
        schema: Names the task and the negative class.
        max_false_reject_rate: Share of good items that may be rejected by mistake, in ``[0, 1]``.

    Raises:
        TransferError: If the split has no labels.
        ValueError: If the rate is out of range.
    """
    if not 0.0 <= max_false_reject_rate <= 1.0:
        raise ValueError(f"Expected `max_false_reject_rate` in [0, 1], got {max_false_reject_rate}. 0.05 is usual.")
    target = labels_of(outputs, schema)
    logits = outputs.logits.double().numpy()
    temperature = fit_temperature(logits, target, schema.task)
    negative = negative_index(schema)
    if negative is None:
        why = "multi-label: no single score" if schema.task == "multilabel" else "no negative class: arg max decides"
        return Calibration(temperature, None, why, len(outputs))
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
    cut = threshold_at_false_positive_rate(score, is_positive, max_false_reject_rate)
    num_negative = cut.n - cut.num_positive
    rule = (
        f"at most {max_false_reject_rate:.3g} of `{name}` rejected; on calibration {cut.false_positive_rate:.3f} of "
        f"{num_negative}" + ("" if cut.recall is None else f", and {cut.recall:.3f} of {cut.num_positive} others found")
    )
    return Calibration(temperature, cut.value, rule, int(np.sum(known)))
