"""The arithmetic of the shortcut probe: out-of-fold scores, and AUROC among records of the same value."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.metrics.bootstrap import Float

__all__ = ["OTHER", "common_values", "grouped_folds", "predict_from_features", "predict_from_values", "within_auroc"]

OTHER = "(other)"
"""Stands for all values of a column that too few groups have."""

# That of the linear probe of `probe_features`, and as little tuned.
_STRENGTH = 0.1
# A value's rate counts as if one further group of the average rate had it: one patient is no evidence of a site.
_PRIOR_GROUPS = 1.0

Folds = list[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Positions to fit on and positions to judge, for each fold."""


def common_values(values: Sequence[str], codes: NDArray[np.int64], min_groups: int, most: int) -> list[str]:
    """Return the values that enough groups have, and enough others lack; those of most groups first.

    Args:
        values: One for each record.
        codes: Group of each record.
        min_groups: On either side.
        most: Values to return.

    Example:
        >>> common_values(["a", "a", "a", "b", "b", "c"], np.arange(6), min_groups=2, most=9)
        ['a', 'b']
    """
    texts, total = np.asarray(values, dtype=object), len(np.unique(codes))
    counts = {value: len(np.unique(codes[texts == value])) for value in dict.fromkeys(values)}
    enough = [value for value, count in counts.items() if count >= min_groups and total - count >= min_groups]
    return sorted(enough, key=lambda value: (-counts[value], value))[:most]


def grouped_folds(target: NDArray[np.int64], codes: NDArray[np.int64], num_folds: int) -> Folds | None:
    """Divide records into folds of whole groups with like shares of each class; None where that cannot be.

    Example:
        >>> folds = grouped_folds(np.array([0, 1, 0, 1]), np.array([0, 1, 2, 3]), 2)
        >>> [sorted(held.tolist()) for _, held in folds] in ([[0, 1], [2, 3]], [[0, 3], [1, 2]], [[1, 2], [0, 3]])
        True
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(num_folds, len(np.unique(codes)))
    if folds < 2:
        return None
    with warnings.catch_warnings():
        # Values with fewer records than folds.
        warnings.simplefilter("ignore", UserWarning)
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(np.zeros(len(target)), target, codes)
        found = [(train, held) for train, held in parts if len(held)]
    return found if all(len(np.unique(target[train])) > 1 for train, _ in found) else None


def predict_from_features(
    features: NDArray[np.float32], target: NDArray[np.int64], num_classes: int, folds: Folds
) -> Float:
    """Return out-of-fold log-odds of each class ``(N, C)`` by logistic regression on standardised features.

    Classes weigh equally, so that the frequencies of a fold's training part leave no mark on its scores.

    Args:
        features: ``(N, F)``.
        target: ``(N,)``, in ``[0, C)``.
        num_classes: ``C``.
        folds: Of `grouped_folds`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.full((len(target), num_classes), np.log(1e-12))
    with warnings.catch_warnings():
        # A probe a little short of its optimum is as good as one at it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train, held in folds:
            probe = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=200)
            model = make_pipeline(StandardScaler(), probe).fit(features[train], target[train])
            probs = np.clip(model.predict_proba(features[held]).astype(np.float64), 1e-12, 1.0 - 1e-12)
            found[np.ix_(held, model.classes_)] = np.log(probs) - np.log1p(-probs)
    return found


def predict_from_values(
    values: Sequence[Hashable], is_positive: NDArray[np.bool_], codes: NDArray[np.int64], folds: Folds
) -> Float:
    """Return out-of-fold log-odds ``(N,)`` of the positive class by the value alone, beside those of all records.

    Each group counts once, however many records it has. A value that the other folds lack says nothing: 0.

    Args:
        values: Of the column, one for each record.
        is_positive: ``(N,)``.
        codes: Group of each record.
        folds: Of `grouped_folds`.

    Example:
        >>> sites, positive, patients = ["a", "b"] * 4, np.array([True, False] * 4), np.arange(8)
        >>> folds = grouped_folds(positive.astype(int), patients, 4)
        >>> score = predict_from_values(sites, positive, patients, folds)
        >>> (score > 0).tolist() == positive.tolist()
        True
    """
    _, value_codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    num_values = int(value_codes.max()) + 1
    weights = 1.0 / np.bincount(codes)[codes]
    score = np.zeros(len(codes))
    for train, held in folds:
        weight, positive = weights[train], is_positive[train]
        share = float(np.clip(np.average(positive, weights=weight), 1e-6, 1.0 - 1e-6))
        with_it = np.bincount(value_codes[train], weight * positive, num_values) + _PRIOR_GROUPS * share
        without = np.bincount(value_codes[train], weight * ~positive, num_values) + _PRIOR_GROUPS * (1.0 - share)
        # Without the average of the fold's training part: where that is high, the part held out is low by as much.
        score[held] = (np.log(with_it / without) - np.log(share / (1.0 - share)))[value_codes[held]]
    return score


def within_auroc(weights: Float, scores: Float, is_positive: NDArray[np.bool_], value_codes: NDArray[Any]) -> Float:
    """Return the chance that a positive scores higher than a negative *of the same value*; NaN without such a pair.

    What a score owes to the value alone is not in it.

    Args:
        weights: ``(B, N)``.
        scores: ``(N,)``.
        is_positive: ``(N,)``.
        value_codes: Value of each record, ``(N,)``.

    Example:
        >>> score, positive = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, True, True, False])
        >>> within_auroc(np.ones((1, 4)), score, positive, np.array([0, 0, 1, 1])).tolist()
        [0.5]
    """
    won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for code in np.unique(value_codes):
        rows = np.flatnonzero(value_codes == code)
        positive = is_positive[rows]
        if positive.all() or not positive.any():
            continue
        part = weights[:, rows]
        own = part[:, positive].sum(1) * part[:, ~positive].sum(1)
        won += np.nan_to_num(metrics.auroc(part, scores[rows], positive)) * own
        pairs += own
    return np.asarray(np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
