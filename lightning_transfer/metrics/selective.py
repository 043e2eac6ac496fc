"""How well a classifier knows when to abstain: risk and coverage, thresholds for a precision, out-of-scope scores.

Coverage is the share of the records that are decided automatically, risk the share of these that are wrong, precision
one minus the risk. Weights have the shape ``(B, N)``, as in `lightning_transfer.metrics.classification`. An
out-of-scope score is higher the more foreign a record looks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_transfer.metrics.bootstrap import Float, group_codes
from lightning_transfer.metrics.operating_point import rate_interval

__all__ = ["PrecisionThreshold", "RiskCoverage", "aurc", "coverage_at_precision", "energy_score"]
__all__ += ["fit_precision_threshold", "foreign_accepted_at_recall", "knn_score", "max_logit_score", "risk_coverage"]

# Similarities computed at once: 4 million doubles are 32 MB.
_CHUNK = 2**22


class RiskCoverage(NamedTuple):
    """What each threshold of the confidence would decide, from the highest threshold to the lowest; each ``(D,)``.

    Attributes:
        coverage: Share of the records with at least that confidence.
        risk: Share of these that are wrong.
        threshold: The distinct confidences, falling.
    """

    coverage: Float
    risk: Float
    threshold: Float


def risk_coverage(confidence: ArrayLike, is_right: ArrayLike) -> RiskCoverage:
    """Return the risk-coverage curve (El-Yaniv and Wiener 2010); records of one confidence are decided together.

    Args:
        confidence: ``(N,)``, higher is surer.
        is_right: ``(N,)``, of bool.

    Raises:
        ValueError: If the shapes differ, there is no record, or a confidence is not finite.

    Example:
        >>> curve = risk_coverage([0.9, 0.8, 0.8, 0.3], [True, True, False, False])
        >>> curve.coverage.tolist(), curve.risk.round(2).tolist()
        ([0.25, 0.75, 1.0], [0.0, 0.33, 0.5])
    """
    sure, right = _checked(confidence, is_right)
    order = np.argsort(-sure, kind="stable")
    ends = _ends(sure[order])
    hits = np.cumsum(right[order])[ends]
    return RiskCoverage((ends + 1) / len(sure), 1.0 - hits / (ends + 1), sure[order][ends])


def aurc(weights: Float, confidence: ArrayLike, is_right: ArrayLike) -> Float:
    """Return the area under the risk-coverage curve: the mean risk over the coverages 1/N, 2/N, ... 1.

    Geifman and El-Yaniv 2017 ("Selective classification for deep neural networks"), in the form of Geifman, Uziel and
    El-Yaniv 2019. 0 is perfect; a confidence that says nothing gives the error rate. Records of one confidence have no
    order, so the mean over all their orders is taken: in closed form, as a record that a resample drew twice is tied
    with itself.

    Args:
        weights: ``(B, N)``.
        confidence: ``(N,)``, higher is surer.
        is_right: ``(N,)``, of bool.

    Returns:
        ``(B,)``, in ``[0, 1]``; NaN where all weights are 0.

    Raises:
        ValueError: As `risk_coverage`.

    Example:
        >>> aurc(np.ones((1, 3)), [0.9, 0.8, 0.7], [True, False, True]).round(4)  # (0 + 1/2 + 1/3) / 3
        array([0.2778])
    """
    from scipy.special import digamma

    sure, right = _checked(confidence, is_right)
    order = np.argsort(-sure, kind="stable")
    starts = np.append(0, _ends(sure[order])[:-1] + 1)
    ranked = np.take(weights, order, axis=1)
    size = np.add.reduceat(ranked, starts, axis=1)
    wrong = np.add.reduceat(ranked * ~right[order], starts, axis=1)
    until = np.cumsum(size, axis=1)
    # Of a tie of m records with e errors, behind k records with E: the sum over j of (E + j e / m) / (k + j).
    before, share = until - size, np.divide(wrong, size, out=np.zeros_like(wrong), where=size > 0)
    errors_before = np.cumsum(wrong, axis=1) - wrong
    harmonic = digamma(np.concatenate([np.zeros((len(ranked), 1)), until], axis=1) + 1.0)
    area = wrong + (errors_before - before * share) * np.diff(harmonic, axis=1)
    total = until[:, -1]
    return np.asarray(np.divide(area.sum(1), total, out=np.full(len(total), np.nan), where=total > 0))


def coverage_at_precision(confidence: ArrayLike, is_right: ArrayLike, min_precision: float) -> float:
    """Return the largest coverage whose precision on these very records is at least ``min_precision``; 0 if none is.

    It describes a curve. A threshold that is to hold on other records comes from `fit_precision_threshold`.

    Args:
        confidence: ``(N,)``, higher is surer.
        is_right: ``(N,)``, of bool.
        min_precision: In ``(0, 1]``.

    Raises:
        ValueError: As `risk_coverage`, or if ``min_precision`` is out of range.

    Example:
        >>> coverage_at_precision([0.9, 0.8, 0.7, 0.6], [True, False, True, False], 0.6)
        0.75
    """
    _check_precision(min_precision)
    curve = risk_coverage(confidence, is_right)
    return float(curve.coverage[1.0 - curve.risk >= min_precision - 1e-12].max(initial=0.0))


@dataclass(frozen=True)
class PrecisionThreshold:
    """A threshold of the confidence for a stated precision, and what it achieves where it was fitted.

    Attributes:
        min_precision: As asked for.
        threshold: A confidence of at least this is decided automatically; None where no threshold is sure enough.
        precision: Share of what is decided that is right; None without a threshold.
        precision_interval: 95% interval of the precision, by Clopper and Pearson with the effective number.
        coverage: Share of the records that is decided; 0 without a threshold.
        num_decided: How many that are.
        n: Records that it was fitted on.
        rule: In words, how it was chosen, or why there is none and what to do.
    """

    min_precision: float
    threshold: float | None
    precision: float | None
    precision_interval: tuple[float, float] | None
    coverage: float
    num_decided: int
    n: int
    rule: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        pair = None if self.precision_interval is None else list(self.precision_interval)
        return {**asdict(self), "precision_interval": pair}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PrecisionThreshold:
        """Rebuild from `to_dict`."""
        pair = values["precision_interval"]
        known = {name: values[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, "precision_interval": None if pair is None else tuple(pair)})


def fit_precision_threshold(
    confidence: ArrayLike,
    is_right: ArrayLike,
    min_precision: float,
    *,
    groups: Sequence[Hashable] | NDArray[Any] | None = None,
    sure: float = 0.8,
    what: str = "tickets",
) -> PrecisionThreshold:
    """Return the lowest threshold at which the precision is at least ``min_precision`` with a probability of ``sure``.

    At each threshold the precision has a one-sided lower bound (Clopper and Pearson 1934), with the effective number of
    independent records where groups resemble themselves; the lowest threshold whose bound reaches the target is taken.
    One lucky record proves nothing: at 0.95, 32 right ones in a row are the least that does.

    Taking the lowest threshold whose plain share reaches the target would look for luck: among many thresholds the one
    that just passes by chance wins. In simulations with a target of 0.95, true confidences and 70 to 3,000 calibration
    records, the plain share missed the target on new records in 42 to 61% of the fits, this bound in 8 to 19%. Its
    price is coverage: 2 to 9 points with 500 to 1,000 records, and far more with 70. Searching among all thresholds
    costs nothing of ``sure`` here, as neighbouring thresholds decide nearly the same records.

    Args:
        confidence: ``(N,)``, higher is surer.
        is_right: ``(N,)``, of bool; what must not be decided at all counts as wrong.
        min_precision: Target, in ``(0, 1)``.
        groups: Group of each record, ``(N,)``; None makes every record independent.
        sure: Of the bound, in ``(0, 1)``; 0.5 comes close to the plain share.
        what: The records are called in ``rule``.

    Raises:
        ValueError: As `risk_coverage`, or if ``min_precision`` or ``sure`` is out of range.

    Example:
        >>> confidence = np.linspace(1, 0, 201)
        >>> found = fit_precision_threshold(confidence, confidence > 0.2, 0.95)
        >>> found.num_decided, round(found.precision, 3), round(found.threshold, 4)
        (165, 0.97, 0.1775)
        >>> fit_precision_threshold([0.9, 0.8], [True, True], 0.95).rule
        'no threshold proves 0.95: at best 2 of 2 tickets are right, which proves 0.447. At least 32 are needed...'
    """
    _check_precision(min_precision)
    if not 0.0 < sure < 1.0 or min_precision == 1.0:
        raise ValueError(
            f"Expected `min_precision` and `sure` in (0, 1), got {min_precision} and {sure}. No number of records "
            "proves a precision of 1."
        )
    score, right = _checked(confidence, is_right)
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = _ends(ranked)
    codes = group_codes(range(len(score)) if groups is None else groups)
    if len(codes) != len(score):
        raise ValueError(f"Expected a group for each of {len(score)} records, got {len(codes)}.")
    share, effective = _shares(right[order], codes[order], ends)
    proven = _lower_bound(share, effective, sure)
    enough = np.flatnonzero(proven >= min_precision)
    if not len(enough):
        best = len(proven) - 1 - int(np.argmax(proven[::-1]))  # of equals the one with most records
        decided = int(ends[best]) + 1
        hits = round(share[best] * decided)
        least = int(np.ceil(np.log(1.0 - sure) / np.log(min_precision) - 1e-9))
        alike = effective[best] < decided - 0.5
        as_sure = f", as sure as {effective[best]:.0f} independent ones" if alike else ""
        rule = (
            f"no threshold proves {min_precision:g}: at best {hits} of {decided} {what} are right{as_sure}, which "
            f"proves {proven[best]:.3f}. At least {least} are needed, all right: label more for calibration, or ask "
            "for less"
        )
        return PrecisionThreshold(min_precision, None, None, None, 0.0, 0, len(score), rule)
    last = int(enough[-1])
    decided = int(ends[last]) + 1
    low, high = rate_interval(share[last] * effective[last], effective[last])
    lower = ranked[ends[last] + 1] if decided < len(ranked) else ranked[ends[last]]
    middle = float(lower + (ranked[ends[last]] - lower) / 2.0)
    cut = middle if middle > lower else float(ranked[ends[last]])
    rule = (
        f"lowest threshold that proves {min_precision:g} with a probability of {sure:g}; on calibration "
        f"{share[last]:.3f} [{low:.3f}, {high:.3f}] of {decided} {what} right"
    )
    coverage = decided / len(score)
    return PrecisionThreshold(min_precision, cut, float(share[last]), (low, high), coverage, decided, len(score), rule)


def foreign_accepted_at_recall(weights: Float, scores: ArrayLike, is_foreign: ArrayLike, recall: float = 0.95) -> Float:
    """Return the share of foreign records that pass where ``recall`` of the in-scope ones do: FPR95 at 0.95.

    In scope is the positive class, as in Liu et al. 2020 and Hendrycks and Gimpel 2017: the true positive rate is the
    share of in-scope records that are accepted, the false positive rate that of foreign ones. Lower is better. The
    threshold is the strictest that accepts so many; records of one score pass together.

    Args:
        weights: ``(B, N)``.
        scores: ``(N,)``, higher is more foreign.
        is_foreign: ``(N,)``, of bool.
        recall: True positive rate to reach, in ``(0, 1]``.

    Returns:
        ``(B,)``; NaN without a foreign or without an in-scope record.

    Raises:
        ValueError: As `risk_coverage`, or if ``recall`` is out of range.

    Example:
        >>> scores, foreign = [0.1, 0.2, 0.3, 0.25, 0.9], [False, False, False, True, True]
        >>> foreign_accepted_at_recall(np.ones((1, 5)), scores, foreign)
        array([0.5])
    """
    if not 0.0 < recall <= 1.0:
        raise ValueError(f"Expected `recall` in (0, 1], got {recall}. 0.95 gives the usual FPR95.")
    score, foreign = _checked(scores, is_foreign)
    order = np.argsort(score, kind="stable")
    ends = _ends(score[order])
    ranked = np.take(weights, order, axis=1)
    known = np.cumsum(ranked * ~foreign[order], axis=1)[:, ends]
    passed = np.cumsum(ranked * foreign[order], axis=1)[:, ends]
    # The first threshold that accepts enough; the small term undoes the rounding of `recall * total`.
    place = (known >= recall * known[:, -1:] - 1e-9).argmax(axis=1)
    total = passed[:, -1]
    rate = np.divide(passed[np.arange(len(passed)), place], total, out=np.full(len(total), np.nan), where=total > 0)
    return np.asarray(np.where(known[:, -1] > 0, rate, np.nan))


def max_logit_score(logits: ArrayLike) -> Float:
    """Return minus the largest logit ``(N,)`` of logits ``(N, C)`` (Hendrycks et al. 2022, "Scaling OOD detection").

    Example:
        >>> max_logit_score([[3.0, 1.0], [0.5, 0.0]]).tolist()
        [-3.0, -0.5]
    """
    return np.asarray(-np.asarray(logits, dtype=np.float64).max(axis=1))


def energy_score(logits: ArrayLike) -> Float:
    """Return the free energy ``-log sum exp`` ``(N,)`` of logits ``(N, C)``, at temperature 1 (Liu et al. 2020, eq. 3).

    Example:
        >>> energy_score([[0.0, 0.0]]).round(4).tolist()  # -ln 2
        [-0.6931]
    """
    return np.asarray(-np.logaddexp.reduce(np.asarray(logits, dtype=np.float64), axis=1))


def knn_score(features: ArrayLike, examples: ArrayLike, k: int) -> Float:
    """Return one minus the cosine to the ``k``-th nearest example, ``(M,)`` (Sun et al. 2022).

    The paper takes the Euclidean distance of unit vectors, ``sqrt(2 - 2 cos)``, which ranks alike.

    Args:
        features: ``(M, F)``.
        examples: Of known records, ``(N, F)``, not zero.
        k: From 1; the farthest example is taken where there are fewer.

    Returns:
        In ``[0, 2]``; NaN for a row without a direction (zero, or not finite).

    Raises:
        ValueError: If ``k`` is below 1, there are no examples, or the widths differ.

    Example:
        >>> knn_score([[3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]], k=2).round(3).tolist()
        [0.4]
    """
    rows, known = np.asarray(features, dtype=np.float64), np.asarray(examples, dtype=np.float64)
    if k < 1 or known.ndim != 2 or len(known) == 0 or rows.ndim != 2 or rows.shape[1] != known.shape[1]:
        raise ValueError(
            f"Expected `k` of at least 1, features (M, F) and examples (N, F), got k={k}, {rows.shape} and "
            f"{known.shape}."
        )
    place = min(k, len(known)) - 1
    known = known / np.linalg.norm(known, axis=1, keepdims=True)
    found = np.full(len(rows), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(rows, axis=1)
    usable = np.flatnonzero(np.isfinite(length) & (length > 0))
    size = max(1, _CHUNK // len(known))
    for start in range(0, len(usable), size):
        chosen = usable[start : start + size]
        distance = 1.0 - (rows[chosen] / length[chosen, None]) @ known.T
        found[chosen] = np.partition(distance, place, axis=1)[:, place]
    return np.asarray(np.clip(found, 0.0, 2.0))


def _checked(scores: ArrayLike, flags: ArrayLike) -> tuple[Float, NDArray[np.bool_]]:
    score, flag = np.asarray(scores, dtype=np.float64), np.asarray(flags, dtype=bool)
    if score.ndim != 1 or score.shape != flag.shape or not len(score):
        raise ValueError(f"Expected scores and flags of one shape (N,) with N > 0, got {score.shape} and {flag.shape}.")
    if not np.isfinite(score).all():
        wrong = int(np.flatnonzero(~np.isfinite(score))[0])
        raise ValueError(f"Expected finite scores, got {score[wrong]} at position {wrong}.")
    return score, flag


def _check_precision(value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ValueError(f"Expected `min_precision` in (0, 1], got {value}. 0.95 means 19 of 20 are right.")


def _ends(ranked: Float) -> NDArray[np.int64]:
    """Return the last position of each run of equal scores."""
    return np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)


def _shares(right: NDArray[np.bool_], codes: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[Float, Float]:
    """Return the share of right ones among the first ``end + 1`` records, and their `effective_number`, for each end.

    The sums over groups grow by what each record adds to its own group's counts, so that one pass serves all ends.
    """
    from scipy.special import stdtrit

    hit = right.astype(np.float64)
    by_group = np.argsort(codes, kind="stable")
    first = np.append(True, codes[by_group][1:] != codes[by_group][:-1])
    start = np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    summed = np.cumsum(hit[by_group]) - hit[by_group]
    members, hits = np.empty(len(codes)), np.empty(len(codes))
    members[by_group] = np.arange(len(codes)) - start  # of the record's group, before it
    hits[by_group] = summed - summed[start]
    squared_members = np.cumsum(2.0 * members + 1.0)[ends]
    squared_hits = np.cumsum(hit * (2.0 * hits + 1.0))[ends]
    products = np.cumsum((hits + hit) * (members + 1.0) - hits * members)[ends]
    n, num_groups = ends + 1.0, np.cumsum(members == 0)[ends].astype(np.float64)
    share = np.cumsum(hit)[ends] / n
    excess = squared_hits - 2.0 * share * products + share**2 * squared_members
    mixed = (share > 0) & (share < 1) & (num_groups > 1)
    few = np.maximum(num_groups - 1.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.maximum(1.0, num_groups / few * excess / n**2 / (share * (1.0 - share) / (n - 1.0)))
        scarce = (stdtrit(np.maximum(n - 1.0, 1.0), 0.975) / stdtrit(few, 0.975)) ** 2
        return share, np.asarray(np.where(mixed, n / effect * scarce, num_groups))


def _lower_bound(share: Float, effective: Float, sure: float) -> Float:
    """Return Clopper and Pearson's one-sided lower bound of each share."""
    from scipy.special import betaincinv

    hits = share * effective
    bound = betaincinv(np.maximum(hits, 1e-300), effective - hits + 1.0, 1.0 - sure)
    return np.asarray(np.where(hits > 0, bound, 0.0))
