"""Where to cut a score: always on validation or calibration data, never on test.

The decision is ``score >= threshold`` everywhere. A threshold lies halfway between two neighbouring scores, so that
rounding on another device does not move a record across it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_transfer.metrics.bootstrap import Float

__all__ = ["Threshold", "threshold_at_false_positive_rate", "threshold_at_precision", "threshold_at_recall"]
__all__ += ["threshold_expected_f1", "threshold_max_f1"]


@dataclass(frozen=True)
class Threshold:
    """A cut of a score, and what it achieves on the data it was chosen on.

    Attributes:
        value: Records with a score of at least this are called positive.
        rule: In words, how it was chosen.
        false_positive_rate: Share of the negatives called positive; None without negatives.
        recall: Share of the positives called positive; None without positives.
        precision: Share of the called that are positive; None if none is called.
        n: Records.
        num_positive: Positives among them.
    """

    value: float
    rule: str
    false_positive_rate: float | None
    recall: float | None
    precision: float | None
    n: int
    num_positive: int


def threshold_at_false_positive_rate(scores: ArrayLike, is_positive: ArrayLike, max_fpr: float) -> Threshold:
    """Return the lowest threshold that calls at most a share ``max_fpr`` of the negatives positive.

    Lowest, so that recall is the highest that the rate allows. Without a tolerated false positive (few negatives, or
    ``max_fpr=0``) it lies above the highest negative.

    Args:
        scores: ``(N,)``, higher means positive.
        is_positive: ``(N,)``, of bool.
        max_fpr: In ``[0, 1]``.

    Raises:
        ValueError: If ``max_fpr`` is out of range, a score is not finite, or there are no negatives.

    Example:
        >>> cut = threshold_at_false_positive_rate([0.1, 0.2, 0.6, 0.9], [False, False, False, True], max_fpr=0.34)
        >>> cut.value, round(cut.false_positive_rate, 2), cut.recall
        (0.4, 0.33, 1.0)
    """
    if not 0.0 <= max_fpr <= 1.0:
        raise ValueError(f"Expected `max_fpr` in [0, 1], got {max_fpr}. 0.05 lets one negative in twenty through.")
    score, positive = _checked(scores, is_positive)
    negatives = np.sort(score[~positive])[::-1]
    if len(negatives) == 0:
        raise ValueError(
            f"A false positive rate needs negatives, and all {len(score)} records are positive. "
            "Add records without a finding to the calibration split."
        )
    # The small term undoes rounding: 0.29 * 100 is 28.999999999999996.
    allowed = int(np.floor(max_fpr * len(negatives) + 1e-9))
    rule = f"lowest threshold with a false positive rate of at most {max_fpr:g}"
    cut = float(score.min()) if allowed >= len(negatives) else _just_above(float(negatives[allowed]), score)
    return _achieved(cut, rule, score, positive)


def threshold_at_precision(scores: ArrayLike, is_positive: ArrayLike, min_precision: float) -> Threshold:
    """Return the threshold of highest recall whose precision is at least ``min_precision``.

    Args:
        scores: ``(N,)``, higher means positive.
        is_positive: ``(N,)``, of bool.
        min_precision: In ``(0, 1]``.

    Raises:
        ValueError: If it is out of range, a score is not finite, there are no positives, or no threshold reaches it.

    Example:
        >>> threshold_at_precision([0.1, 0.2, 0.6, 0.8], [True, False, True, True], min_precision=1.0).recall
        0.6666666666666666
    """
    if not 0.0 < min_precision <= 1.0:
        raise ValueError(f"Expected `min_precision` in (0, 1], got {min_precision}. 0.9 means nine of ten alarms real.")
    score, positive = _checked(scores, is_positive)
    _need_positives(positive, "Precision")
    cuts, hits, called = _candidates(score, positive)
    good = np.flatnonzero(hits / called >= min_precision - 1e-12)
    if len(good) == 0:
        best = float((hits / called).max())
        raise ValueError(
            f"No threshold reaches a precision of {min_precision:g}; the best is {best:.3f}. Ask for less, or use "
            "`threshold_max_f1`."
        )
    # Of equal recall the highest threshold calls fewest negatives; candidates run from high to low.
    best_index = good[np.argmax(hits[good])]
    rule = f"highest recall with a precision of at least {min_precision:g}"
    return _achieved(_below(cuts[best_index], score), rule, score, positive)


def threshold_at_recall(scores: ArrayLike, is_positive: ArrayLike, min_recall: float) -> Threshold:
    """Return the highest threshold that calls at least a share ``min_recall`` of the positives positive.

    Highest, so that it calls the fewest negatives that the recall allows. With few positives it lies below the lowest
    of them.

    Args:
        scores: ``(N,)``, higher means positive.
        is_positive: ``(N,)``, of bool.
        min_recall: In ``[0, 1]``.

    Raises:
        ValueError: If ``min_recall`` is out of range, a score is not finite, or there are no positives.

    Example:
        >>> cut = threshold_at_recall([0.1, 0.2, 0.6, 0.9], [False, True, False, True], min_recall=0.9)
        >>> round(cut.value, 2), cut.recall, cut.false_positive_rate
        (0.15, 1.0, 0.5)
    """
    if not 0.0 <= min_recall <= 1.0:
        raise ValueError(f"Expected `min_recall` in [0, 1], got {min_recall}. 0.95 misses one positive in twenty.")
    score, positive = _checked(scores, is_positive)
    _need_positives(positive, "Recall")
    found = np.sort(score[positive])[::-1]
    # The small term undoes rounding: 0.28 * 25 is 7.000000000000001.
    needed = int(np.ceil(min_recall * len(found) - 1e-9))
    rule = f"highest threshold with a recall of at least {min_recall:g}"
    cut = float(np.nextafter(score.max(), np.inf)) if needed == 0 else _below(float(found[needed - 1]), score)
    return _achieved(cut, rule, score, positive)


def threshold_max_f1(scores: ArrayLike, is_positive: ArrayLike) -> Threshold:
    """Return the threshold of highest F1; the highest of several.

    Args:
        scores: ``(N,)``, higher means positive.
        is_positive: ``(N,)``, of bool.

    Raises:
        ValueError: If a score is not finite, or there are no positives.

    Example:
        >>> threshold_max_f1([0.1, 0.2, 0.6, 0.8], [False, False, True, True]).value
        0.4
    """
    score, positive = _checked(scores, is_positive)
    _need_positives(positive, "F1")
    cuts, hits, called = _candidates(score, positive)
    f1 = 2.0 * hits / (called + positive.sum())
    return _achieved(_below(cuts[np.argmax(f1)], score), "highest F1", score, positive)


def threshold_expected_f1(probs: ArrayLike, is_positive: ArrayLike, *, prior_strength: float = 20.0) -> Threshold:
    """Return the threshold of highest F1 where few positives say little and the probabilities say the rest.

    The F1 of a few positives has its peak wherever those few happen to lie. So each record counts as positive by
    ``w * is_positive + (1 - w) * probability`` with ``w = P / (P + prior_strength)`` and ``P`` positives: for a rare
    label that is nearly the F1 that the probabilities themselves expect (Ye et al. 2012, "Optimizing F-measure: a tale
    of two approaches"), for a frequent one the F1 that was counted. In simulations with 100 and 400 records and 1 to
    30% of positives it gained 0.03 and 0.02 of F1 on new records over the highest counted F1, and 0.01 where the odds
    of a label were off by a factor of three; strengths of 10 to 50 were within 0.01 of each other. The threshold lies
    halfway between two neighbouring probabilities, the lowest one's neighbour being 0; the highest of several.

    Args:
        probs: ``(N,)``, in ``[0, 1]``, after temperature.
        is_positive: ``(N,)``, of bool.
        prior_strength: Positives that weigh as much as the probabilities do; 0 is the highest counted F1.

    Raises:
        ValueError: If a probability or the strength is out of range, or there are no positives.

    Example:
        >>> threshold_expected_f1([0.1, 0.2, 0.6, 0.8], [False, False, True, True]).value
        0.4
    """
    score, positive = _checked(probs, is_positive)
    if score.min() < 0.0 or score.max() > 1.0:
        raise ValueError(f"Expected `probs` in [0, 1], got {score.min():g} to {score.max():g}.")
    if not prior_strength >= 0.0:
        raise ValueError(f"Expected `prior_strength` of at least 0, got {prior_strength}. 20 suits most data.")
    _need_positives(positive, "F1")
    weight = positive.sum() / (positive.sum() + prior_strength)
    shares = weight * positive + (1.0 - weight) * score
    cuts, hits, called = _candidates(score, shares)
    best = cuts[np.argmax(2.0 * hits / (called + shares.sum()))]
    lower = score[score < best]
    cut = _halfway(float(lower.max()) if len(lower) else 0.0, float(best))
    return _achieved(cut, "highest expected F1", score, positive)


def _checked(scores: ArrayLike, is_positive: ArrayLike) -> tuple[Float, NDArray[np.bool_]]:
    score = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(is_positive, dtype=bool)
    if score.ndim != 1 or score.shape != positive.shape:
        raise ValueError(f"Expected `scores` and `is_positive` of one shape (N,), got {score.shape}, {positive.shape}.")
    if len(score) == 0:
        raise ValueError("A threshold needs at least one record, got 0 scores.")
    wrong = np.flatnonzero(~np.isfinite(score))
    if len(wrong):
        raise ValueError(f"Expected finite scores, got {score[wrong[0]]} at position {wrong[0]} ({len(wrong)} in all).")
    return score, positive


def _need_positives(positive: NDArray[np.bool_], what: str) -> None:
    if not positive.any():
        raise ValueError(f"{what} needs positives, and none of the {len(positive)} records is positive.")


def _candidates(score: Float, positive: NDArray[np.bool_] | Float) -> tuple[Float, Float, Float]:
    """Return the distinct scores from high to low, and how many positives (or shares of one) and records reach each."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    return ranked[ends], np.cumsum(positive[order])[ends].astype(np.float64), ends + 1.0


def _just_above(value: float, score: Float) -> float:
    """Return a cut that leaves ``value`` out and takes in every higher score."""
    higher = score[score > value]
    return float(np.nextafter(value, np.inf)) if len(higher) == 0 else _halfway(value, float(higher.min()))


def _below(value: float, score: Float) -> float:
    """Return a cut that takes ``value`` in and leaves every lower score out."""
    lower = score[score < value]
    return float(value) if len(lower) == 0 else _halfway(float(lower.max()), float(value))


def _halfway(low: float, high: float) -> float:
    """Return a number in ``(low, high]``, the middle unless they are neighbours."""
    middle = low + (high - low) / 2.0
    return middle if middle > low else high


def _achieved(cut: float, rule: str, score: Float, positive: NDArray[np.bool_]) -> Threshold:
    called = score >= cut
    return Threshold(
        value=cut,
        rule=rule,
        false_positive_rate=_share(called[~positive]),
        recall=_share(called[positive]),
        precision=_share(positive[called]),
        n=len(score),
        num_positive=int(positive.sum()),
    )


def _share(flags: NDArray[np.bool_] | Sequence[Any]) -> float | None:
    return float(np.mean(flags)) if len(flags) else None
