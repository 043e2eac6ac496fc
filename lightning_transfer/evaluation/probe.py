"""How much frozen features already say: a linear probe, cross-validated over groups, beside the majority class."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.evaluation.progress import progress
from lightning_transfer.metrics import Interval, class_counts, group_codes, macro_f1, resample

__all__ = ["ProbeScore", "probe_features"]

# Those of the probes in benchmarks/README.md, so that numbers compare. Not tuned: a score that chooses its own penalty
# on the same folds is a little too good.
_STRENGTH = 0.1


@dataclass(frozen=True)
class ProbeScore:
    """Out-of-fold scores of a linear probe on frozen features.

    Attributes:
        macro_f1: Of the probe, with a 95% interval over groups.
        majority: Macro-F1 of the most frequent class.
        gain: Probe minus majority, paired.
        num_folds: Of the cross-validation.
    """

    macro_f1: Interval
    majority: Interval
    gain: Interval
    num_folds: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        named = {"macro_f1": self.macro_f1, "majority": self.majority, "gain": self.gain}
        return {**{name: item.to_dict() for name, item in named.items()}, "num_folds": self.num_folds}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProbeScore:
        """Rebuild from `to_dict`."""
        named = {name: Interval(**values[name]) for name in ("macro_f1", "majority", "gain")}
        return cls(**named, num_folds=values["num_folds"])


def probe_features(
    features: Tensor | NDArray[Any],
    labels: Sequence[int] | NDArray[Any],
    groups: Sequence[Hashable] | None = None,
    *,
    num_folds: int = 5,
    max_records: int = 10_000,
    n_resamples: int = 1000,
    show_progress: bool = False,
) -> ProbeScore | None:
    """Cross-validate a logistic regression on frozen features, whole groups at a time.

    Standardised features, C = 0.1, classes of equal weight (scikit-learn). Of the training split alone: what follows
    from it is a choice, and test is for judging.

    Args:
        features: ``(N, F)``.
        labels: Class indices ``(N,)``; -1 is unknown, and left out.
        groups: Group of each record; None makes each its own.
        num_folds: Fewer where there are fewer groups.
        max_records: With more, so many are drawn with seed 0: the fit takes minutes from there on.
        n_resamples: Of the intervals.
        show_progress: Whether to show a bar.

    Returns:
        None where there is nothing to learn: fewer than two groups, or one class in some fold's training part.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(60) % 2
        >>> score = probe_features(rng.normal(size=(60, 4)) + 3 * labels[:, None], labels)
        >>> score.macro_f1.value > 0.9, score.gain.low > 0
        (True, True)
    """
    target = np.asarray(labels, dtype=np.int64)
    values = features.detach().cpu().numpy() if isinstance(features, Tensor) else np.asarray(features)
    codes = group_codes(range(len(target)) if groups is None else groups)
    rows = np.flatnonzero(target >= 0)
    if len(rows) > max_records:
        rows = np.sort(np.random.default_rng(0).choice(rows, max_records, replace=False))
    values, target, codes = values[rows].astype(np.float32), target[rows], codes[rows]
    folds = min(num_folds, len(np.unique(codes)))
    if folds < 2:
        return None
    preds = _out_of_fold(values, target, codes, folds, show_progress)
    if preds is None:
        return None
    num_classes = int(target.max()) + 1
    most_frequent = np.full(len(target), np.bincount(target).argmax())

    def statistic(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        probe = macro_f1(class_counts(weights, preds, target, num_classes))
        majority = macro_f1(class_counts(weights, most_frequent, target, num_classes))
        return {"macro_f1": probe, "majority": majority, "gain": probe - majority}

    drawn = resample(statistic, codes.tolist(), n_resamples=n_resamples)
    return ProbeScore(drawn.interval("macro_f1"), drawn.interval("majority"), drawn.interval("gain"), folds)


def _out_of_fold(
    features: NDArray[np.float32], target: NDArray[np.int64], codes: NDArray[np.int64], folds: int, show_progress: bool
) -> NDArray[np.int64] | None:
    """Return what a probe of the other folds says of each record."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    preds = np.full(len(target), -1)
    with warnings.catch_warnings(), progress("Linear probe", folds, show_progress) as bar:
        # Classes with fewer records than folds, and a probe a little short of its optimum, are as good as they get.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(features, target, codes)
        for train, held in parts:
            if len(np.unique(target[train])) < 2:
                return None
            probe = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=100)
            preds[held] = (
                make_pipeline(StandardScaler(), probe).fit(features[train], target[train]).predict(features[held])
            )
            bar.update(1)
    return preds
