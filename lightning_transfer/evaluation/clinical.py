"""What a reviewer of a medical model asks for: each finding's ranking, operating points and calibration, by patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError, closest, listing
from lightning_transfer.evaluation.clinical_points import ClinicalPoints, FindingPoint
from lightning_transfer.evaluation.clinical_result import AppliedPoint, ClinicalResult, FindingResult
from lightning_transfer.evaluation.curves import Reliability, reliability_bins
from lightning_transfer.evaluation.finding_scores import FindingScores, finding_names, finding_scores
from lightning_transfer.evaluation.judges import NO_ECE_INTERVAL, open_end
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import labels_of
from lightning_transfer.metrics import Interval, Resamples
from lightning_transfer.types import Record, Schema

__all__ = ["measure_clinical", "prevalences", "value_at_prevalence"]

_Float = NDArray[np.float64]
_Bool = NDArray[np.bool_]
_NUM_BINS = 15


def prevalences(stated: Mapping[str, float] | float | None, findings: Sequence[str]) -> dict[str, float]:
    """Return the stated prevalence of each finding that has one.

    Args:
        stated: One number for all, or finding -> number; None states nothing.
        findings: Their names.

    Raises:
        ValueError: If a finding is unknown, or a number is outside of ``(0, 1)``.

    Example:
        >>> prevalences(0.1, ["Edema"]), prevalences({"Edema": 0.02}, ["Edema", "Hernia"])
        ({'Edema': 0.1}, {'Edema': 0.02})
    """
    if stated is None:
        return {}
    table = dict(stated) if isinstance(stated, Mapping) else dict.fromkeys(findings, stated)
    for name, value in table.items():
        if name not in findings:
            raise ValueError(
                f"`prevalence` names `{name}`, which is no finding.{closest(name, findings)} Findings: "
                f"{listing(findings, 20)}."
            )
        if not 0.0 < value < 1.0:
            raise ValueError(f"Expected a prevalence in (0, 1), got {value} for `{name}`. 0.05 is one in twenty.")
    return {name: float(table[name]) for name in findings if name in table}


def value_at_prevalence(sensitivity: _Float, specificity: _Float, prevalence: float) -> tuple[_Float, _Float]:
    """Return the positive and negative predictive values where a share ``prevalence`` has the finding (Bayes).

    Those of the test split are right only where a finding is as frequent as there, and test splits are often enriched.

    Args:
        sensitivity: ``(B,)``.
        specificity: ``(B,)``.
        prevalence: In ``(0, 1)``.

    Returns:
        Two arrays ``(B,)``; NaN where nothing is called, or everything.

    Example:
        >>> ppv, npv = value_at_prevalence(np.array([0.9]), np.array([0.9]), 0.01)
        >>> ppv.round(3).tolist(), npv.round(4).tolist()
        ([0.083], [0.9989])
    """
    hit, false_alarm = sensitivity * prevalence, (1.0 - specificity) * (1.0 - prevalence)
    missed, cleared = (1.0 - sensitivity) * prevalence, specificity * (1.0 - prevalence)
    return _ratio(hit, hit + false_alarm), _ratio(cleared, cleared + missed)


def measure_clinical(
    outputs: Outputs,
    records: Sequence[Record],
    schema: Schema,
    temperature: float,
    points: ClinicalPoints | None = None,
    *,
    prevalence: Mapping[str, float] | float | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    on_chunk: Callable[[int], object] | None = None,
) -> ClinicalResult:
    """Return the numbers of each finding, with intervals by bootstrap over the records' groups, which are patients.

    Of every finding only the records with a known label count. The Brier score is that of the finding's probability,
    ``(p - y)^2``, and the calibration error compares the probability with how often the finding was there. What is
    undefined has no value and a reason: a finding that no record has, a threshold that calibration did not give.

    Args:
        outputs: What the model said, of one split.
        records: All records of that split; ``outputs.index`` points into them.
        schema: Task and classes.
        temperature: Of the calibration.
        points: Of `fit_clinical_points`; None leaves the operating points out.
        prevalence: As `prevalences`.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
        on_chunk: Called with the number of draws just done.

    Raises:
        TransferError: If no record has a label, or the points are of other findings.
        ValueError: If the prevalence cannot be used.
    """
    names = finding_names(schema)
    stated = prevalences(prevalence, names)
    strange = {point.finding for point in points.points} - set(names) if points is not None else set()
    if strange:
        raise TransferError(
            f"The operating points are of {listing(sorted(strange))}, and the findings are {listing(names, 20)}. Use "
            "the checkpoint that they were fitted with."
        )
    target = labels_of(outputs, schema)
    labelled = ~np.isnan(target).all(axis=1) if schema.task == "multilabel" else target >= 0
    if not labelled.any():
        raise TransferError(f"None of the {len(outputs)} records has a label, so there is nothing to compare with.")
    logits = outputs.logits.double().numpy()[labelled]
    after, before = (finding_scores(logits, target[labelled], schema, item) for item in (temperature, 1.0))
    groups = [records[place].group for place in outputs.index[labelled].tolist()]
    columns = [
        _Column(after, before, place, () if points is None else points.of(name), stated.get(name))
        for place, name in enumerate(names)
    ]

    def statistic(weights: _Float) -> dict[str, _Float]:
        return {
            f"{place} {name}": values
            for place, column in enumerate(columns)
            for name, values in column.statistic(weights[:, column.known]).items()
        }

    drawn = metrics.resample(statistic, groups, n_resamples=n_resamples, seed=seed, on_chunk=on_chunk)
    findings = tuple(column.result(drawn, place, confidence) for place, column in enumerate(columns))
    single = all(group is None for group in groups)
    return ClinicalResult(
        findings,
        n=int(labelled.sum()),
        num_groups=int(drawn.codes.max()) + 1,
        note="The data name no patients: each record counts as one, and intervals are too narrow if it is not."
        if single
        else "",
    )


@dataclass
class _Column:
    """One finding: what is known of it, and its metrics as functions of the records' weights."""

    scores: FindingScores
    scores_before: FindingScores  # temperature
    place: int
    points: tuple[FindingPoint, ...]
    prevalence: float | None
    known: _Bool = field(init=False)
    log_odds: _Float = field(init=False)
    positive: _Bool = field(init=False)

    def __post_init__(self) -> None:
        self.known, self.log_odds, self.positive = self.scores.column(self.place)
        self.after = _sigmoid(self.log_odds)
        self.before = _sigmoid(self.scores_before.column(self.place)[1])

    @property
    def name(self) -> str:
        return self.scores.names[self.place]

    def statistic(self, weights: _Float) -> dict[str, _Float]:
        """Return the metrics for weights of the known records ``(B, K)``."""
        found = {
            "auroc": metrics.auroc(weights, self.log_odds, self.positive),
            "average_precision": metrics.average_precision(weights, self.log_odds, self.positive),
        }
        for ending, probs in (("", self.after), ("_before_temperature", self.before)):
            found[f"brier{ending}"] = metrics.weighted_mean(weights, (probs - self.positive) ** 2)
            found[f"ece{ending}"] = metrics.calibration_error(weights, probs, self.positive, _NUM_BINS)
        sick, well = weights @ self.positive, weights @ ~self.positive
        for point in self.points:
            if point.log_odds is None:
                continue
            called = self.log_odds >= point.log_odds
            hits, alarms = weights @ (called & self.positive), weights @ (called & ~self.positive)
            sensitivity, specificity = _ratio(hits, sick), 1.0 - _ratio(alarms, well)
            values = {
                "sensitivity": sensitivity,
                "specificity": specificity,
                "ppv": _ratio(hits, hits + alarms),
                "npv": _ratio(well - alarms, (well - alarms) + (sick - hits)),
            }
            if self.prevalence is not None:
                both = value_at_prevalence(sensitivity, specificity, self.prevalence)
                values |= dict(zip(("ppv_at_prevalence", "npv_at_prevalence"), both, strict=True))
            found |= {f"{name} {point.key}": value for name, value in values.items()}
        return found

    def result(self, drawn: Resamples, place: int, confidence: float) -> FindingResult:
        """Return the finding's numbers from the draws of all."""

        def interval(name: str, about: _Bool, reason: str) -> Interval:
            mask = np.zeros(len(self.known), dtype=bool)
            mask[np.flatnonzero(self.known)[about]] = True
            return drawn.interval(f"{place} {name}", mask=mask, confidence=confidence, reason=reason)

        everything = np.ones(len(self.positive), dtype=bool)
        no_positive, no_negative = f"no record with `{self.name}`", f"no record without `{self.name}`"
        one_side = no_positive if not self.positive.any() else no_negative
        no_label = f"no record has a label of `{self.name}`"
        found = {
            name: interval(name, everything, one_side if len(everything) else no_label)
            for name in ("auroc", "average_precision")
        }
        for name in ("brier", "ece", "brier_before_temperature", "ece_before_temperature"):
            item = interval(name, everything, no_label)
            if name.startswith("ece") and item.value is not None:
                item = replace(item, low=None, high=None, reason=NO_ECE_INTERVAL)
            found[name] = item
        points = [self._applied(point, interval, no_positive, no_negative, confidence) for point in self.points]
        codes = drawn.codes[self.known]
        return FindingResult(
            name=self.name,
            num_positive=int(self.positive.sum()),
            num_negative=int((~self.positive).sum()),
            num_positive_groups=len(np.unique(codes[self.positive])),
            prevalence=self.prevalence,
            metrics=found,
            points=tuple(points),
            reliability=self._reliability(),
        )

    def _applied(
        self,
        point: FindingPoint,
        interval: Callable[[str, _Bool, str], Interval],
        no_positive: str,
        no_negative: str,
        confidence: float,
    ) -> AppliedPoint:
        """Return what one point does here, with the reasons of what is undefined."""
        names = ["sensitivity", "specificity", "ppv", "npv"]
        if self.prevalence is not None:
            names += ["ppv_at_prevalence", "npv_at_prevalence"]
        if point.log_odds is None:
            missing = Interval(None, None, None, len(self.positive), reason=f"no threshold: {point.reason}")
            return AppliedPoint(point, dict.fromkeys(names, missing))
        called = self.log_odds >= point.log_odds
        about = {"sensitivity": self.positive, "specificity": ~self.positive, "ppv": called, "npv": ~called}
        one_side = no_positive if not self.positive.any() else no_negative
        reasons = {
            "sensitivity": no_positive,
            "specificity": no_negative,
            "ppv": "the threshold calls no record",
            "npv": "the threshold calls every record",
        }
        everything, found = np.ones(len(called), dtype=bool), {}
        for name in names:
            reason = reasons.get(name, one_side if self.positive.all() or not self.positive.any() else "nothing called")
            item = interval(f"{name} {point.key}", about.get(name, everything), reason)
            found[name] = open_end(item, confidence) if name in about else item
        for place, name in enumerate(names[4:]):
            found[name] = self._opened(found[name], found["sensitivity"], found["specificity"], place)
        return AppliedPoint(point, found)

    def _opened(self, item: Interval, sensitivity: Interval, specificity: Interval, place: int) -> Interval:
        """Give a value its open end where sensitivity or specificity is 0 or 1 in every draw."""
        ends = [(sensitivity.low, specificity.low), (sensitivity.high, specificity.high)]
        if item.low is None or item.low != item.high or self.prevalence is None or None in (*ends[0], *ends[1]):
            return item
        # Both values rise with both shares, so the corners are the ends.
        low, high = (
            float(value_at_prevalence(np.array([se]), np.array([sp]), self.prevalence)[place][0]) for se, sp in ends
        )
        return replace(item, low=low, high=high) if np.isfinite([low, high]).all() else item

    def _reliability(self) -> Reliability | None:
        """Return the bins of the finding's probability, before and after temperature."""
        if not len(self.positive):
            return None
        ones = np.ones((1, len(self.positive)))
        errors = [
            float(metrics.calibration_error(ones, probs, self.positive, _NUM_BINS)[0])
            for probs in (self.before, self.after)
        ]
        briers = [float(((probs - self.positive) ** 2).mean()) for probs in (self.before, self.after)]
        return Reliability(
            before=reliability_bins(self.before, self.positive, _NUM_BINS),
            after=reliability_bins(self.after, self.positive, _NUM_BINS),
            ece_before=errors[0],
            ece_after=errors[1],
            brier_before=briers[0],
            brier_after=briers[1],
        )


def _sigmoid(log_odds: _Float) -> _Float:
    return np.asarray(np.exp(-np.logaddexp(0.0, -log_odds)))


def _ratio(above: _Float, below: _Float) -> _Float:
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0))
