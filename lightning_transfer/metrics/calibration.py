"""How far probabilities can be trusted: temperature scaling, calibration error, Brier score, log-loss.

Binary logits have the shape ``(N,)`` or ``(N, 1)``, multi-label ones ``(N, C)``, both with targets of 1, 0 and NaN for
missing; multi-class logits have ``(N, C)`` with class indices ``(N,)``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_transfer.metrics.bootstrap import Float
from lightning_transfer.types import Task

__all__ = ["brier_terms", "calibration_error", "confidence_bins", "fit_temperature", "log_loss_terms"]
__all__ += ["log_probabilities", "negative_log_likelihood", "probabilities"]

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def fit_temperature(
    logits: ArrayLike, target: ArrayLike, task: Task, *, bounds: tuple[float, float] = (1e-3, 1e3)
) -> float:
    """Return the one number by which to divide the logits, so that the probabilities fit (Guo et al. 2017).

    It minimises the negative log-likelihood, which has one minimum in ``1 / T``. The result is never worse than no
    scaling. It is 1 where the data cannot tell: no labelled record, records of one class alone, or every record right
    by a margin, so that the likelihood would rise for ever as T goes to 0.

    Args:
        logits: See the module's text.
        target: See the module's text.
        task: ``multiclass``, ``binary`` or ``multilabel``.
        bounds: Range of the search.

    Raises:
        ValueError: If shapes do not fit, or logits are not finite.

    Example:
        >>> logits = np.array([[4.0, 0.0]] * 4 + [[0.0, 4.0]] * 4)
        >>> round(fit_temperature(logits, [0, 0, 0, 1, 1, 1, 1, 0], "multiclass"), 3)  # three of four: ln 3 = 4 / T
        3.641
    """
    scores, labels = _labelled(logits, target, task)
    if len(np.unique(labels)) < 2 or _separated(scores, labels, task):
        return 1.0

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(scores, labels, task, math.exp(log_temperature))

    low, high = math.log(bounds[0]), math.log(bounds[1])
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-7:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    best = (low + high) / 2.0
    return math.exp(best) if loss(best) < loss(0.0) else 1.0


def negative_log_likelihood(logits: ArrayLike, target: ArrayLike, task: Task, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of the known labels, with logits divided by the temperature."""
    scores, labels = _labelled(logits, target, task)
    return float(np.mean(log_loss_terms(scores / temperature, labels, task)))


def log_probabilities(logits: ArrayLike, task: Task, temperature: float = 1.0) -> Float:
    """Return log-probabilities in float64: ``(N, C)`` for multi-class and multi-label, ``(N, 2)`` for binary.

    Example:
        >>> np.exp(log_probabilities([[0.0]], "binary")).tolist()
        [[0.5, 0.5]]
    """
    scores = np.asarray(logits, dtype=np.float64) / temperature
    if task == "multiclass":
        shifted = scores - scores.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    if task == "binary":
        flat = scores.reshape(-1)
        return np.stack([-np.logaddexp(0.0, flat), -np.logaddexp(0.0, -flat)], axis=1)
    return np.asarray(-np.logaddexp(0.0, -scores))


def probabilities(logits: ArrayLike, task: Task, temperature: float = 1.0) -> Float:
    """Return probabilities in float64, in the shapes of `log_probabilities`."""
    return np.asarray(np.exp(log_probabilities(logits, task, temperature)))


def log_loss_terms(logits: ArrayLike, target: ArrayLike, task: Task) -> Float:
    """Return the log-loss of each record ``(N,)``, or cell (multi-label, flattened). No label may be missing."""
    scores, labels = np.asarray(logits, dtype=np.float64), np.asarray(target)
    if task == "multiclass":
        picked = log_probabilities(scores, task)[np.arange(len(labels)), labels.astype(np.int64)]
        return np.asarray(-picked)
    return np.logaddexp(0.0, np.where(labels.reshape(-1) > 0.5, -1.0, 1.0) * scores.reshape(-1))


def brier_terms(probs: Float, target: NDArray[Any]) -> Float:
    """Return the squared error of the probabilities, summed over the classes, for each record ``(N,)``.

    For two classes the mean is twice the Brier score of the positive class alone.

    Args:
        probs: ``(N, C)``.
        target: Class indices ``(N,)``.

    Example:
        >>> brier_terms(np.array([[0.75, 0.25]]), np.array([0])).tolist()
        [0.125]
    """
    truth = target[:, None] == np.arange(probs.shape[1])
    return np.asarray(((probs - truth) ** 2).sum(axis=1))


def calibration_error(weights: Float, confidence: Float, is_right: NDArray[Any], num_bins: int = 15) -> Float:
    """Return the expected calibration error ``(B,)``: mean distance of confidence and accuracy over equal bins.

    It depends on the bins, and is biased upwards on few records; judge it beside the Brier score.

    Args:
        weights: ``(B, N)``.
        confidence: Probability of what was predicted, ``(N,)``.
        is_right: Whether it came true, ``(N,)``.
        num_bins: Bins of equal width in ``[0, 1]``, each with its upper end (Guo et al. use 15).

    Example:
        >>> calibration_error(np.ones((1, 2)), np.array([0.8, 0.8]), np.array([True, False])).round(3).tolist()
        [0.3]
    """
    bins = confidence_bins(confidence, num_bins)
    member = bins[:, None] == np.arange(num_bins)
    gaps = np.abs(weights @ (member * (is_right - confidence)[:, None])).sum(axis=1)
    total = weights.sum(axis=1)
    return np.asarray(np.divide(gaps, total, out=np.full(gaps.shape, np.nan), where=total > 0))


def confidence_bins(confidence: Float, num_bins: int = 15) -> NDArray[np.int64]:
    """Return the bin of each confidence ``(N,)``, as `calibration_error` counts them.

    Args:
        confidence: ``(N,)`` in ``[0, 1]``.
        num_bins: Of equal width, each with its upper end.

    Example:
        >>> confidence_bins(np.array([0.0, 0.5, 0.51, 1.0]), num_bins=2).tolist()
        [0, 0, 1, 1]
    """
    if num_bins < 1:
        raise ValueError(f"Expected `num_bins` of at least 1, got {num_bins}. 15 is the usual choice.")
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)


def _labelled(logits: ArrayLike, target: ArrayLike, task: Task) -> tuple[Float, NDArray[Any]]:
    """Check shapes, and return what has a label: rows for multi-class, flat cells else."""
    scores, labels = np.asarray(logits, dtype=np.float64), np.asarray(target)
    if not np.isfinite(scores).all():
        raise ValueError(f"Expected finite logits, got {int((~np.isfinite(scores)).sum())} that are NaN or infinite.")
    if task == "multiclass":
        if scores.ndim != 2 or labels.shape != scores.shape[:1]:
            raise ValueError(f"Expected logits (N, C) and target (N,), got {scores.shape} and {labels.shape}.")
        if len(labels) and labels.max() >= scores.shape[1]:
            raise ValueError(f"Expected target in [0, {scores.shape[1]}), got {labels.max()}.")
        known = labels >= 0
        return scores[known], labels[known].astype(np.int64)
    if scores.size != labels.size:
        raise ValueError(f"Expected one target a logit, got shapes {scores.shape} and {labels.shape}.")
    flat = labels.reshape(-1).astype(np.float64)
    known = ~np.isnan(flat)
    return scores.reshape(-1)[known], flat[known]


def _separated(scores: Float, labels: NDArray[Any], task: Task) -> bool:
    if task != "multiclass":
        return bool(np.all(np.where(labels > 0.5, scores, -scores) > 0))
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -np.inf
    return bool(np.all(scores[rows, labels] > others.max(axis=1)))
