"""One column a finding: how strongly the model speaks for it, and whether it is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.types import Schema

__all__ = ["FindingScores", "finding_names", "finding_scores"]

_Float = NDArray[np.float64]


@dataclass(frozen=True)
class FindingScores:
    """What a model says of each finding, for records with labels.

    Attributes:
        names: Of the findings, ``F`` of them.
        log_odds: After temperature ``(N, F)``; in float64 they tell apart what rounds to the same probability.
        truth: 1, 0 or NaN for unknown ``(N, F)``.
    """

    names: tuple[str, ...]
    log_odds: _Float
    truth: _Float

    def column(self, place: int) -> tuple[NDArray[np.bool_], _Float, NDArray[np.bool_]]:
        """Return of one finding which records are known ``(N,)``, and of these log-odds and whether they have it."""
        known = ~np.isnan(self.truth[:, place])
        return known, self.log_odds[known, place], self.truth[known, place] == 1.0


def finding_names(schema: Schema) -> tuple[str, ...]:
    """Return the findings: every label, the positive class of two, or all classes but the negative one.

    Example:
        >>> finding_names(Schema(task="binary", classes=("none", "covid")))
        ('covid',)
    """
    if schema.task == "binary":
        return schema.classes[1:]
    if schema.task == "multilabel":
        return schema.classes
    return tuple(name for name in schema.classes if name != schema.negative_class)


def finding_scores(logits: NDArray[Any], target: NDArray[Any], schema: Schema, temperature: float) -> FindingScores:
    """Return the log-odds of each finding against everything else, and the labels.

    Args:
        logits: ``(N, num_logits)``, before temperature.
        target: As `labels_of` returns it: class indices ``(N,)`` with -1 for missing; multi-label ``(N, C)`` with NaN.
        schema: Task and classes.
        temperature: Divides the logits.

    Example:
        >>> schema = Schema(task="multiclass", classes=("none", "a", "b"), negative_class="none")
        >>> found = finding_scores(np.array([[0.0, 0.0, 0.0]]), np.array([2]), schema, 1.0)
        >>> found.names, found.log_odds.round(3).tolist(), found.truth.tolist()
        (('a', 'b'), [[-0.693, -0.693]], [[0.0, 1.0]])
    """
    names = finding_names(schema)
    wide = np.asarray(logits, dtype=np.float64)
    if schema.task == "multilabel":
        return FindingScores(names, wide / temperature, np.asarray(target, dtype=np.float64))
    classes = np.asarray(target)
    places = [schema.classes.index(name) for name in names]
    truth = np.where(classes[:, None] < 0, np.nan, classes[:, None] == np.array(places)).astype(np.float64)
    if schema.task == "binary":
        return FindingScores(names, wide.reshape(-1, 1) / temperature, truth)
    return FindingScores(names, _against_rest(wide, places, temperature), truth)


def _against_rest(logits: _Float, places: Sequence[int], temperature: float) -> _Float:
    log_probs = metrics.log_probabilities(logits, "multiclass", temperature)
    rest = (np.logaddexp.reduce(np.delete(log_probs, place, axis=1), axis=1) for place in places)
    columns = [log_probs[:, place] - others for place, others in zip(places, rest, strict=True)]
    return np.stack(columns, axis=1)
