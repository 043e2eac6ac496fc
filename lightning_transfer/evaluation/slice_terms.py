"""The metrics of a slice as functions of sums over records, so that a bootstrap of many slices is a few products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.evaluation.scores import decided_classes, decision_score, negative_index, predicted_classes
from lightning_transfer.metrics import ClassCounts
from lightning_transfer.types import Calibration, Schema

__all__ = ["SliceTerms", "slice_terms"]

_Float = NDArray[np.float64]
_AT_THRESHOLDS = ("mean_recall_at_thresholds", "mean_false_positive_rate_at_thresholds")


@dataclass(frozen=True)
class SliceTerms:
    """What is summed over records, and the metrics that follow from the sums.

    Attributes:
        values: Of each record, ``(N, K)``.
        read: Maps sums ``(B, K)`` to ``{name: (B,)}``.
        about: Name -> the records ``(N,)`` that it is about; all where there is none.
        reasons: Name -> why it may be undefined.
        names: The metrics in order, the headline first.
        shares: Those that are a share of their records.
        ranking: Score ``(N,)`` to rank by, and who is positive ``(N,)``; None without a negative class.
        classes: Which classes each record has, ``(N, C)``; of width 0 where there are none.
        higher_is_worse: Whether the headline counts errors.
        findings: Multi-label: name, score to rank by ``(N,)``, and label ``(N,)``, NaN for unknown, of each finding,
            where the headline is the mean of their AUROCs; else empty.
    """

    values: _Float
    read: Callable[[_Float], dict[str, _Float]]
    about: Mapping[str, NDArray[np.bool_]]
    reasons: Mapping[str, str]
    ranking: tuple[_Float, NDArray[np.bool_]] | None
    classes: NDArray[np.bool_]
    names: tuple[str, ...]
    shares: frozenset[str]
    higher_is_worse: bool = False
    findings: tuple[tuple[str, _Float, _Float], ...] = ()

    def classes_of(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which classes the records of a mask ``(N,)`` have, ``(C,)``."""
        return np.asarray(self.classes[mask].any(axis=0))

    def among(self, sums: _Float, classes: NDArray[np.bool_]) -> _Float:
        """Return the macro-F1 ``(B,)`` over these classes alone ``(C,)``, of sums ``(B, K)``.

        So that a slice that lacks a class is compared with the rest by the classes that it has. Without classes it is
        the headline.
        """
        num = len(classes)
        if not num:
            return self.read(sums)[self.names[0]]
        hits, target, preds = (sums[:, start * num : (start + 1) * num] for start in range(3))
        return metrics.macro_f1(ClassCounts(hits, np.where(classes, target, 0.0), preds))


def slice_terms(
    logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration, headline: str
) -> SliceTerms:
    """Return what the metrics of any part of the records are made from.

    Args:
        logits: ``(N, num_logits)``, finite, before temperature.
        target: Class indices ``(N,)``, all known; multi-label ``(N, C)`` with NaN for missing.
        schema: Task, classes and negative class.
        calibration: Temperature and threshold.
        headline: ``macro_f1`` or ``auroc``.
    """
    if schema.task == "multilabel":
        return _label_terms(logits, target, schema, calibration, headline)
    preds, num = predicted_classes(logits, schema), schema.num_classes
    classes = target[:, None] == np.arange(num)
    columns = [classes & (preds == target)[:, None], classes, preds[:, None] == np.arange(num)]
    about: dict[str, NDArray[np.bool_]] = {}
    reasons: dict[str, str] = {}
    negative = negative_index(schema)
    ranking = None
    if negative is not None:
        score, log_odds = decision_score(logits, schema, calibration.temperature)
        is_positive, name = target != negative, schema.classes[negative]
        ranking = log_odds, is_positive
        reasons["auroc"] = f"without `{name}` or without anything else there is nothing to rank"
        if calibration.threshold is not None:
            called = score >= calibration.threshold
            columns.append(np.stack([is_positive & called, is_positive, ~is_positive & called, ~is_positive], axis=1))
            about = {"recall_at_threshold": is_positive, "false_reject_rate": ~is_positive}
            reasons |= {"recall_at_threshold": f"every record is `{name}`", "false_reject_rate": f"none is `{name}`"}

    def read(sums: _Float) -> dict[str, _Float]:
        counts = ClassCounts(sums[:, :num], sums[:, num : 2 * num], sums[:, 2 * num : 3 * num])
        result = {"macro_f1": metrics.macro_f1(counts)} if headline == "macro_f1" else {}
        result["accuracy"] = metrics.accuracy(counts)
        for place, metric in enumerate(about):
            hits, all_of_them = sums[:, 3 * num + 2 * place], sums[:, 3 * num + 2 * place + 1]
            result[metric] = _share(hits, all_of_them)
        return result

    values = np.concatenate(columns, axis=1).astype(np.float64)
    names = (headline, "accuracy", *about)
    return SliceTerms(values, read, about, reasons, ranking, classes, names, frozenset(("accuracy", *about)))


def _label_terms(
    logits: _Float, target: NDArray[Any], schema: Schema, calibration: Calibration, headline: str
) -> SliceTerms:
    """Multi-label, in the mean over the classes: AUROC or F1, and accuracy of the known cells.

    Where each class has a threshold, the share of its positives and of its negatives that are called, too: a model that
    ranks well may still do harm by missing more of what one group has.
    """
    known = ~np.isnan(target)
    called = (predicted_classes(logits, schema) == 1) & known
    present = known & (target == 1)
    columns = [called & present, present, called, (called == present) & known, known]
    at_thresholds = bool(calibration.label_thresholds)
    if at_thresholds:
        decided = (decided_classes(logits, schema, calibration) == 1) & known
        columns += [decided & present, decided & ~present]

    def read(sums: _Float) -> dict[str, _Float]:
        hits, positives, preds, right, cells, *further = np.split(sums, len(columns), axis=1)
        result = {} if headline == "auroc" else {"macro_f1": metrics.macro_f1(ClassCounts(hits, positives, preds))}
        result["accuracy"] = metrics.mean_defined(_share(right, cells))
        for name, above, below in zip(_AT_THRESHOLDS, further, (positives, cells - positives), strict=False):
            result[name] = metrics.mean_defined(_share(above, below))
        return result

    reasons = {
        "macro_f1": "no record has a class",
        "auroc": "no class has both positives and negatives",
        _AT_THRESHOLDS[0]: "no record has a class",
        _AT_THRESHOLDS[1]: "every record has every class",
    }
    values = np.concatenate(columns, axis=1).astype(np.float64)
    names = (headline, "accuracy", *(_AT_THRESHOLDS if at_thresholds else ()))
    findings = tuple(
        (name, logits[:, place], target[:, place].astype(np.float64)) for place, name in enumerate(schema.classes)
    )
    return SliceTerms(
        values, read, {}, reasons, None, present, names, frozenset(), findings=findings if headline == "auroc" else ()
    )


def _share(above: _Float, below: _Float) -> _Float:
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))
