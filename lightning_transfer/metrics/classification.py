"""Classification metrics for many weightings of the same records at once, as the bootstrap needs them.

Weights have the shape ``(B, N)``: row ``b`` says how much each of ``N`` records counts in resample ``b``; results have
the shape ``(B,)``. ``numpy.ones((1, N))`` gives the plain metric. Where a metric is undefined the result is NaN, never
0: the caller knows the reason.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.metrics.bootstrap import Float

__all__ = ["ClassCounts", "accuracy", "auroc", "average_precision", "balanced_accuracy", "class_counts"]
__all__ += ["macro_auroc", "macro_average_precision", "macro_f1", "mean_defined", "micro_f1", "precision_per_class"]
__all__ += ["recall_per_class", "weighted_mean"]


class ClassCounts(NamedTuple):
    """Weighted counts of each class, from which F1, recall and accuracy follow; each of shape ``(B, C)``.

    Attributes:
        hits: Records of the class that were predicted as it.
        target: Records of the class.
        preds: Records predicted as the class.
    """

    hits: Float
    target: Float
    preds: Float


def class_counts(
    weights: Float, preds: NDArray[np.integer[Any]], target: NDArray[np.integer[Any]], num_classes: int
) -> ClassCounts:
    """Count hits, labels and predictions of each class.

    Args:
        weights: ``(B, N)``.
        preds: Predicted classes ``(N,)``.
        target: True classes ``(N,)``.
        num_classes: ``C``.

    Example:
        >>> counts = class_counts(np.ones((1, 3)), np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
        >>> counts.hits.tolist(), counts.target.tolist(), counts.preds.tolist()
        ([[1.0, 1.0]], [[2.0, 1.0]], [[1.0, 2.0]])
    """
    return ClassCounts(
        weights @ _one_hot(np.where(preds == target, target, -1), num_classes),
        weights @ _one_hot(target, num_classes),
        weights @ _one_hot(preds, num_classes),
    )


def accuracy(counts: ClassCounts) -> Float:
    """Return the share of right predictions ``(B,)``."""
    return _ratio(counts.hits.sum(1), counts.target.sum(1))


def recall_per_class(counts: ClassCounts) -> Float:
    """Return the recall of each class ``(B, C)``; NaN for a class that the target lacks."""
    return _ratio(counts.hits, counts.target)


def balanced_accuracy(counts: ClassCounts) -> Float:
    """Return the mean recall of the classes that occur in the target, ``(B,)``."""
    return mean_defined(recall_per_class(counts))


def macro_f1(counts: ClassCounts) -> Float:
    """Return the mean F1 of the classes that occur in the target, ``(B,)``.

    A class without a record has no recall, so it is left out, as in `sklearn.metrics.f1_score` with
    ``labels=numpy.unique(target)``; scikit-learn's own default would count it as 0 as soon as it is predicted once.
    Predictions of it still lower the recall of the classes they belong to.
    """
    f1 = _ratio(2.0 * counts.hits, counts.target + counts.preds)
    return mean_defined(np.where(counts.target > 0, f1, np.nan))


def micro_f1(counts: ClassCounts) -> Float:
    """Return the F1 of all classes' hits, labels and predictions taken together, ``(B,)``.

    For several labels a record. Where each record has one class and gets one, it is the accuracy.
    """
    return _ratio(2.0 * counts.hits.sum(1), counts.target.sum(1) + counts.preds.sum(1))


def precision_per_class(counts: ClassCounts) -> Float:
    """Return the precision of each class ``(B, C)``; NaN for a class that nothing is predicted as."""
    return _ratio(counts.hits, counts.preds)


def auroc(weights: Float, scores: Float, is_positive: NDArray[np.bool_]) -> Float:
    """Return the area under the ROC curve: the chance that a positive scores higher than a negative, ties one half.

    Args:
        weights: ``(B, N)``.
        scores: ``(N,)``, higher means positive.
        is_positive: ``(N,)``.

    Returns:
        ``(B,)``; NaN without a positive or without a negative.

    Example:
        >>> auroc(np.ones((1, 4)), np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])).tolist()
        [0.875]
    """
    if not is_positive.any():
        return np.full(len(weights), np.nan)
    gained, found, called_before, called = _curve(weights, scores, is_positive)
    negatives = weights @ ~is_positive
    above = called_before - (found - gained)
    tied = called - called_before - gained
    area = (gained * (negatives[:, None] - above - tied / 2.0)).sum(1)
    return _ratio(area, found[:, -1] * negatives)


def average_precision(weights: Float, scores: Float, is_positive: NDArray[np.bool_]) -> Float:
    """Return the average precision, the step-wise area under the precision-recall curve.

    Args:
        weights: ``(B, N)``.
        scores: ``(N,)``, higher means positive.
        is_positive: ``(N,)``.

    Returns:
        ``(B,)``; NaN without a positive.

    Example:
        >>> average_precision(np.ones((1, 3)), np.array([0.9, 0.5, 0.1]), np.array([True, False, True])).round(3)
        array([0.833])
    """
    if not is_positive.any():
        return np.full(len(weights), np.nan)
    gained, found, _, called = _curve(weights, scores, is_positive)
    precision = np.nan_to_num(_ratio(found, called))
    return _ratio((gained * precision).sum(1), found[:, -1])


def macro_auroc(weights: Float, scores: Float, target: NDArray[np.integer[Any]]) -> Float:
    """Return the mean one-versus-rest AUROC, of scores ``(N, C)``, over the classes where it is defined: ``(B,)``."""
    columns = [auroc(weights, scores[:, index], target == index) for index in range(scores.shape[1])]
    return mean_defined(np.stack(columns, axis=1))


def macro_average_precision(weights: Float, scores: Float, target: NDArray[np.integer[Any]]) -> Float:
    """Return the mean one-versus-rest average precision, of scores ``(N, C)``, over the classes in the target."""
    columns = [average_precision(weights, scores[:, index], target == index) for index in range(scores.shape[1])]
    return mean_defined(np.stack(columns, axis=1))


def weighted_mean(weights: Float, values: Float) -> Float:
    """Return the weighted mean ``(B,)`` of one value ``(N,)`` a record: a loss, a hit, a Brier term."""
    return _ratio(weights @ values, weights.sum(1))


def _one_hot(classes: NDArray[np.integer[Any]], num_classes: int) -> Float:
    """Return ``(N, C)``; a row of zeros for a class outside the range."""
    return np.asarray(classes[:, None] == np.arange(num_classes), dtype=np.float64)


def _ratio(above: Float, below: Float) -> Float:
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))


def mean_defined(columns: Float) -> Float:
    """Average ``(B, C)`` over the columns that are not NaN; NaN where all are."""
    defined = ~np.isnan(columns)
    return _ratio(np.where(defined, columns, 0.0).sum(1), defined.sum(1).astype(np.float64))


def _curve(weights: Float, scores: Float, is_positive: NDArray[np.bool_]) -> tuple[Float, Float, Float, Float]:
    """Return what happens at each distinct score of a positive, from high to low.

    Only there do AUROC and average precision gain anything, so that one sum over all records is enough.

    Returns:
        Four arrays ``(B, scores)``: weight of the positives with that score, of those with it or a higher one, of all
        records with a higher one, and of all with it or a higher one.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    ends = np.append(starts[1:], len(ranked)) - 1
    places = np.flatnonzero(is_positive[order])
    runs, first = np.unique(np.searchsorted(starts, places, side="right") - 1, return_index=True)
    gained = np.add.reduceat(np.take(weights, order[places], axis=1), first, axis=1)
    summed = np.cumsum(np.take(weights, order, axis=1), axis=1)
    before = np.where(starts[runs] > 0, summed[:, starts[runs] - 1], 0.0)
    return np.asarray(gained), np.cumsum(gained, axis=1), before, summed[:, ends[runs]]
