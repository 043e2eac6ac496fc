"""Evaluate a classifier: every number with its interval, beside plain baselines on the same draws."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.baselines import BaselineOutputs
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.results import ClassificationResult
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import decision_score, labels_of, negative_index, predicted_classes
from lightning_transfer.metrics import Interval, Resamples
from lightning_transfer.types import Calibration, Record, Schema

__all__ = ["COMPARED", "evaluate_classification"]

_log = logging.getLogger(__name__)

COMPARED = ("macro_f1", "accuracy", "balanced_accuracy", "auroc", "average_precision", "log_loss", "brier")
"""Metrics whose paired difference to each baseline is reported."""

_Float = NDArray[np.float64]
_NO_ECE_INTERVAL = "no interval: drawing with replacement inflates the binned error"


@dataclass(frozen=True)
class _Judge:
    """The metrics of one set of outputs as a joint statistic, and which records each is about."""

    statistic: Callable[[_Float], dict[str, _Float]]
    masks: Mapping[str, NDArray[np.bool_]]
    reasons: Mapping[str, str]


def evaluate_classification(
    outputs: Outputs,
    records: Sequence[Record],
    schema: Schema,
    calibration: Calibration,
    *,
    baselines: Mapping[str, BaselineOutputs] | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> ClassificationResult:
    """Return all metrics of a classifier, with intervals by bootstrap over the records' groups.

    ``macro_f1``, ``accuracy``, ``balanced_accuracy`` and ``recall_<class>`` judge the most probable class.
    ``auroc`` and ``average_precision`` judge the decision score (anything but the negative class); without a negative
    class they are the mean of one class against the rest. ``log_loss``, ``brier`` and ``ece`` judge the probabilities
    after temperature. ``false_reject_rate`` and ``recall_at_threshold`` judge ``score >= threshold``, where a threshold
    is stored. Multi-label: each class is judged on its known labels, and averages run over the classes; F1 and recall
    are those of the positives.

    Args:
        outputs: What the model said, of one split.
        records: All records of that split, in order: ``outputs.index`` points into them. A record without a group is
            its own.
        schema: Of the data that the model was trained on.
        calibration: Fitted on the calibration split, stored in the checkpoint.
        baselines: Rows beside the model, of `fit_baselines`.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
        show_progress: Whether to show a bar.

    Raises:
        TransferError: If labels are missing, logits are not finite, or outputs and records do not belong together.
    """
    target = labels_of(outputs, schema)
    known = ~np.isnan(target).all(axis=1) if schema.task == "multilabel" else target >= 0
    if not known.any():
        raise TransferError(f"None of the {len(outputs)} records has a label, so there is nothing to compare with.")
    groups = [record.group for record, keep in zip(_chosen(outputs, records), known, strict=True) if keep]
    rows = {"": (outputs, calibration)}
    for name, row in (baselines or {}).items():
        if not np.array_equal(row.outputs.index, outputs.index):
            raise TransferError(f"The baseline `{name}` was run on other records than the model. Use the same split.")
        rows[name] = (row.outputs, row.calibration)

    drawn: dict[str, Resamples] = {}
    tables: dict[str, dict[str, Interval]] = {}
    with progress("Bootstrap", len(rows) * n_resamples, show_progress) as bar:
        for name, (row_outputs, row_calibration) in rows.items():
            logits = row_outputs.logits.double().numpy()[known]
            judge = _judge(logits, labels_of(row_outputs, schema)[known], schema, row_calibration)
            drawn[name] = metrics.resample(
                judge.statistic, groups, n_resamples=n_resamples, seed=seed, on_chunk=bar.update
            )
            tables[name] = _intervals(drawn[name], judge, confidence)

    compared = [name for name in COMPARED if name in drawn[""].point]
    differences = {}
    for name in baselines or {}:
        paired = drawn[""].minus(drawn[name], compared)
        differences[name] = {key: paired.interval(key, confidence=confidence) for key in compared}
    return ClassificationResult(
        task=schema.task,
        classes=schema.classes,
        metrics=tables.pop(""),
        confusion=_confusion(outputs.logits.numpy()[known], target[known], schema),
        calibration=calibration,
        n=int(known.sum()),
        num_groups=int(drawn[""].codes.max()) + 1,
        negative_class=schema.negative_class,
        baselines=tables,
        differences=differences,
        descriptions={name: row.description for name, row in (baselines or {}).items()},
        n_resamples=n_resamples,
        confidence=confidence,
    )


def _chosen(outputs: Outputs, records: Sequence[Record]) -> list[Record]:
    last = int(outputs.index.max()) if len(outputs) else -1
    if last >= len(records):
        raise TransferError(
            f"The outputs point at record {last}, and the split has {len(records)} records. Pass the records of the "
            "split that the model was run on."
        )
    if len(outputs) < len(records):
        _log.warning("Evaluating %d of %d records: the others were not run.", len(outputs), len(records))
    return [records[position] for position in outputs.index.tolist()]


def _intervals(drawn: Resamples, judge: _Judge, confidence: float) -> dict[str, Interval]:
    table = {}
    for name in drawn.point:
        mask, reason = judge.masks.get(name), judge.reasons.get(name, "")
        item = drawn.interval(name, mask=mask, confidence=confidence, reason=reason)
        if name == "ece" and item.value is not None:
            item = Interval(item.value, None, None, item.n, item.num_groups, _NO_ECE_INTERVAL)
        table[name] = item
    return table


def _confusion(logits: NDArray[Any], target: NDArray[Any], schema: Schema) -> tuple[tuple[int, ...], ...]:
    if schema.task == "multilabel":
        return ()
    table = np.zeros((schema.num_classes, schema.num_classes), dtype=np.int64)
    np.add.at(table, (target, predicted_classes(logits, schema)), 1)
    return tuple(tuple(row) for row in table.tolist())


def _judge(logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration) -> _Judge:
    if schema.task == "multilabel":
        return _judge_labels(logits, target, schema, calibration.temperature)
    return _judge_classes(logits, target, schema, calibration)


def _judge_classes(logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration) -> _Judge:
    """Multi-class and binary: one class a record."""
    preds = predicted_classes(logits, schema)
    log_probs = metrics.log_probabilities(logits, schema.task, calibration.temperature)
    probs = np.exp(log_probs)
    losses = -log_probs[np.arange(len(target)), target]
    briers = metrics.brier_terms(probs, target)
    top, right = probs.max(axis=1), preds == target
    negative = negative_index(schema)
    masks = {f"recall_{name}": target == place for place, name in enumerate(schema.classes)}
    reasons = {f"recall_{name}": f"no record of `{name}`" for name in schema.classes}
    score, log_odds, is_positive = _decisions(logits, target, schema, calibration, negative)
    if negative is None:
        one_class = "one class only"
    else:
        name = schema.classes[negative]
        one_class = f"every record is `{name}`" if not is_positive.any() else f"no record is `{name}`"
        masks |= {"false_reject_rate": ~is_positive, "recall_at_threshold": is_positive}
        reasons |= {"false_reject_rate": f"no record is `{name}`", "recall_at_threshold": f"every record is `{name}`"}
    reasons |= {"auroc": one_class, "average_precision": one_class}
    threshold = None if negative is None else calibration.threshold

    def statistic(weights: _Float) -> dict[str, _Float]:
        counts = metrics.class_counts(weights, preds, target, schema.num_classes)
        result = {
            "macro_f1": metrics.macro_f1(counts),
            "accuracy": metrics.accuracy(counts),
            "balanced_accuracy": metrics.balanced_accuracy(counts),
        }
        if negative is None:
            result["auroc"] = metrics.macro_auroc(weights, log_probs, target)
            result["average_precision"] = metrics.macro_average_precision(weights, log_probs, target)
        else:
            result["auroc"] = metrics.auroc(weights, log_odds, is_positive)
            result["average_precision"] = metrics.average_precision(weights, log_odds, is_positive)
        if threshold is not None:
            called = (score >= threshold).astype(np.float64)
            result["false_reject_rate"] = metrics.weighted_mean(weights * ~is_positive, called)
            result["recall_at_threshold"] = metrics.weighted_mean(weights * is_positive, called)
        recalls = metrics.recall_per_class(counts)
        result |= {f"recall_{name}": recalls[:, place] for place, name in enumerate(schema.classes)}
        result["log_loss"] = metrics.weighted_mean(weights, losses)
        result["brier"] = metrics.weighted_mean(weights, briers)
        result["ece"] = metrics.calibration_error(weights, top, right)
        return result

    return _Judge(statistic, masks, reasons)


def _decisions(
    logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration, negative: int | None
) -> tuple[_Float, _Float, NDArray[np.bool_]]:
    if negative is None:
        nothing = np.zeros(len(target))
        return nothing, nothing, nothing.astype(bool)
    score, log_odds = decision_score(logits, schema, calibration.temperature)
    return score, log_odds, target != negative


def _judge_labels(logits: _Float, target: NDArray[Any], schema: Schema, temperature: float) -> _Judge:
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

    return _Judge(statistic, masks, reasons)
