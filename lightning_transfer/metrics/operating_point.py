"""How sure a threshold for a stated false-reject rate is: of its value, and of the rate that new items will see."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_transfer.metrics.bootstrap import Float, Resamples, resample
from lightning_transfer.metrics.threshold import Threshold, threshold_at_false_positive_rate
from lightning_transfer.types import OperatingPoint

__all__ = ["fit_operating_points", "negatives_needed", "rate_interval", "resampled_thresholds"]


def negatives_needed(max_rate: float) -> int:
    """Return how many negatives are needed for a threshold that may reject one of them.

    With fewer it lies above the highest of them, which is one record's score and says little of a rate.

    Args:
        max_rate: False-reject rate in ``(0, 1]``.

    Example:
        >>> negatives_needed(0.01), negatives_needed(0.03)
        (100, 34)
    """
    return math.ceil(1.0 / max_rate - 1e-9)


def rate_interval(
    rejected: int, n: int, *, allowed: int | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the rate that a threshold between two of ``n`` independent scores has on new ones.

    It holds for any distribution of the scores, and although the threshold was chosen on them: the share of new
    scores above the ``k``-th highest of ``n`` follows ``Beta(k, n - k + 1)`` (Wilks 1941). Its ends are those of
    Clopper and Pearson (1934) for ``rejected`` of ``n``. Where ties made the threshold reject fewer than it might have,
    only ``allowed`` was fixed beforehand, so the upper end is that for ``allowed``.

    Args:
        rejected: Scores above the threshold.
        n: Scores in all.
        allowed: How many the rule would let it reject; None for ``rejected``.
        confidence: Half of the rest is left out at each end.

    Raises:
        ValueError: Unless ``0 <= rejected <= allowed <= n`` and ``n`` is at least 1.

    Example:
        >>> low, high = rate_interval(0, 100)
        >>> low, round(high, 4)
        (0.0, 0.0362)
    """
    from scipy.special import betaincinv

    most = rejected if allowed is None else allowed
    if not 0 <= rejected <= most <= n or n < 1:
        raise ValueError(f"Expected 0 <= rejected <= allowed <= n, got rejected={rejected}, allowed={most}, n={n}.")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if rejected == 0 else float(betaincinv(rejected, n - rejected + 1, tail))
    high = 1.0 if most == n else float(betaincinv(most + 1, n - most, 1.0 - tail))
    return low, high


def resampled_thresholds(
    scores: ArrayLike,
    is_positive: ArrayLike,
    rates: Sequence[float],
    groups: Sequence[Hashable] | NDArray[Any],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Resamples:
    """Fit the thresholds of `threshold_at_false_positive_rate` again on each resample of the groups.

    Args:
        scores: ``(N,)``, higher means positive.
        is_positive: ``(N,)``, of bool.
        rates: Largest false positive rates.
        groups: Group of each record, ``(N,)``; None is a group of its own.
        n_resamples: Number of draws.
        seed: Of the draws.

    Returns:
        For each rate ``threshold_<rate>``, and ``rate_<rate>``: the share of all negatives, drawn or not, that this
        threshold calls positive. The sample stands for the world here, so that is the rate which a threshold fitted on
        such a sample has in its world. NaN where no negative was drawn.
    """
    score = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(is_positive, dtype=bool)
    order = np.argsort(-score, kind="stable")
    ranked, negative = score[order], ~positive[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    distinct = ranked[starts]  # from high to low
    above = np.append(0, np.cumsum(np.add.reduceat(negative, starts, dtype=np.int64))) / max(1, int(negative.sum()))

    def statistic(weights: Float) -> dict[str, Float]:
        sorted_weights = weights[:, order]
        drawn = np.add.reduceat(sorted_weights, starts, axis=1) > 0
        called = np.cumsum(np.add.reduceat(sorted_weights * negative, starts, axis=1), axis=1)
        result = {}
        for rate in rates:
            cut = _cuts(distinct, drawn, called, rate)
            result[f"threshold_{rate:g}"] = cut
            reached = np.searchsorted(-distinct, -cut, side="right")
            result[f"rate_{rate:g}"] = np.where(np.isnan(cut), np.nan, above[reached])
        return result

    return resample(statistic, groups, n_resamples=n_resamples, seed=seed)


def _cuts(distinct: Float, drawn: NDArray[np.bool_], called: Float, rate: float) -> Float:
    """Return the threshold of each resample ``(B,)``.

    Args:
        distinct: The different scores from high to low, ``(D,)``.
        drawn: Whether a record of that score was drawn, ``(B, D)``.
        called: Negatives of at least that score, ``(B, D)``.
        rate: Largest share of the negatives to call.
    """
    total = called[:, -1]
    over = called > np.floor(rate * total + 1e-9)[:, None]
    places = np.arange(len(distinct))
    # The highest score that must stay below the cut, and the lowest drawn one above it; the columns' number is "none".
    forbidden = np.where(over.any(axis=1), over.argmax(axis=1), len(distinct))
    higher = np.where(drawn & (places < forbidden[:, None]), places, -1).max(axis=1)
    below = distinct[np.minimum(forbidden, len(distinct) - 1)]
    above = distinct[np.maximum(higher, 0)]
    middle = below + (above - below) / 2.0
    cut = np.where(higher < 0, np.nextafter(below, np.inf), np.where(middle > below, middle, above))
    # Where every negative may be called, the cut is the lowest drawn score itself.
    cut = np.where(forbidden == len(distinct), above, cut)
    return np.where(total > 0, cut, np.nan)


def fit_operating_points(
    scores: ArrayLike,
    is_positive: ArrayLike,
    rates: Sequence[float],
    *,
    groups: Sequence[Hashable] | NDArray[Any] | None = None,
    negative: str = "negative",
    n_resamples: int = 2000,
    seed: int = 0,
) -> tuple[OperatingPoint, ...]:
    """Fit a threshold for each false-reject rate, with the 95% intervals of its value and of its rate on new items.

    The interval of the threshold is that of the bootstrap over groups. That of the rate is the wider one of the
    bootstrap's, which knows that records of a group resemble each other, and of `rate_interval`, which knows what lies
    beyond the highest score that was seen. In simulations with normal scores, rates of 1 to 5% and 60 to 480 records
    it held in 95 to 99% of the cases for independent records, and in 89 to 98% for groups of 8 whose scores
    correlate by 0.3 to 0.7, in which `rate_interval` alone fell to 73%.

    Args:
        scores: ``(N,)``, higher means positive; finite.
        is_positive: ``(N,)``, of bool.
        rates: Largest shares of negatives to reject, in ``[0, 1]``.
        groups: Group of each record, ``(N,)``; None makes every record independent.
        negative: What the negatives are called in ``rule`` and ``note``.
        n_resamples: Draws of the bootstrap; 0 leaves it out.
        seed: Of the draws.

    Raises:
        ValueError: If a rate is out of range, a score is not finite, or there are no negatives.

    Example:
        >>> scores, bad = np.linspace(0, 1, 101), np.arange(101) == 100
        >>> [point] = fit_operating_points(scores, bad, [0.05], negative="good")
        >>> round(point.threshold, 3), point.false_reject_rate
        (0.945, 0.05)
        >>> point.rule
        'at most 0.05 of `good` rejected; on calibration 0.050 of 100, and 1.000 of 1 others found'
    """
    positive = np.asarray(is_positive, dtype=bool)
    codes = np.arange(len(positive)) if groups is None else groups
    cuts = [threshold_at_false_positive_rate(scores, positive, rate) for rate in rates]
    drawn = None
    if n_resamples:
        drawn = resampled_thresholds(scores, positive, rates, codes, n_resamples=n_resamples, seed=seed)
    return tuple(_point(cut, rate, drawn, positive, negative) for cut, rate in zip(cuts, rates, strict=True))


def _point(
    cut: Threshold, rate: float, drawn: Resamples | None, positive: NDArray[np.bool_], negative: str
) -> OperatingPoint:
    n = cut.n - cut.num_positive
    achieved = cut.false_positive_rate or 0.0
    allowed = int(np.floor(rate * n + 1e-9))
    low, high = rate_interval(round(achieved * n), n, allowed=allowed)
    notes = []
    if rate > 0 and n < negatives_needed(rate):
        notes.append(
            f"a rate of {rate:g} needs at least {negatives_needed(rate)} `{negative}`, and there are {n}: the "
            f"threshold lies above all of them, and up to {high:.3f} of new ones may be rejected"
        )
    spread, num_groups = None, n
    if drawn is not None:
        value = drawn.interval(f"threshold_{rate:g}", mask=~positive)
        share = drawn.interval(f"rate_{rate:g}", mask=~positive)
        num_groups = value.num_groups or 0
        if value.low is None or value.high is None or share.low is None or share.high is None:
            notes.append(f"the interval of the rate holds for independent records only: {value.reason}")
        else:
            spread = (value.low, value.high)
            low, high = min(low, share.low), max(high, share.high)
    found = "" if cut.recall is None else f", and {cut.recall:.3f} of {cut.num_positive} others found"
    return OperatingPoint(
        max_false_reject_rate=rate,
        threshold=cut.value,
        threshold_interval=spread,
        false_reject_rate=achieved,
        false_reject_interval=(low, high),
        num_negative=n,
        num_groups=num_groups,
        rule=f"at most {rate:.3g} of `{negative}` rejected; on calibration {achieved:.3f} of {n}{found}",
        note="; ".join(notes),
    )
