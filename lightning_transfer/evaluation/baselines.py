"""Plain methods that a trained model must beat: majority class, and neighbours or a linear probe on features."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.calibrate import fit_calibration
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import labels_of
from lightning_transfer.metrics import class_counts, group_codes, macro_f1
from lightning_transfer.types import Calibration, Schema

__all__ = ["Baseline", "BaselineOutputs", "calibrate_baseline", "fit_baselines", "knn_baseline"]
__all__ += ["linear_probe_baseline", "majority_baseline"]

_Array = NDArray[Any]
_Score = Callable[[_Array], _Array]
"""Maps features ``(N, F)`` to log-probabilities ``(N, C)``."""

NEIGHBOURS = (1, 3, 5, 10, 30)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Baseline:
    """A fitted plain method.

    Attributes:
        name: Appears in tables.
        description: What was chosen for it, and how.
        classify: Maps features ``(N, F)`` to logits ``(N, num_logits)``.
    """

    name: str
    description: str
    classify: Callable[[_Array], _Array]

    def outputs(self, like: Outputs) -> Outputs:
        """Return what the baseline says of other records, from their frozen features."""
        return like.with_logits(torch.from_numpy(self.classify(like.features.double().numpy())))


@dataclass(frozen=True)
class BaselineOutputs:
    """A baseline's row, ready for `evaluate_classification`: judged like the model, with a calibration of its own.

    Attributes:
        outputs: What it says of the records.
        calibration: Its own temperature and threshold.
        description: What was chosen for it, and how.
        seconds: Spent on making it; None if unknown.
    """

    outputs: Outputs
    calibration: Calibration
    description: str = ""
    seconds: float | None = None


def fit_baselines(
    train: Outputs,
    test: Outputs,
    schema: Schema,
    *,
    groups: Sequence[Hashable] | None = None,
    calibration: Outputs | None = None,
    names: Sequence[str] = ("majority", "knn", "linear_probe"),
    max_false_reject_rate: float = 0.05,
    show_progress: bool = False,
) -> dict[str, BaselineOutputs]:
    """Fit the baselines on the training split, and run them on another.

    Every choice is made by cross-validation over the training groups; temperature and threshold on the calibration
    split, as for the model. ``features`` must be those of the frozen backbone (see `collect_features`), and for
    ``plain`` those that need no network.

    Args:
        train: Features and labels to fit on.
        test: Features to judge on; its labels are not read here.
        schema: Names task and classes.
        groups: Group of each training record, in the order of ``train``; None makes each its own.
        calibration: Features and labels of the calibration split; None leaves temperature 1 and no threshold.
        names: Which of ``majority``, ``knn``, ``linear_probe``, and ``plain``, a linear probe of another name.
        max_false_reject_rate: For the threshold, as the model's.
        show_progress: Whether to show a bar.

    Raises:
        ValueError: If a name is unknown.
        TransferError: If training labels are missing.
    """
    known: dict[str, Callable[[], Baseline]] = {
        "majority": lambda: majority_baseline(train, schema),
        "knn": lambda: knn_baseline(train, schema, groups=groups),
        "linear_probe": lambda: linear_probe_baseline(train, schema, groups=groups),
        "plain": lambda: linear_probe_baseline(train, schema, groups=groups, name="plain"),
    }
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ValueError(f"There is no baseline `{wrong[0]}`. Known: {', '.join(known)}.")
    rows = {}
    with progress("Baselines", len(names), show_progress) as bar:
        for name in names:
            start = time.perf_counter()
            baseline = known[name]()
            seconds = time.perf_counter() - start
            found = None if calibration is None else baseline.outputs(calibration)
            fitted = calibrate_baseline(found, schema, max_false_reject_rate)
            rows[name] = BaselineOutputs(baseline.outputs(test), fitted, baseline.description, seconds)
            bar.update(1)
    return rows


def calibrate_baseline(outputs: Outputs | None, schema: Schema, max_false_reject_rate: float) -> Calibration:
    """Return a baseline's own temperature and threshold; without a calibration split the identity.

    Args:
        outputs: What the baseline says of the calibration split; None if there is none.
        schema: Names task and classes.
        max_false_reject_rate: For the threshold, as the model's.
    """
    if outputs is None:
        return Calibration()
    # Nobody decides by a baseline: its thresholds need no intervals.
    return fit_calibration(outputs, schema, max_false_reject_rate=max_false_reject_rate, n_resamples=0)


def majority_baseline(train: Outputs, schema: Schema) -> Baseline:
    """Return the model that knows only how frequent each class is in training.

    Raises:
        TransferError: If there is no training label.
    """
    return _baseline(
        "majority", train, schema, None, lambda _, target, __, count: (_prior(target, count), "frequencies")
    )


def knn_baseline(
    train: Outputs,
    schema: Schema,
    *,
    groups: Sequence[Hashable] | None = None,
    neighbours: Sequence[int] = NEIGHBOURS,
) -> Baseline:
    """Return a vote of the nearest training records, by the cosine of standardised features.

    Args:
        train: Frozen features and labels.
        schema: Names task and classes.
        groups: Group of each training record; the number of neighbours is chosen by cross-validation over them.
        neighbours: Numbers to choose from, by macro-F1.

    Raises:
        TransferError: If there is no training label.
    """

    def fit(features: _Array, target: _Array, codes: _Array, num_classes: int) -> tuple[_Score, str]:
        best, how = _choose(list(neighbours), features, target, codes, num_classes, _fit_neighbours)
        return _fit_neighbours(features, target, num_classes, best), f"k={best} {how}"

    return _baseline("knn", train, schema, groups, fit)


def linear_probe_baseline(
    train: Outputs,
    schema: Schema,
    *,
    groups: Sequence[Hashable] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    name: str = "linear_probe",
) -> Baseline:
    """Return a logistic regression on standardised features.

    Args:
        train: Features, frozen or plain, and labels.
        schema: Names task and classes.
        groups: Group of each training record; the penalty, and whether classes weigh equally, are chosen by
            cross-validation over them.
        strengths: Values of scikit-learn's ``C`` to choose from, by macro-F1.
        name: Of the baseline.

    Raises:
        TransferError: If there is no training label.
    """
    options = [(strength, balanced) for balanced in (False, True) for strength in strengths]

    def fit(features: _Array, target: _Array, codes: _Array, num_classes: int) -> tuple[_Score, str]:
        best, how = _choose(options, features, target, codes, num_classes, _fit_logistic)
        chosen = f"C={best[0]:g}, {'equal class weights' if best[1] else 'classes as frequent as they are'} {how}"
        return _fit_logistic(features, target, num_classes, best), chosen

    return _baseline(name, train, schema, groups, fit)


def _baseline(
    name: str,
    train: Outputs,
    schema: Schema,
    groups: Sequence[Hashable] | None,
    fit: Callable[[_Array, _Array, _Array, int], tuple[_Score, str]],
) -> Baseline:
    """Fit on the labelled records, once for exclusive classes and once a class for multi-label."""
    # The logits of `train` play no part, and may have width 0.
    target = labels_of(train.with_logits(torch.zeros(len(train), schema.num_logits)), schema)
    features = train.features.double().numpy()
    codes = group_codes(range(len(train)) if groups is None else groups)
    if len(codes) != len(train):
        raise ValueError(f"Expected one group for each of {len(train)} training records, got {len(codes)}.")
    columns, width = (target.T, 2) if schema.task == "multilabel" else (target[None], schema.num_classes)
    scores, descriptions = [], []
    for place, column in enumerate(columns):
        known = ~np.isnan(column) & (column >= 0)
        if not known.any():
            what = f" for `{schema.classes[place]}`" if schema.task == "multilabel" else ""
            raise TransferError(f"None of the {len(train)} training records has a label{what}, so `{name}` cannot fit.")
        labels = column[known].astype(np.int64)
        if len(np.unique(labels)) < 2:
            score, description = _prior(labels, width), "one class in training"
        else:
            score, description = fit(features[known], labels, codes[known], width)
        scores.append(score)
        descriptions.append(description)
    if schema.task == "multiclass":
        return Baseline(name, descriptions[0], scores[0])

    def classify(new: _Array) -> _Array:
        return np.stack([log_probs[:, 1] - log_probs[:, 0] for log_probs in (score(new) for score in scores)], axis=1)

    return Baseline(name, "; ".join(dict.fromkeys(descriptions)), classify)


def _prior(target: _Array, num_classes: int) -> _Score:
    # Half a record more for each class, so that one that training lacks has a finite logarithm.
    counts = np.bincount(target, minlength=num_classes) + 0.5
    row = np.log(counts / counts.sum())
    return lambda features: np.tile(row, (len(features), 1))


def _fit_neighbours(features: _Array, target: _Array, num_classes: int, k: int) -> _Score:
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    index = NearestNeighbors(n_neighbors=min(k, len(features)), metric="cosine").fit(scaler.transform(features))
    one_hot = np.eye(num_classes)[target]
    prior = one_hot.mean(axis=0)

    def score(new: _Array) -> _Array:
        distances, places = index.kneighbors(scaler.transform(new))
        # Near ones count more, which also breaks ties; a share of a vote for the frequencies keeps logarithms finite.
        weights = np.maximum(2.0 - distances, 1e-6)
        votes = (one_hot[places] * weights[:, :, None]).sum(axis=1) + 0.1 * (prior + 1e-3)
        return np.asarray(np.log(votes / votes.sum(axis=1, keepdims=True)))

    return score


def _fit_logistic(features: _Array, target: _Array, num_classes: int, option: tuple[float, bool]) -> _Score:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strength, balanced = option
    probe = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, max_iter=1000)
    model = make_pipeline(StandardScaler(), probe)
    with warnings.catch_warnings():
        # A baseline a little short of its optimum is still one.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, target)
    present = model.classes_

    def score(new: _Array) -> _Array:
        log_probs = np.full((len(new), num_classes), np.log(1e-12))
        log_probs[:, present] = np.maximum(model.predict_log_proba(new), np.log(1e-12))
        return log_probs

    return score


def _choose(
    options: Sequence[Any],
    features: _Array,
    target: _Array,
    codes: _Array,
    num_classes: int,
    fit: Callable[[_Array, _Array, int, Any], _Score],
    num_folds: int = 3,
) -> tuple[Any, str]:
    """Return the option of highest macro-F1 over the out-of-fold predictions, and how it was chosen."""
    from sklearn.model_selection import StratifiedGroupKFold

    num_groups = len(np.unique(codes))
    if len(options) == 1 or num_groups < 2:
        return options[len(options) // 2], f"(not tuned: {num_groups} training groups)"
    folds = min(num_folds, num_groups)
    with warnings.catch_warnings():
        # Classes with fewer records than folds are said nowhere else to be a problem.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(features, target, codes))
    results: dict[int, float] = {}
    for place, option in enumerate(options):
        preds = np.full(len(target), -1)
        for train, held in parts:
            score = (
                fit(features[train], target[train], num_classes, option)
                if len(np.unique(target[train])) > 1
                else _prior(target[train], num_classes)
            )
            preds[held] = score(features[held]).argmax(axis=1)
        results[place] = float(macro_f1(class_counts(np.ones((1, len(target))), preds, target, num_classes))[0])
    best = max(results, key=lambda place: results[place])
    return options[best], f"(by macro-F1 of {folds}-fold cross-validation over {num_groups} training groups)"
