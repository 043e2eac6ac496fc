"""What a routing policy does to the test split: shares, precision, out-of-scope detection, costs, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.judges import Judge, intervals
from lightning_transfer.evaluation.neighbours import TrainingExamples
from lightning_transfer.evaluation.routing_decide import (
    ASKED,
    OUT_OF_SCOPE,
    ROUTED,
    Choices,
    choose,
    out_of_scope_scores,
)
from lightning_transfer.evaluation.routing_policy import SCORES, RoutingPolicy
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import labels_of
from lightning_transfer.metrics import Interval
from lightning_transfer.metrics.routing_costs import cost_matrix
from lightning_transfer.types import Record, Schema

__all__ = ["RoutingResult", "measure_routing"]

_Float = NDArray[np.float64]
_MOST_POINTS = 200


@dataclass(frozen=True)
class RoutingResult:
    """How a policy routed one split.

    Attributes:
        policy: As it was applied.
        n: Tickets in scope.
        n_out_of_scope: Tickets out of scope.
        metrics: Name -> value with interval, as ``metrics.json`` holds them.
        risk_coverage: Coverage, risk and threshold for tickets in scope alone; at most 200 points.
        coverage_at_precision: Precision -> share of the tickets in scope that the threshold fitted for it decides,
            without any look at out-of-scope scores; None where calibration proved none.
        precision_reached: Precision asked for -> precision that this threshold reached here.
        decisions: Decision -> tickets, in scope or not.
        reasons: Reason in short -> tickets.
    """

    policy: RoutingPolicy
    n: int
    n_out_of_scope: int
    metrics: Mapping[str, Interval]
    risk_coverage: tuple[Mapping[str, float], ...] = ()
    coverage_at_precision: Mapping[str, float | None] = field(default_factory=dict)
    precision_reached: Mapping[str, float | None] = field(default_factory=dict)
    decisions: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``routing`` of ``evaluation.json`` holds them."""

        def plain(name: str) -> dict[str, Any] | None:
            return self.metrics[name].to_dict() if name in self.metrics else None

        scores = {
            name: {
                "auroc": plain(f"out_of_scope_auroc_{name}"),
                "fpr95": plain(f"out_of_scope_fpr95_{name}"),
                "chosen": name == self.policy.out_of_scope_score,
            }
            for name in SCORES
            if f"out_of_scope_auroc_{name}" in self.metrics
        }
        outside = {
            "scores": scores,
            "recall": plain("out_of_scope_recall"),
            "called": plain("out_of_scope_called"),
            "in_scope_accuracy": plain("in_scope_accuracy"),
            "in_scope_lost": plain("in_scope_lost"),
        }
        return {
            "policy": self.policy.to_dict(),
            "n": self.n,
            "n_out_of_scope": self.n_out_of_scope,
            "coverage_at_target": plain("routing_coverage"),
            "precision_of_routed": plain("routing_precision"),
            "in_scope": {
                "coverage_at_target": plain("routing_coverage_in_scope"),
                "precision_of_routed": plain("routing_precision_in_scope"),
                "lost": plain("in_scope_lost"),
            },
            "aurc": plain("routing_aurc"),
            "risk_coverage": [dict(point) for point in self.risk_coverage],
            "coverage_at_precision": dict(self.coverage_at_precision),
            "precision_reached": dict(self.precision_reached),
            "out_of_scope": outside if self.n_out_of_scope else None,
            "decisions": dict(self.decisions),
            "mean_cost": plain("routing_mean_cost"),
            "reasons": dict(self.reasons),
        }


def measure_routing(
    outputs: Outputs,
    records: Sequence[Record],
    schema: Schema,
    temperature: float,
    policy: RoutingPolicy,
    *,
    foreign: Outputs | None = None,
    foreign_records: Sequence[Record] = (),
    examples: TrainingExamples | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    on_chunk: Callable[[int], object] | None = None,
) -> RoutingResult:
    """Return what the policy does, with intervals by bootstrap over the records' groups.

    Of all tickets: ``routing_coverage`` is the share that is routed, ``routing_precision`` the share of these that
    reach their queue; a routed out-of-scope ticket does not. ``..._in_scope`` leave out-of-scope tickets out.
    Of the tickets in scope: ``routing_aurc`` judges the confidence alone; ``in_scope_lost`` are called out of scope;
    ``in_scope_accuracy`` counts those as wrong (Larson et al. 2019); ``routing_mean_cost`` takes a called out-of-scope
    one for asked. Of the others: ``out_of_scope_recall`` are not routed, ``out_of_scope_called`` are recognised;
    ``out_of_scope_auroc_<score>`` and ``out_of_scope_fpr95_<score>`` judge each score whatever its threshold.

    Args:
        outputs: Of the tickets in scope.
        records: All of that split; ``outputs.index`` points into them.
        schema: Names the queues.
        temperature: Fitted on calibration.
        policy: Of the checkpoint.
        foreign: Outputs for the split's out-of-scope tickets; None where there are none.
        foreign_records: Of these.
        examples: Of the checkpoint.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
        on_chunk: Called with the number of resamples just done.

    Raises:
        TransferError: If no ticket in scope has a label, or logits are not finite.
    """
    truth = labels_of(outputs, schema)
    known = truth >= 0
    if not known.any():
        raise TransferError(f"None of the {len(outputs)} tickets has a label, so routing cannot be judged.")
    parts = [outputs.only(outputs.index[known].tolist())] + ([] if foreign is None or not len(foreign) else [foreign])
    owners = (records, foreign_records)
    groups = [owners[which][place].group for which, part in enumerate(parts) for place in part.index.tolist()]
    logits, features = (
        np.concatenate([getattr(part, name).double().numpy() for part in parts]) for name in ("logits", "features")
    )
    if not np.isfinite(logits).all():
        raise TransferError("Some logits are not finite. Training has diverged: lower the learning rate.")
    inside = np.arange(len(logits)) < int(known.sum())
    target = np.append(truth[known], np.full(int((~inside).sum()), -1))
    names = SCORES if not inside.all() else (policy.out_of_scope_score,)
    found = out_of_scope_scores(names, logits, features, examples)
    scores = {name: np.nan_to_num(values, nan=2.0) for name, values in found.items()}
    blank = np.zeros(len(logits))
    made = choose(logits, scores.get(policy.out_of_scope_score, blank), schema.classes, temperature, policy)
    judge = _judge(made, scores if not inside.all() else {}, logits, target, inside, schema, policy)
    drawn = metrics.resample(judge.statistic, groups, n_resamples=n_resamples, seed=seed, on_chunk=on_chunk)
    right, sure = (logits.argmax(axis=1) == target)[inside], made.probabilities.max(axis=1)[inside]
    decided = {key: None if cut is None else sure >= cut for key, cut in policy.in_scope_thresholds.items()}
    counts = Counter(made.decisions())
    return RoutingResult(
        policy=policy,
        n=int(inside.sum()),
        n_out_of_scope=int((~inside).sum()),
        metrics=intervals(drawn, judge, confidence),
        risk_coverage=_curve(sure, right),
        coverage_at_precision={key: None if mask is None else float(mask.mean()) for key, mask in decided.items()},
        precision_reached={
            key: None if mask is None or not mask.any() else float(right[mask].mean()) for key, mask in decided.items()
        },
        decisions={name: counts[name] for name in (ROUTED, ASKED, OUT_OF_SCOPE)},
        reasons=dict(Counter(made.causes()).most_common()),
    )


def _judge(
    made: Choices,
    scores: Mapping[str, _Float],
    logits: _Float,
    target: NDArray[Any],
    inside: NDArray[np.bool_],
    schema: Schema,
    policy: RoutingPolicy,
) -> Judge:
    """Return the metrics as one joint statistic of all tickets' weights."""
    routed, called = made.routed, made.foreign
    right = made.queue == target
    best = logits.argmax(axis=1) == target
    # Metric -> (what is counted, the tickets that it is about, why it may be undefined)
    shares: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_], str]] = {
        "routing_coverage": (routed, np.ones(len(routed), dtype=bool), ""),
        "routing_precision": (right, routed, "no ticket is routed"),
        "routing_coverage_in_scope": (routed, inside, ""),
        "routing_precision_in_scope": (right, routed & inside, "no ticket in scope is routed"),
        "in_scope_accuracy": (best & ~called, inside, ""),
        "in_scope_lost": (called, inside, ""),
    }
    if not inside.all():
        shares["out_of_scope_recall"] = (~routed, ~inside, "")
        shares["out_of_scope_called"] = (called, ~inside, "")
    masks = {name: mask for name, (_, mask, _) in shares.items()} | {"routing_aurc": inside}
    sure = made.probabilities.max(axis=1)[inside]
    cost: _Float | None = None
    if policy.costs:
        matrix, ask = cost_matrix(policy.costs, schema.classes)
        cost = np.where(routed, matrix[target, made.queue], ask)
        masks["routing_mean_cost"] = inside

    def statistic(weights: _Float) -> dict[str, _Float]:
        table = {
            name: metrics.weighted_mean(weights * mask, counted.astype(np.float64))
            for name, (counted, mask, _) in shares.items()
        }
        table["routing_aurc"] = metrics.aurc(weights[:, inside], sure, best[inside])
        for name, values in scores.items():
            table[f"out_of_scope_auroc_{name}"] = metrics.auroc(weights, values, ~inside)
            table[f"out_of_scope_fpr95_{name}"] = metrics.foreign_accepted_at_recall(weights, values, ~inside)
        if cost is not None:
            table["routing_mean_cost"] = metrics.weighted_mean(weights * inside, cost)
        return table

    reasons = {name: reason for name, (_, _, reason) in shares.items()}
    return Judge(statistic, masks, reasons, frozenset(shares))


def _curve(sure: _Float, right: NDArray[np.bool_]) -> tuple[Mapping[str, float], ...]:
    """Return the risk-coverage curve, thinned out evenly; both ends stay."""
    curve = metrics.risk_coverage(sure, right)
    kept = np.unique(
        np.linspace(0, len(curve.coverage) - 1, min(_MOST_POINTS, len(curve.coverage))).round().astype(int)
    )
    columns = (curve.coverage[kept].tolist(), curve.risk[kept].tolist(), curve.threshold[kept].tolist())
    return tuple(
        {"coverage": coverage, "risk": risk, "threshold": cut} for coverage, risk, cut in zip(*columns, strict=True)
    )
