"""Operating points of findings, fixed on the calibration split: thresholds for a stated specificity or sensitivity."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.evaluation.finding_scores import finding_scores
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import labels_of
from lightning_transfer.types import Schema

__all__ = ["AIMS", "CLINICAL_KEY", "ClinicalPoints", "FindingPoint", "check_aims", "fit_clinical_points"]

CLINICAL_KEY = "clinical"
"""Key of the points in a checkpoint."""

AIMS = (0.9, 0.95)
"""Specificities and sensitivities that get a threshold where none are stated."""

Aim = Literal["specificity", "sensitivity"]


@dataclass(frozen=True)
class FindingPoint:
    """A threshold of one finding that was chosen for a stated specificity or sensitivity.

    Attributes:
        finding: Its name.
        aim: What was stated.
        target: How much of it, at least.
        log_odds: A record with at least these log-odds after temperature is called positive; None without a threshold.
        sensitivity: Reached on the calibration split; None without positives there.
        specificity: Reached on the calibration split; None without negatives there.
        num_positive: Calibration records that have the finding.
        num_negative: Calibration records that do not.
        num_groups: Groups among the records that the threshold was chosen on (negatives, or positives).
        reason: Why there is no threshold; empty with one.
        note: What the data were too few for; empty if for nothing.
    """

    finding: str
    aim: Aim
    target: float
    log_odds: float | None
    sensitivity: float | None
    specificity: float | None
    num_positive: int
    num_negative: int
    num_groups: int
    reason: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """Name of the point in ``metrics.json``.

        Example:
            >>> FindingPoint("Edema", "specificity", 0.9, 1.0, 0.7, 0.9, 5, 20, 20).key
            'specificity_0.9'
        """
        return f"{self.aim}_{self.target:g}"

    @property
    def probability(self) -> float | None:
        """The threshold as a probability after temperature."""
        return None if self.log_odds is None else float(1.0 / (1.0 + np.exp(-np.clip(self.log_odds, -700.0, 700.0))))


@dataclass(frozen=True)
class ClinicalPoints:
    """The operating points of all findings, as a checkpoint keeps them.

    Attributes:
        points: Finding by finding.
        n: Calibration records with any label.
        num_groups: Groups (patients) among them.
    """

    points: tuple[FindingPoint, ...]
    n: int
    num_groups: int

    def of(self, finding: str) -> tuple[FindingPoint, ...]:
        """Return the points of one finding."""
        return tuple(point for point in self.points if point.finding == finding)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which load with ``weights_only=True``."""
        return {"points": [asdict(point) for point in self.points], "n": self.n, "num_groups": self.num_groups}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClinicalPoints:
        """Rebuild from `to_dict`."""
        return cls(tuple(FindingPoint(**point) for point in values["points"]), values["n"], values["num_groups"])


def check_aims(specificities: Sequence[float], sensitivities: Sequence[float]) -> None:
    """Refuse what is no share that can be aimed for.

    Raises:
        ValueError: With the value.
    """
    for name, values in (("specificities", specificities), ("sensitivities", sensitivities)):
        for value in values:
            if not 0.0 < value < 1.0:
                raise ValueError(f"Expected `{name}` in (0, 1), got {value}. 0.9 and 0.95 are usual.")


def fit_clinical_points(
    outputs: Outputs,
    schema: Schema,
    temperature: float,
    *,
    groups: Sequence[Hashable] | None = None,
    specificities: Sequence[float] = AIMS,
    sensitivities: Sequence[float] = AIMS,
) -> ClinicalPoints:
    """Choose the thresholds of each finding on the calibration split, once.

    For a specificity: the lowest threshold that calls at most the rest of the negatives. For a sensitivity: the highest
    that finds as many positives. A finding without negatives, or positives, there has no such threshold, and it is said
    why; one with too few has a threshold and a note.

    Args:
        outputs: Of the calibration split; never of test.
        schema: Task and classes.
        temperature: As it was fitted.
        groups: Patient of each record, in the order of ``outputs``; None makes each its own.
        specificities: To aim for, in ``(0, 1)``.
        sensitivities: To aim for, in ``(0, 1)``.

    Raises:
        TransferError: If there are no labels, or they do not fit.
        ValueError: If an aim is out of range, or ``groups`` has another length.

    Example:
        >>> import torch
        >>> logits = torch.linspace(-2, 2, 20)[:, None]
        >>> outputs = Outputs(logits, logits, (torch.arange(20) >= 10).float(), torch.arange(20))
        >>> schema = Schema(task="binary", classes=("none", "covid"))
        >>> points = fit_clinical_points(outputs, schema, 1.0, specificities=[0.9], sensitivities=[0.9]).points
        >>> [(point.key, point.sensitivity, point.specificity) for point in points]
        [('specificity_0.9', 1.0, 0.9), ('sensitivity_0.9', 0.9, 1.0)]
    """
    check_aims(specificities, sensitivities)
    if groups is not None and len(groups) != len(outputs):
        raise ValueError(f"Expected a group for each of {len(outputs)} calibration records, got {len(groups)}.")
    codes = metrics.group_codes(range(len(outputs)) if groups is None else groups)
    found = finding_scores(outputs.logits.double().numpy(), labels_of(outputs, schema), schema, temperature)
    points = []
    for place, name in enumerate(found.names):
        known, log_odds, positive = found.column(place)
        for aim, targets in (("specificity", specificities), ("sensitivity", sensitivities)):
            points += [_point(name, aim, target, log_odds, positive, codes[known]) for target in targets]  # type: ignore[arg-type] # of two words
    labelled = ~np.isnan(found.truth).all(axis=1)
    return ClinicalPoints(tuple(points), int(labelled.sum()), len(np.unique(codes[labelled])))


def _point(
    name: str,
    aim: Aim,
    target: float,
    log_odds: NDArray[np.float64],
    positive: NDArray[np.bool_],
    codes: NDArray[np.int64],
) -> FindingPoint:
    chosen = ~positive if aim == "specificity" else positive
    counts = int(positive.sum()), int((~positive).sum()), len(np.unique(codes[chosen]))
    what = "without" if aim == "specificity" else "with"
    if not chosen.any():
        reason = f"none of the {len(positive)} calibration records with a label is {what} `{name}`"
        return FindingPoint(name, aim, target, None, None, None, *counts, reason=reason)
    if aim == "specificity":
        cut = metrics.threshold_at_false_positive_rate(log_odds, positive, 1.0 - target)
    else:
        cut = metrics.threshold_at_recall(log_odds, positive, target)
    needed, note = metrics.negatives_needed(1.0 - target), ""
    if counts[2] < needed:
        note = f"a {aim} of {target:g} needs {needed} or more patients {what} `{name}`, and calibration has {counts[2]}"
    specificity = None if cut.false_positive_rate is None else 1.0 - cut.false_positive_rate
    return FindingPoint(name, aim, target, cut.value, cut.recall, specificity, *counts, note=note)
