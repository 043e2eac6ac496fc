"""Between which groups of people (or scanners, or views) a model differs most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.metrics import Interval

__all__ = ["SliceGap", "SliceValues", "find_gaps"]

_Float = NDArray[np.float64]
_MAX_UNDEFINED = 0.2


@dataclass(frozen=True)
class SliceGap:
    """The two slices of a column that differ most.

    Attributes:
        column: Name of the column.
        finding: The finding that it is about; empty for the headline, which is the mean over findings.
        best: Value of the better slice.
        worst: Value of the worse slice.
        best_value: The metric there; of the headline over the findings that are defined in both.
        worst_value: The metric in the other.
        difference: The better minus the worse, on the same draws.
        stands_out: Whether it is larger than the largest difference of all pairs of slices is by chance in 95% of the
            draws.
        num_findings: Findings that the mean is over.
    """

    column: str
    finding: str
    best: str
    worst: str
    best_value: float
    worst_value: float
    difference: Interval
    stands_out: bool = False
    num_findings: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, free of NaN."""
        return {**vars(self), "difference": self.difference.to_dict()}


@dataclass(frozen=True)
class SliceValues:
    """A metric of one slice, for each finding.

    Attributes:
        column: Name of the column.
        value: What the slice's records share.
        point: On all records ``(F,)``; NaN where undefined.
        draws: On each draw ``(F, B)``, the same draws for all slices.
        n: Records.
        num_groups: Groups among them.
    """

    column: str
    value: str
    point: _Float
    draws: _Float
    n: int
    num_groups: int


@dataclass(frozen=True)
class _Pair:
    """Two slices of one column, the better one first, and the findings ``(F,)`` that both can be judged by."""

    better: SliceValues
    worse: SliceValues
    common: NDArray[np.bool_]
    point: float
    draws: _Float
    finding: str = ""


def find_gaps(
    slices: Sequence[SliceValues], findings: Sequence[str], confidence: float = 0.95, *, higher_is_worse: bool = False
) -> tuple[SliceGap, ...]:
    """Return the largest gap of each column in the headline, and then that of each finding, the larger ones first.

    The largest of many gaps is large by chance. It stands out where it exceeds, in units of its own standard error, the
    95% quantile of the largest such deviation of all pairs over the draws (Westfall and Young 1993); pairs of the
    headline and pairs of single findings are two families. The interval of a gap takes the pair as it is, and so says
    nothing of how the pair was found.

    Args:
        slices: Not those that are too small to say anything.
        findings: Names, in the order of the values.
        confidence: Of the intervals.
        higher_is_worse: Whether the metric counts errors.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sides = [
        ...     SliceValues("sex", name, np.array([value]), value + rng.normal(0, 0.02, (1, 500)), 100, 50)
        ...     for name, value in (("F", 0.7), ("M", 0.9))
        ... ]
        >>> [gap] = find_gaps(sides, ["covid"])
        >>> gap.best, gap.worst, round(gap.difference.value, 2), gap.stands_out
        ('M', 'F', 0.2, True)
    """
    sign = -1.0 if higher_is_worse else 1.0
    pairs = [(first, second) for first, second in combinations(slices, 2) if first.column == second.column]
    whole = [pair for first, second in pairs if (pair := _pair(first, second, sign)) is not None]
    single = [
        pair
        for place, name in enumerate(findings)
        for first, second in pairs
        if len(findings) > 1 and (pair := _pair(first, second, sign, place, name)) is not None
    ]
    by_column = _largest(whole, lambda pair: pair.better.column)
    by_finding = _largest(single, lambda pair: pair.finding)
    return (*_gaps(by_column, whole, confidence), *_gaps(by_finding, single, confidence))


def _pair(
    first: SliceValues, second: SliceValues, sign: float, place: int | None = None, finding: str = ""
) -> _Pair | None:
    """Return two slices with the better one first; None where there is nothing to compare them by."""
    common = np.isfinite(first.point) & np.isfinite(second.point)
    if place is not None:
        common &= np.arange(len(common)) == place
    if not common.any():
        return None
    point = float((first.point - second.point)[common].mean())
    better, worse = (first, second) if sign * point >= 0 else (second, first)
    differences = (better.draws - worse.draws)[common]
    defined = np.isfinite(differences)
    count = defined.sum(axis=0)
    total = np.where(defined, differences, 0.0).sum(axis=0)
    draws = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return _Pair(better, worse, common, float((better.point - worse.point)[common].mean()), draws, finding)


def _largest(pairs: Sequence[_Pair], key: Any) -> list[_Pair]:  # noqa: ANN401 - a function of a pair
    found: dict[str, _Pair] = {}
    for pair in pairs:
        if key(pair) not in found or abs(pair.point) > abs(found[key(pair)].point):
            found[key(pair)] = pair
    return sorted(found.values(), key=lambda pair: -abs(pair.point))


def _gaps(chosen: Sequence[_Pair], family: Sequence[_Pair], confidence: float) -> Iterator[SliceGap]:
    limit = _largest_by_chance(family)
    for pair in chosen:
        n, num_groups = pair.better.n + pair.worse.n, pair.better.num_groups + pair.worse.num_groups
        defined = pair.draws[np.isfinite(pair.draws)]
        undefined = len(pair.draws) - len(defined)
        if undefined > _MAX_UNDEFINED * len(pair.draws) or not len(defined):
            reason = f"undefined in {undefined} of {len(pair.draws)} resamples, no interval"
            difference = Interval(pair.point, None, None, n, num_groups, reason, undefined)
        else:
            low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
            difference = Interval(pair.point, float(low), float(high), n, num_groups, "", undefined)
        error = float(np.std(defined)) if len(defined) else 0.0
        yield SliceGap(
            column=pair.better.column,
            finding=pair.finding,
            best=pair.better.value,
            worst=pair.worse.value,
            best_value=float(pair.better.point[pair.common].mean()),
            worst_value=float(pair.worse.point[pair.common].mean()),
            difference=difference,
            stands_out=difference.low is not None and error > 0 and abs(pair.point) / error > limit,
            num_findings=int(pair.common.sum()),
        )


def _largest_by_chance(family: Sequence[_Pair]) -> float:
    """Return the 95% quantile of the largest deviation of all pairs, in units of their standard errors."""
    if not family:
        return np.inf
    largest = np.zeros(len(family[0].draws))
    for pair in family:
        error = np.nanstd(pair.draws) if np.isfinite(pair.draws).any() else 0.0
        if error > 0:
            largest = np.fmax(largest, np.abs(pair.draws - pair.point) / error)
    return float(np.quantile(largest, 0.95))
