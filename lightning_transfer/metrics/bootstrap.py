"""Intervals by cluster bootstrap: whole groups are drawn, because records of one group are not independent."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Float", "Interval", "JointStatistic", "Resamples", "Statistic", "cluster_bootstrap", "paired_difference"]
__all__ += ["group_codes", "resample"]

Float: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Float], Float]
"""Maps weights of records ``(B, N)`` to one value a resample, ``(B,)``; NaN where it is undefined."""
JointStatistic: TypeAlias = Callable[[Float], Mapping[str, Float]]
"""Several statistics at once, by name, so that they share their counts."""

# Bytes of one chunk of weights: the statistics hold a few copies of it.
_CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Interval:
    """A number with its uncertainty, or the reason why there is none.

    Attributes:
        value: The statistic of all records; None where it is undefined.
        low: Lower end of the interval; None where there is none, which ``reason`` explains.
        high: Upper end.
        n: Records that the statistic is about (of that class, above that threshold).
        num_groups: Independent groups among them; None if unknown.
        reason: Why the value or the interval is missing; empty otherwise.
        num_undefined: Resamples in which the statistic was undefined, such as those without a rare class.

    Example:
        >>> str(Interval(0.5, 0.25, 0.75, n=12))
        '0.500 [0.250, 0.750]'
        >>> str(Interval(None, None, None, n=0, reason="no record of `pit`"))
        'n/a (no record of `pit`)'
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    num_groups: int | None = None
    reason: str = ""
    num_undefined: int = 0

    def __str__(self) -> str:
        if self.value is None:
            return f"n/a ({self.reason})"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} [n/a]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, free of NaN, as ``metrics.json`` holds them."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "num_groups": self.num_groups,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Resamples:
    """The values of some statistics on all records, and on each resample of the groups.

    Two of them made with the same groups and seed saw the same draws, so their values are paired.

    Attributes:
        point: Name -> value on all records.
        values: Name -> values of shape ``(n_resamples,)``; NaN where undefined.
        codes: Group of each record as a number, ``(N,)``.
        seed: What the draws were made from.
    """

    point: Mapping[str, float]
    values: Mapping[str, Float]
    codes: NDArray[np.int64]
    seed: int

    def interval(
        self,
        name: str,
        *,
        mask: NDArray[np.bool_] | None = None,
        confidence: float = 0.95,
        max_undefined: float = 0.2,
        reason: str = "",
    ) -> Interval:
        """Return the percentile interval of one statistic.

        Args:
            name: One of ``point``.
            mask: The records ``(N,)`` that the statistic is about; None means all. They give ``n`` and ``num_groups``.
            confidence: Share of resamples inside the interval.
            max_undefined: Share of undefined resamples past which no interval is given.
            reason: What to say if the statistic is undefined on all records.
        """
        codes = self.codes if mask is None else self.codes[mask]
        counts = {"n": len(codes), "num_groups": len(np.unique(codes))}
        return _percentile(
            self.point[name], self.values[name], counts, confidence, max_undefined, reason or "undefined on these data"
        )

    def minus(self, other: Resamples, names: Sequence[str] | None = None) -> Resamples:
        """Return the paired differences to another model's values on the same draws.

        Args:
            other: Made with the same groups, number of resamples and seed.
            names: Statistics to subtract; None takes those that both have.

        Raises:
            ValueError: If the draws were not the same.
        """
        if self.seed != other.seed or not np.array_equal(self.codes, other.codes):
            raise ValueError(
                f"Only values of the same draws are paired, got seeds {self.seed} and {other.seed} with "
                f"{len(self.codes)} and {len(other.codes)} records. Use the same groups and seed for both."
            )
        chosen = [name for name in self.point if name in other.point] if names is None else names
        values = {}
        for name in chosen:
            ours, theirs = self.values[name], other.values[name]
            if ours.shape != theirs.shape:
                raise ValueError(f"Only values of the same draws are paired, got {len(ours)} and {len(theirs)} draws.")
            values[name] = ours - theirs
        point = {name: self.point[name] - other.point[name] for name in chosen}
        return replace(self, point=point, values=values)


def group_codes(groups: Sequence[Hashable] | NDArray[Any]) -> NDArray[np.int64]:
    """Number the groups; a record whose group is None is a group of its own.

    Example:
        >>> group_codes(["a", None, "a", None]).tolist()
        [0, 1, 0, 2]
    """
    numbers: dict[Hashable, int] = {}
    items = groups.tolist() if isinstance(groups, np.ndarray) else groups
    keys = ((position,) if group is None else ("group", group) for position, group in enumerate(items))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def resample(
    statistic: JointStatistic,
    groups: Sequence[Hashable] | NDArray[Any],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    on_chunk: Callable[[int], object] | None = None,
) -> Resamples:
    """Evaluate statistics on all records, and on resamples of whole groups.

    A resample draws as many groups as there are, with replacement. It reaches the statistic as a row of weights: how
    often each record was drawn. The draws depend on the groups, ``n_resamples`` and ``seed`` only.

    Args:
        statistic: Maps weights ``(B, N)`` to ``{name: (B,)}``.
        groups: Group of each record, ``(N,)``; None is a group of its own.
        n_resamples: Rows drawn; 2000 settles the ends of a 95% interval to about two percent of its width.
        seed: Of the draws.
        on_chunk: Called with the number of resamples just done, for a progress bar.

    Raises:
        ValueError: If there are no records, or ``n_resamples`` is smaller than 1.
    """
    codes = group_codes(groups)
    if len(codes) == 0:
        raise ValueError("A bootstrap needs at least one record, got `groups` of length 0.")
    if n_resamples < 1:
        raise ValueError(f"Expected `n_resamples` of at least 1, got {n_resamples}. 2000 suits a 95% interval.")
    num_groups = int(codes.max()) + 1
    point = {name: float(value[0]) for name, value in statistic(np.ones((1, len(codes)))).items()}
    parts: dict[str, list[Float]] = {name: [] for name in point}
    rng = np.random.default_rng(seed)
    rows = max(1, min(n_resamples, _CHUNK_BYTES // (8 * len(codes))))
    for start in range(0, n_resamples, rows):
        size = min(rows, n_resamples - start)
        # Counts of uniform draws are the multinomial, and faster than numpy's own for many groups.
        draws = rng.integers(0, num_groups, size=(size, num_groups)) + np.arange(size)[:, None] * num_groups
        counts = np.bincount(draws.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        for name, values in statistic(counts[:, codes].astype(np.float64)).items():
            parts[name].append(values)
        if on_chunk is not None:
            on_chunk(size)
    return Resamples(point, {name: np.concatenate(items) for name, items in parts.items()}, codes, seed)


def cluster_bootstrap(
    statistic: Statistic,
    groups: Sequence[Hashable] | NDArray[Any],
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    max_undefined: float = 0.2,
    reason: str = "",
) -> Interval:
    """Return a statistic with its percentile interval, by drawing whole groups with replacement (Efron 1979).

    Resamples in which the statistic is undefined are dropped and counted. One group alone gives no interval.

    Args:
        statistic: Maps weights ``(B, N)`` to ``(B,)``, NaN where undefined.
        groups: Group of each record, ``(N,)``; None is a group of its own. For independent records: ``range(N)``.
        n_resamples: Number of draws.
        confidence: Share of resamples inside the interval.
        seed: Of the draws; the same seed and groups give the same draws.
        max_undefined: Share of undefined resamples past which no interval is given.
        reason: What to say if the statistic is undefined on all records.

    Example:
        >>> x = np.arange(10.0)
        >>> result = cluster_bootstrap(lambda weights: weights @ x / weights.sum(1), range(10))
        >>> result.value, result.n, 2 < result.low < 4.5 < result.high < 7
        (4.5, 10, True)
    """
    draws = resample(lambda weights: {"": statistic(weights)}, groups, n_resamples=n_resamples, seed=seed)
    return draws.interval("", confidence=confidence, max_undefined=max_undefined, reason=reason)


def paired_difference(
    stat_a: Statistic,
    stat_b: Statistic,
    groups: Sequence[Hashable] | NDArray[Any],
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    max_undefined: float = 0.2,
) -> Interval:
    """Return ``a - b`` with its interval, both evaluated on the same draws; see `cluster_bootstrap`.

    Two models judged on the same records are compared so: what is hard for both cancels out.

    Example:
        >>> x = np.random.default_rng(0).normal(size=50)
        >>> mean = lambda weights: weights @ x / weights.sum(1)
        >>> str(paired_difference(lambda w: mean(w) + 1, mean, range(50)))
        '1.000 [1.000, 1.000]'
    """
    return cluster_bootstrap(
        lambda weights: np.asarray(stat_a(weights) - stat_b(weights)),
        groups,
        n_resamples=n_resamples,
        confidence=confidence,
        seed=seed,
        max_undefined=max_undefined,
        reason="one of the two is undefined on these data",
    )


def _percentile(
    value: float,
    values: Float,
    counts: Mapping[str, int],
    confidence: float,
    max_undefined: float,
    reason: str,
) -> Interval:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"Expected `confidence` in (0, 1), got {confidence}. 0.95 is the usual choice.")
    n, num_groups = counts["n"], counts["num_groups"]
    if not np.isfinite(value):
        return Interval(None, None, None, n, num_groups, reason)
    defined = values[np.isfinite(values)]
    undefined = len(values) - len(defined)
    if num_groups < 2:
        why = f"{num_groups} group, and an interval needs at least 2"
        return Interval(value, None, None, n, num_groups, why, undefined)
    if undefined > max_undefined * len(values):
        why = f"undefined in {undefined} of {len(values)} resamples, no interval"
        return Interval(value, None, None, n, num_groups, why, undefined)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high), n, num_groups, "", undefined)
