"""Fit the routing policy on the calibration split, once, after the temperature."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.errors import TransferError, listing
from lightning_transfer.evaluation.neighbours import TrainingExamples
from lightning_transfer.evaluation.routing_decide import choose, out_of_scope_scores
from lightning_transfer.evaluation.routing_policy import SCORES, RoutingPolicy
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import labels_of
from lightning_transfer.metrics import (
    PrecisionThreshold,
    auroc,
    fit_precision_threshold,
    probabilities,
    threshold_at_false_positive_rate,
)
from lightning_transfer.metrics.routing_costs import check_costs
from lightning_transfer.types import Schema

__all__ = ["MAX_IN_SCOPE_LOST", "TARGET_PRECISIONS", "fit_routing"]

MAX_IN_SCOPE_LOST = 0.05
"""Largest share of the calibration tickets in scope that are called out of scope."""

TARGET_PRECISIONS = (0.9, 0.95, 0.99)
"""Precisions that get a threshold beside the stated one, so that a team can change its mind without a fit."""

_Array = NDArray[Any]


def fit_routing(
    outputs: Outputs,
    schema: Schema,
    temperature: float,
    *,
    groups: Sequence[Hashable] | None = None,
    foreign: Outputs | None = None,
    foreign_groups: Sequence[Hashable] | None = None,
    counted: Sequence[bool] | None = None,
    examples: TrainingExamples | None = None,
    target_precision: float = 0.95,
    min_margin: float = 0.0,
    costs: Mapping[str, Any] | None = None,
    score: str = "auto",
) -> RoutingPolicy:
    """Return when to route, when to ask, and what is out of scope.

    First the out-of-scope score: the one of the highest AUROC between the calibration tickets in scope and those that
    are not. Its threshold is the lowest at which at most 5% of the tickets in scope are called foreign. Then, on what
    remains, the threshold of the confidence by `fit_precision_threshold`: it proves the precision among all that is
    routed, in which a routed out-of-scope ticket is wrong.

    Without out-of-scope tickets nothing tells the scores apart: ``max_logit`` is taken, and ``rule`` says so.

    Args:
        outputs: Of the calibration split, in scope; never of test.
        schema: Of a multi-class task.
        temperature: Fitted on the same split.
        groups: Group of each record, in the order of ``outputs``.
        foreign: Outputs for out-of-scope tickets, of any split but test: nothing is trained on them.
        foreign_groups: Group of each of these.
        counted: Which of these belong to the calibration split, so that they count in the precision as often as they
            come; None: all.
        examples: Training examples; without them ``knn`` is no candidate.
        target_precision: In ``(0, 1)``.
        min_margin: In ``[0, 1)``.
        costs: Of misroutes, as `check_costs` describes.
        score: One of `SCORES`, or ``auto``.

    Raises:
        TransferError: If the task is not multi-class, no record has a label, or ``knn`` is asked for without examples.
        ValueError: If an option is out of range, or the costs are wrong.
    """
    if schema.task != "multiclass":
        raise TransferError(f"Routing sends a ticket to one of several queues; this task is {schema.task}.")
    known = labels_of(outputs, schema) >= 0
    if not known.any():
        raise TransferError(
            f"None of the {len(outputs)} calibration records has a label, so no threshold can be fitted."
        )
    plain_costs = check_costs(costs, schema.classes) if costs else {}
    names = SCORES if score == "auto" else (score,)
    inside = _scores(outputs, names, examples)
    inside = {name: values[known] for name, values in inside.items()}
    outside = {} if foreign is None or not len(foreign) else _scores(foreign, names, examples)
    if not inside:
        raise TransferError(
            "The out-of-scope score `knn` needs training examples, and none are kept. Set "
            "`--evaluation.nearest_examples`, or another `--evaluation.out_of_scope_score`."
        )
    areas = {name: _auroc(inside[name], outside.get(name)) for name in inside}
    chosen, cut, about_scope = _out_of_scope(inside, outside, areas, score)
    policy = RoutingPolicy(
        target_precision=target_precision,
        threshold=0.0,
        min_margin=min_margin,
        out_of_scope_score=chosen,
        out_of_scope_threshold=cut,
        out_of_scope_auroc=areas,
        n=int(known.sum()),
        n_out_of_scope=0 if foreign is None else len(foreign),
    )
    # What comes in as it comes in: tickets in scope, and the foreign ones of the same split.
    target = labels_of(outputs, schema)[known]
    logits, codes = outputs.logits.double().numpy()[known], _pick(groups, known)
    stream = [(logits, inside[chosen], target, codes)]
    if outside and foreign is not None:
        taken = np.ones(len(foreign), dtype=bool) if counted is None else np.asarray(counted, dtype=bool)
        nowhere = np.full(int(taken.sum()), -1)
        stream.append(
            (foreign.logits.double().numpy()[taken], outside[chosen][taken], nowhere, _pick(foreign_groups, taken))
        )
    rows, scores, truth = (np.concatenate([part[place] for part in stream]) for place in range(3))
    made = choose(rows, scores, schema.classes, temperature, policy)
    remains = made.routed  # at a threshold of 0: all that is neither foreign nor too close
    owners = [group for part in stream for group in part[3]]
    targets = dict.fromkeys((float(target_precision), *TARGET_PRECISIONS))
    points = tuple(
        _point(made.confidence[remains], (made.queue == truth)[remains], item, _pick(owners, remains))
        for item in targets
    )
    sure = probabilities(logits, "multiclass", temperature).max(axis=1)
    right = logits.argmax(axis=1) == target
    alone = {f"{item:g}": _point(sure, right, item, codes).threshold for item in targets}
    about_costs = "the costs decide, not the threshold" if plain_costs else ""
    return replace(
        policy,
        threshold=points[0].threshold,
        costs=plain_costs,
        rule="; ".join(filter(None, (about_costs, points[0].rule, about_scope))),
        points=points,
        in_scope_thresholds=alone,
    )


def _scores(outputs: Outputs, names: Sequence[str], examples: TrainingExamples | None) -> dict[str, _Array]:
    logits, features = outputs.logits.double().numpy(), outputs.features.double().numpy()
    if not np.isfinite(logits).all():
        raise TransferError(f"Some logits of {len(outputs)} records are not finite. Lower the learning rate.")
    found = out_of_scope_scores(names, logits, features, examples)
    # Without a direction nothing is near: as far as the opposite.
    return {name: np.nan_to_num(values, nan=2.0) for name, values in found.items()}


def _auroc(inside: _Array, outside: _Array | None) -> float | None:
    if outside is None:
        return None
    scores = np.concatenate([inside, outside])
    return float(auroc(np.ones((1, len(scores))), scores, np.arange(len(scores)) >= len(inside))[0])


def _out_of_scope(
    inside: Mapping[str, _Array], outside: Mapping[str, _Array], areas: Mapping[str, float | None], score: str
) -> tuple[str, float | None, str]:
    """Return the score, its threshold, and in words how they were chosen."""
    if outside:
        chosen = max(inside, key=lambda name: areas[name] or 0.0)  # of equals the first, which is the cheapest
    else:
        chosen = next(iter(inside))
    if outside and (areas[chosen] or 0.0) <= 0.5:
        return chosen, None, f"no out-of-scope score tells anything: {_named(areas)}, so nothing is called out of scope"
    values = inside[chosen]
    cut = threshold_at_false_positive_rate(values, np.zeros(len(values), dtype=bool), MAX_IN_SCOPE_LOST)
    lost = float((values > cut.value).mean())
    at = f"out of scope above {cut.value:.4g} of `{chosen}`, as {lost:.3f} of {len(values)} tickets in scope are"
    if not outside:
        return chosen, cut.value, f"{at}; there are no out-of-scope tickets, so nobody knows how many it finds"
    n = len(outside[chosen])
    found = float((outside[chosen] > cut.value).mean())
    why = f"the best AUROC of {_named(areas)}" if score == "auto" else f"as asked for, AUROC {_named(areas)}"
    return chosen, cut.value, f"{at}, and {found:.3f} of {n} out of scope; {why}"


def _named(areas: Mapping[str, float | None]) -> str:
    return listing(f"`{name}` {area:.3f}" for name, area in areas.items() if area is not None)


def _point(confidence: _Array, right: _Array, target: float, groups: Sequence[Hashable]) -> PrecisionThreshold:
    if not len(confidence):
        rule = "no threshold: every calibration ticket is out of scope or too close"
        return PrecisionThreshold(target, None, None, None, 0.0, 0, 0, rule)
    return fit_precision_threshold(confidence, right, target, groups=groups)


def _pick(groups: Sequence[Hashable] | None, chosen: NDArray[np.bool_]) -> list[Hashable]:
    if groups is None:
        return [None] * int(chosen.sum())
    if len(groups) != len(chosen):
        raise ValueError(f"Expected a group for each of {len(chosen)} records, got {len(groups)}.")
    return [group for group, keep in zip(groups, chosen, strict=True) if keep]
