"""What was found of each finding, frozen: tables, reports and ``metrics.json`` are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning_transfer.evaluation.clinical_points import FindingPoint
from lightning_transfer.evaluation.curves import Reliability
from lightning_transfer.metrics import Interval

__all__ = ["AppliedPoint", "ClinicalResult", "FindingResult"]


@dataclass(frozen=True)
class AppliedPoint:
    """What a threshold that was fixed on the calibration split does on the records that were evaluated.

    Attributes:
        point: As it was fixed.
        metrics: ``sensitivity``, ``specificity``, ``ppv`` and ``npv`` on these records, and, where a prevalence is
            stated, ``ppv_at_prevalence`` and ``npv_at_prevalence``.
    """

    point: FindingPoint
    metrics: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        numbers = {name: item.to_dict() for name, item in self.metrics.items()}
        return {**asdict(self.point), "probability": self.point.probability, "metrics": numbers}


@dataclass(frozen=True)
class FindingResult:
    """One finding on one split.

    Attributes:
        name: Of the finding.
        num_positive: Records that have it.
        num_negative: Records known not to have it.
        num_positive_groups: Patients with such a record.
        prevalence: As stated; None where none is.
        metrics: ``auroc``, ``average_precision``, and ``brier``, ``ece`` after temperature and before it.
        points: Specificities first.
        reliability: Probability of the finding against how often it was there.
    """

    name: str
    num_positive: int
    num_negative: int
    num_positive_groups: int
    prevalence: float | None
    metrics: Mapping[str, Interval]
    points: tuple[AppliedPoint, ...] = ()
    reliability: Reliability | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name,
            "num_positive": self.num_positive,
            "num_negative": self.num_negative,
            "num_positive_groups": self.num_positive_groups,
            "prevalence": self.prevalence,
            "metrics": {name: item.to_dict() for name, item in self.metrics.items()},
            "points": [point.to_dict() for point in self.points],
            "reliability": None if self.reliability is None else self.reliability.to_dict(),
        }


@dataclass(frozen=True)
class ClinicalResult:
    """All findings on one split.

    Attributes:
        findings: In the order of the classes.
        n: Labelled records.
        num_groups: Patients among them.
        note: How to read the numbers; empty if there is nothing to say.
    """

    findings: tuple[FindingResult, ...]
    n: int
    num_groups: int
    note: str = ""

    def flat(self) -> dict[str, Interval]:
        """Return the metrics by names such as ``auroc_Edema`` and ``sensitivity_at_specificity_0.9_Edema``.

        The second is the sensitivity here at the threshold that had the specificity 0.9 on the calibration split;
        ``specificity_at_specificity_0.9_Edema`` is the specificity that it has here.
        """
        found: dict[str, Interval] = {}
        for finding in self.findings:
            found |= {f"{name}_{finding.name}": item for name, item in finding.metrics.items()}
            for applied in finding.points:
                found |= {
                    f"{name}_at_{applied.point.key}_{finding.name}": item for name, item in applied.metrics.items()
                }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``clinical`` of ``evaluation.json`` holds them."""
        findings = [finding.to_dict() for finding in self.findings]
        return {"findings": findings, "n": self.n, "num_groups": self.num_groups, "note": self.note}
