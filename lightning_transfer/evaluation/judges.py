"""The metrics of one set of outputs as a joint statistic of the records' weights, for one bootstrap of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.evaluation.hierarchy import find_levels, level_probabilities
from lightning_transfer.evaluation.scores import decided_classes, decision_score, negative_index, predicted_classes
from lightning_transfer.metrics import Interval, Resamples
from lightning_transfer.types import Calibration, Schema

__all__ = ["NO_ECE_INTERVAL", "Judge", "intervals", "judge", "open_end"]

_Float = NDArray[np.float64]
_TOP = 3
_TOP_ACCURACY = f"top_{_TOP}_accuracy"
NO_ECE_INTERVAL = "no interval: drawing with replacement inflates the binned error"


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
        return _judge_labels(logits, target, schema, calibration)
    return _judge_classes(logits, target, schema, calibration)


def intervals(drawn: Resamples, found: Judge, confidence: float) -> dict[str, Interval]:
    """Return the metrics that were drawn, each with its interval and the number of records that it is about."""
    table = {}
    for name in drawn.point:
        mask, reason = found.masks.get(name), found.reasons.get(name, "")
        item = drawn.interval(name, mask=mask, confidence=confidence, reason=reason)
        if name == "ece" and item.value is not None:
            item = Interval(item.value, None, None, item.n, item.num_groups, NO_ECE_INTERVAL)
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
    masks |= {f"precision_{name}": preds == place for place, name in enumerate(schema.classes)}
    reasons = {f"recall_{name}": f"no record of `{name}`" for name in schema.classes}
    reasons |= {f"precision_{name}": f"no record is taken for `{name}`" for name in schema.classes}
    # The first three by the logit, equal ones in the order of the classes, as for the most probable one.
    in_top = (np.argsort(-logits, axis=1, kind="stable")[:, :_TOP] == target[:, None]).any(axis=1)
    has_top = schema.task == "multiclass" and schema.num_classes > _TOP
    levels = _judge_levels(log_probs, target, schema)
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
        recalls, precisions = metrics.recall_per_class(counts), metrics.precision_per_class(counts)
        return {
            "macro_f1": metrics.macro_f1(counts),
            "accuracy": metrics.accuracy(counts),
            **({_TOP_ACCURACY: metrics.weighted_mean(weights, in_top.astype(np.float64))} if has_top else {}),
            "balanced_accuracy": metrics.balanced_accuracy(counts),
            **levels.statistic(weights),
            **found.statistic(weights),
            **{f"recall_{name}": recalls[:, place] for place, name in enumerate(schema.classes)},
            **{f"precision_{name}": precisions[:, place] for place, name in enumerate(schema.classes)},
            "log_loss": metrics.weighted_mean(weights, losses),
            "brier": metrics.weighted_mean(weights, briers),
            "ece": metrics.calibration_error(weights, top, right),
        }

    shares = {"accuracy", *([_TOP_ACCURACY] if has_top else []), *levels.shares, *masks, *found.shares}
    return Judge(statistic, {**masks, **found.masks}, reasons, frozenset(shares))


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


def _judge_levels(log_probs: _Float, target: NDArray[Any], schema: Schema) -> Judge:
    """Accuracy and macro-F1 of each level above the leaves, where the classes have levels."""
    probs = np.exp(log_probs)
    judged = []
    for level in find_levels(schema.classes):
        above = np.array(level.leaf_to_class)
        judged.append((level, level_probabilities(probs, level).argmax(axis=1), above[target]))

    def statistic(weights: _Float) -> dict[str, _Float]:
        result = {}
        for level, preds, truth in judged:
            counts = metrics.class_counts(weights, preds, truth, len(level.classes))
            result[f"macro_f1_level_{level.depth}"] = metrics.macro_f1(counts)
            result[f"accuracy_level_{level.depth}"] = metrics.accuracy(counts)
        return result

    return Judge(statistic, {}, {}, frozenset(f"accuracy_level_{level.depth}" for level, _, _ in judged))


def _judge_labels(logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration) -> Judge:
    """Multi-label: one yes or no a class, some of them unknown; called at one half, and at the stored thresholds."""
    known = ~np.isnan(target)
    preds = predicted_classes(logits, schema)
    probs = metrics.probabilities(logits, schema.task, calibration.temperature)
    row, _ = np.nonzero(known)
    cells = target[known]
    losses = metrics.log_loss_terms(logits[known] / calibration.temperature, cells, schema.task)
    briers = (probs[known] - cells) ** 2
    top, right = np.maximum(probs, 1 - probs)[known], (preds == target)[known]
    called = [("", "", preds)]
    if calibration.label_thresholds:
        called.append(("_at_thresholds", "_at_threshold", decided_classes(logits, schema, calibration)))
    masks: dict[str, NDArray[np.bool_]] = {}
    reasons = dict.fromkeys(("auroc", "average_precision"), "no class has both positives and negatives")
    reasons |= {f"{name}_f1{ending}": "no record has a class" for name in ("macro", "micro") for ending, _, _ in called}
    for place, name in enumerate(schema.classes):
        for _, ending, said in called:
            masks |= {
                f"recall{ending}_{name}": target[:, place] == 1,
                f"precision{ending}_{name}": known[:, place] & (said[:, place] == 1),
            }
            reasons |= {
                f"recall{ending}_{name}": f"no record with `{name}`",
                f"precision{ending}_{name}": f"`{name}` is called for no record",
            }

    def statistic(weights: _Float) -> dict[str, _Float]:
        parts: dict[str, list[_Float]] = {}
        for place in range(schema.num_classes):
            chosen = weights[:, known[:, place]]
            truth = target[known[:, place], place].astype(np.int64)
            counts = metrics.class_counts(chosen, preds[known[:, place], place], truth, 2)
            scores = logits[known[:, place], place]
            for name, value in (
                ("accuracy", metrics.accuracy(counts)),
                ("balanced_accuracy", metrics.balanced_accuracy(counts)),
                ("auroc", metrics.auroc(chosen, scores, truth == 1)),
                ("average_precision", metrics.average_precision(chosen, scores, truth == 1)),
            ):
                parts.setdefault(name, []).append(value)
        result: dict[str, _Float] = {}
        positive = known & (target == 1)
        for ending, single, said in called:
            found = known & (said == 1)
            counts = metrics.ClassCounts(
                *(weights @ part.astype(float) for part in (found & positive, positive, found))
            )
            result |= {f"macro_f1{ending}": metrics.macro_f1(counts), f"micro_f1{ending}": metrics.micro_f1(counts)}
            recalls, precisions = metrics.recall_per_class(counts), metrics.precision_per_class(counts)
            parts |= {f"recall{single}_{name}": [recalls[:, place]] for place, name in enumerate(schema.classes)}
            parts |= {f"precision{single}_{name}": [precisions[:, place]] for place, name in enumerate(schema.classes)}
        result |= {name: metrics.mean_defined(np.stack(values, axis=1)) for name, values in parts.items()}
        cell_weights = weights[:, row]
        result["log_loss"] = metrics.weighted_mean(cell_weights, losses)
        result["brier"] = metrics.weighted_mean(cell_weights, briers)
        result["ece"] = metrics.calibration_error(cell_weights, top, right)
        return result

    return Judge(statistic, masks, reasons, frozenset(masks))
