"""AUROC of many slices, and of the rest of each, for many draws: the pairs of the rest follow from the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FindingSliceAuroc", "SliceAuroc"]

_Float = NDArray[np.float64]
_Places = NDArray[np.int64]

# Bytes of the weights that are worked on at once; there are a few copies of them.
_CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class _Ranks:
    """Records by rising score: where positives and negatives stand, and the run of equal scores around each.

    Attributes:
        positives: Places ``(P,)``.
        negatives: Places ``(Q,)``.
        first: Where the run of each record begins, ``(N,)``.
        last: Behind where it ends, ``(N,)``.
    """

    positives: _Places
    negatives: _Places
    first: _Places
    last: _Places

    @classmethod
    def of(cls, scores: _Float, is_positive: NDArray[np.bool_]) -> _Ranks:
        first, last = (np.searchsorted(scores, scores, side=side) for side in ("left", "right"))
        return cls(np.flatnonzero(is_positive), np.flatnonzero(~is_positive), first, last)

    def won(self, weights: _Float) -> _Float:
        """Return the weight of the pairs in which each positive beats a negative ``(B, P)``; ties count one half."""
        return np.asarray(weights[:, self.positives] * self._below(weights, self.negatives, self.positives))

    def lost(self, weights: _Float) -> _Float:
        """Return the weight of the pairs in which a positive beats each negative ``(B, Q)``; ties count one half."""
        above = weights[:, self.positives].sum(1, keepdims=True) - self._below(weights, self.positives, self.negatives)
        return np.asarray(weights[:, self.negatives] * above)

    def _below(self, weights: _Float, counted: _Places, seen_from: _Places) -> _Float:
        """Return how much weight of the one kind lies below each record of the other, ties by half."""
        kept = np.zeros((len(weights), weights.shape[1] + 1))
        kept[:, counted + 1] = weights[:, counted]
        summed = np.cumsum(kept, axis=1, out=kept)
        return np.asarray((summed[:, self.first[seen_from]] + summed[:, self.last[seen_from]]) / 2.0)


class SliceAuroc:
    """AUROC within each slice, and within all records outside of it.

    Counted by pairs of a positive and a negative: those of the whole, less those that a slice's positives or negatives
    take part in, plus those of which both lie in the slice, are the pairs of the rest. So the rest of each slice costs
    no further look at its records.

    Args:
        scores: ``(N,)``, higher means positive.
        is_positive: ``(N,)``.
        masks: The records ``(N,)`` of each of ``S`` slices; they may overlap.

    Example:
        >>> scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
        >>> judge = SliceAuroc(scores, positive, [np.array([True, False, True, False])])
        >>> own, rest = judge(np.ones((1, 4)), np.arange(4))
        >>> own.tolist(), rest.tolist()
        ([[1.0]], [[1.0]])
    """

    def __init__(self, scores: _Float, is_positive: NDArray[np.bool_], masks: Sequence[NDArray[np.bool_]]) -> None:
        self.order = np.argsort(scores, kind="stable")
        ranked, positive = scores[self.order], is_positive[self.order]
        self.whole = _Ranks.of(ranked, positive)
        self.members = np.stack([mask[self.order] for mask in masks], axis=1).astype(np.float64)
        self.rows = [np.flatnonzero(column) for column in self.members.T]
        self.parts = [_Ranks.of(ranked[rows], positive[rows]) for rows in self.rows]

    def __call__(self, counts: _Float, codes: _Places) -> tuple[_Float, _Float]:
        """Return the AUROC of each slice, and of the rest of each, both ``(B, S)``; NaN where undefined.

        Args:
            counts: How often each group was drawn ``(B, G)``.
            codes: Group of each record ``(N,)``.
        """
        rows = max(1, _CHUNK_BYTES // (8 * len(codes)))
        parts = [self._some(counts[start : start + rows], codes) for start in range(0, len(counts), rows)]
        own, rest = (np.concatenate(column) for column in zip(*parts, strict=True))
        return own, rest

    def _some(self, counts: _Float, codes: _Places) -> tuple[_Float, _Float]:
        weights = counts[:, codes[self.order]]
        positives, negatives = self.whole.positives, self.whole.negatives
        won = self.whole.won(weights)
        from_slice = won @ self.members[positives]
        to_slice = self.whole.lost(weights) @ self.members[negatives]
        within = [
            part.won(weights[:, rows]).sum(1, keepdims=True) for rows, part in zip(self.rows, self.parts, strict=True)
        ]
        inside = np.concatenate(within, axis=1)
        outside = won.sum(1, keepdims=True) - from_slice - to_slice + inside
        (own_pos, all_pos), (own_neg, all_neg) = (
            (weights[:, kind] @ self.members[kind], weights[:, kind].sum(1, keepdims=True))
            for kind in (positives, negatives)
        )
        return _ratio(inside, own_pos * own_neg), _ratio(outside, (all_pos - own_pos) * (all_neg - own_neg))


class FindingSliceAuroc:
    """AUROC of several findings within each slice, and within all records outside of it.

    Args:
        findings: Name, score ``(N,)`` and label ``(N,)`` of each finding; records whose label is NaN do not count.
        masks: The records ``(N,)`` of each of ``S`` slices.
    """

    def __init__(self, findings: Sequence[tuple[str, _Float, _Float]], masks: Sequence[NDArray[np.bool_]]) -> None:
        self.known = [~np.isnan(label) for _, _, label in findings]
        self.judges = [
            SliceAuroc(score[known], label[known] == 1, [mask[known] for mask in masks])
            for (_, score, label), known in zip(findings, self.known, strict=True)
        ]
        self.num_slices = len(masks)
        self.shared: NDArray[np.bool_] | None = None

    def __call__(self, counts: _Float, codes: _Places) -> tuple[_Float, _Float, _Float, _Float]:
        """Return the mean over findings in each slice and in its rest ``(B, S)``, and each finding's own, for gaps.

        A slice is compared with its rest by the findings that both have: those that are defined in the first call,
        which is that of all records.

        Args:
            counts: How often each group was drawn ``(B, G)``.
            codes: Group of each record ``(N,)``.

        Returns:
            Mean in each slice over its findings; that over the findings shared with the rest, in the slice and in the
            rest; and the single ones ``(B, S, F)``.
        """
        both = [
            judge(counts, codes[known])
            if known.any()
            else (np.full((len(counts), self.num_slices), np.nan), np.full((len(counts), self.num_slices), np.nan))
            for judge, known in zip(self.judges, self.known, strict=True)
        ]
        own, rest = (np.stack([pair[side] for pair in both], axis=2) for side in (0, 1))
        if self.shared is None:
            self.shared = np.isfinite(own[0]) & np.isfinite(rest[0])
        inside, outside = (_mean(np.where(self.shared, part, np.nan)) for part in (own, rest))
        return _mean(own), inside, outside, own


def _mean(values: _Float) -> _Float:
    """Average over the last axis what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def _ratio(above: _Float, below: _Float) -> _Float:
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))
