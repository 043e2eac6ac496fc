"""The metrics of one set of outputs as a joint statistic of the records' weights, for one bootstrap of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.evaluation.scores import decision_score, negative_index, predicted_classes
from lightning_transfer.metrics import Interval, Resamples
from lightning_transfer.types import Calibration, Schema

__all__ = ["Judge", "intervals", "judge", "open_end"]

_Float = NDArray[np.float64]
_NO_ECE_INTERVAL = "no interval: drawing with replacement inflates the binned error"


@dataclass(frozen=True)
class Judge:
    """The metrics of one set of outputs as a joint statistic, and which records each is about.

    Attributes:
        statistic: Maps weights of records ``(B, N)`` to ``{name: (B,)}``.
        masks: Name -> the records ``(N,)`` that it is about; all where there is none.
        reasons: Name -> why it may be undefined.
        shares: Names of those that are a share of their records.
    """

    statistic: Callable[[_Float], dict[str, _Float]]
    masks: Mapping[str, NDArray[np.bool_]]
    reasons: Mapping[str, str]
    shares: frozenset[str] = frozenset()


def judge(logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration) -> Judge:
    """Return the metrics of labelled records.

    Args:
        logits: ``(N, num_logits)``, finite, before temperature.
        target: Class indices ``(N,)``, all known; multi-label ``(N, C)`` with NaN for missing.
        schema: Task, classes and negative class.
        calibration: Temperature, threshold and operating points.
    """
    if schema.task == "multilabel":
        return _judge_labels(logits, target, schema, calibration.temperature)
    return _judge_classes(logits, target, schema, calibration)


def intervals(drawn: Resamples, found: Judge, confidence: float) -> dict[str, Interval]:
    """Return the metrics that were drawn, each with its interval and the number of records that it is about."""
    table = {}
    for name in drawn.point:
        mask, reason = found.masks.get(name), found.reasons.get(name, "")
        item = drawn.interval(name, mask=mask, confidence=confidence, reason=reason)
        if name == "ece" and item.value is not None:
            item = Interval(item.value, None, None, item.n, item.num_groups, _NO_ECE_INTERVAL)
        table[name] = open_end(item, confidence) if name in found.shares else item
    return table


def open_end(item: Interval, confidence: float) -> Interval:
    """Give the share of none or all its open end back, which no resample can show.

    Example:
        >>> open_end(Interval(1.0, 1.0, 1.0, n=90, num_groups=30), 0.95).low.__round__(3)
        0.884
    """
    if item.value not in (0.0, 1.0) or item.low is None or item.low != item.high or not item.num_groups:
        return item
    low, high = metrics.rate_interval(round(item.value * item.num_groups), item.num_groups, confidence=confidence)
    return replace(item, low=low, high=high)


def _judge_classes(logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration) -> Judge:
    """Multi-class and binary: one class a record."""
    preds = predicted_classes(logits, schema)
    log_probs = metrics.log_probabilities(logits, schema.task, calibration.temperature)
    probs = np.exp(log_probs)
    losses = -log_probs[np.arange(len(target)), target]
    briers = metrics.brier_terms(probs, target)
    top, right = probs.max(axis=1), preds == target
    masks = {f"recall_{name}": target == place for place, name in enumerate(schema.classes)}
    reasons = {f"recall_{name}": f"no record of `{name}`" for name in schema.classes}
    negative = negative_index(schema)
    if negative is None:
        found, one_class = _judge_ranking(log_probs, target), "one class only"
    else:
        name, is_positive = schema.classes[negative], target != negative
        one_class = f"no record is `{name}`" if is_positive.any() else f"every record is `{name}`"
        found = _judge_decisions(logits, target, schema, calibration, negative)
    reasons |= {"auroc": one_class, "average_precision": one_class, **found.reasons}

    def statistic(weights: _Float) -> dict[str, _Float]:
        counts = metrics.class_counts(weights, preds, target, schema.num_classes)
        recalls = metrics.recall_per_class(counts)
        return {
            "macro_f1": metrics.macro_f1(counts),
            "accuracy": metrics.accuracy(counts),
            "balanced_accuracy": metrics.balanced_accuracy(counts),
            **found.statistic(weights),
            **{f"recall_{name}": recalls[:, place] for place, name in enumerate(schema.classes)},
            "log_loss": metrics.weighted_mean(weights, losses),
            "brier": metrics.weighted_mean(weights, briers),
            "ece": metrics.calibration_error(weights, top, right),
        }

    return Judge(statistic, {**masks, **found.masks}, reasons, frozenset({"accuracy", *masks, *found.shares}))


def _judge_ranking(log_probs: _Float, target: NDArray[Any]) -> Judge:
    """Without a negative class: one class against the rest, in the mean."""

    def statistic(weights: _Float) -> dict[str, _Float]:
        return {
            "auroc": metrics.macro_auroc(weights, log_probs, target),
            "average_precision": metrics.macro_average_precision(weights, log_probs, target),
        }

    return Judge(statistic, {}, {})


def _judge_decisions(
    logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration, negative: int
) -> Judge:
    """The decision score: how well it ranks, and what each stored threshold does."""
    score, log_odds = decision_score(logits, schema, calibration.temperature)
    is_positive = target != negative
    name = schema.classes[negative]
    no_negative, no_positive = f"no record is `{name}`", f"every record is `{name}`"
    # Metric -> (threshold, the records that it is about, why it may be undefined)
    shares: dict[str, tuple[float, NDArray[np.bool_], str]] = {}
    if calibration.threshold is not None:
        cut = calibration.threshold
        shares["false_reject_rate"] = (cut, ~is_positive, no_negative)
        shares["recall_at_threshold"] = (cut, is_positive, no_positive)
        for place, defect in enumerate(schema.classes):
            if place != negative:
                shares[f"recall_at_threshold_{defect}"] = (cut, target == place, f"no record of `{defect}`")
    for point in sorted(calibration.points, key=lambda item: item.max_false_reject_rate):
        at = f"{point.max_false_reject_rate:g}"
        shares[f"recall_at_false_reject_{at}"] = (point.threshold, is_positive, no_positive)
        shares[f"false_reject_rate_at_{at}"] = (point.threshold, ~is_positive, no_negative)

    def statistic(weights: _Float) -> dict[str, _Float]:
        result = {
            "auroc": metrics.auroc(weights, log_odds, is_positive),
            "average_precision": metrics.average_precision(weights, log_odds, is_positive),
        }
        for key, (cut, mask, _) in shares.items():
            result[key] = metrics.weighted_mean(weights * mask, (score >= cut).astype(np.float64))
        if "recall_at_threshold" in result:
            result["escape_rate"] = 1.0 - result["recall_at_threshold"]
        return result

    return Judge(
        statistic,
        {**{key: mask for key, (_, mask, _) in shares.items()}, "escape_rate": is_positive},
        {**{key: reason for key, (_, _, reason) in shares.items()}, "escape_rate": no_positive},
        frozenset({*shares, "escape_rate"}),
    )


def _judge_labels(logits: _Float, target: NDArray[Any], schema: Schema, temperature: float) -> Judge:
    """Multi-label: one yes or no a class, some of them unknown."""
    known = ~np.isnan(target)
    preds = predicted_classes(logits, schema)
    probs = metrics.probabilities(logits, schema.task, temperature)
    row, _ = np.nonzero(known)
    cells = target[known]
    losses = metrics.log_loss_terms(logits[known] / temperature, cells, schema.task)
    briers = (probs[known] - cells) ** 2
    top, right = np.maximum(probs, 1 - probs)[known], (preds == target)[known]
    masks = {f"recall_{name}": target[:, place] == 1 for place, name in enumerate(schema.classes)}
    reasons = {f"recall_{name}": f"no record with `{name}`" for name in schema.classes}
    reasons |= dict.fromkeys(("auroc", "average_precision"), "no class has both positives and negatives")

    def statistic(weights: _Float) -> dict[str, _Float]:
        parts: dict[str, list[_Float]] = {}
        for place in range(schema.num_classes):
            chosen = weights[:, known[:, place]]
            truth = target[known[:, place], place].astype(np.int64)
            counts = metrics.class_counts(chosen, preds[known[:, place], place], truth, 2)
            below = counts.target[:, 1] + counts.preds[:, 1]
            f1 = np.divide(2 * counts.hits[:, 1], below, out=np.full(len(below), np.nan), where=counts.target[:, 1] > 0)
            scores = logits[known[:, place], place]
            for name, value in (
                ("macro_f1", f1),
                ("accuracy", metrics.accuracy(counts)),
                ("balanced_accuracy", metrics.balanced_accuracy(counts)),
                ("auroc", metrics.auroc(chosen, scores, truth == 1)),
                ("average_precision", metrics.average_precision(chosen, scores, truth == 1)),
                (f"recall_{schema.classes[place]}", metrics.recall_per_class(counts)[:, 1]),
            ):
                parts.setdefault(name, []).append(value)
        result = {name: metrics.mean_defined(np.stack(values, axis=1)) for name, values in parts.items()}
        cell_weights = weights[:, row]
        result["log_loss"] = metrics.weighted_mean(cell_weights, losses)
        result["brier"] = metrics.weighted_mean(cell_weights, briers)
        result["ece"] = metrics.calibration_error(cell_weights, top, right)
        return result

    return Judge(statistic, masks, reasons, frozenset(masks))
