"""The section on routing: how many tickets go their way by themselves, how right they are, what is out of scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_transfer.reporting.charts import Chart, Line, Mark, line_chart
from lightning_transfer.reporting.numbers import interval, percent_interval, usable
from lightning_transfer.reporting.scores import Scores

__all__ = ["routing_charts", "routing_lines", "routing_section", "routing_sentence"]

Section = dict[str, Any]

_SCORES = {
    "max_logit": "minus the largest logit",
    "energy": "energy",
    "knn": "distance to the training tickets",
}
_DECISIONS = {
    "route": "routed",
    "ask": "asked",
    "out of scope": "out of scope",
    "unreadable": "unreadable",
}


def routing_section(scores: Scores) -> Section:
    """Return what the routing policy does on the test split; what was not measured is None or empty."""
    found, policy = scores.routing, _mapping(scores.routing.get("policy"))
    decisions, reached = _mapping(found.get("decisions")), found.get("precision_reached")
    total = sum(decisions.values())
    return {
        "missing": "",
        "sentence": routing_sentence(scores),
        "policy": dict(policy),
        "target": usable(policy.get("target_precision")),
        "n": found.get("n"),
        "n_out_of_scope": found.get("n_out_of_scope"),
        "decisions": [
            {"name": _DECISIONS.get(name, name), "n": n, "share": n / total if total else None}
            for name, n in decisions.items()
        ],
        "reasons": [
            {"reason": reason, "n": n}
            for reason, n in sorted(_mapping(found.get("reasons")).items(), key=lambda item: (-item[1], item[0]))
        ],
        "metrics": [
            {"name": name, "item": found[key]}
            for name, key in (
                ("share routed", "coverage_at_target"),
                ("precision of the routed", "precision_of_routed"),
                ("AURC", "aurc"),
                ("mean cost of a ticket", "mean_cost"),
            )
            if found.get(key)
        ],
        "at_precision": [
            {"precision": float(at), "coverage": usable(value), "reached": usable(_mapping(reached).get(at))}
            for at, value in sorted(_mapping(found.get("coverage_at_precision")).items(), key=lambda item: item[0])
        ],
        "costs": _costs(_mapping(policy.get("costs"))),
        "out_of_scope": _out_of_scope(_mapping(found.get("out_of_scope")), policy),
    }


def routing_sentence(scores: Scores) -> str:
    """Return what a reader should remember of the routing; empty where nothing is routed.

    Example:
        >>> share = {"value": 0.712, "low": 0.66, "high": 0.76}
        >>> right = {"value": 0.957, "low": 0.92, "high": 0.98}
        >>> policy = {"target_precision": 0.95, "threshold": 0.8}
        >>> routing = {"policy": policy, "coverage_at_target": share, "precision_of_routed": right}
        >>> print(routing_sentence(Scores("macro_f1", {}, routing=routing)))
        71.2% [66.0%, 76.0%] of the tickets can be routed automatically for a precision of 95%: 95.7% [92.0%, 98.0%] of
        them went to the right queue on the test split. The rest is asked.
    """
    found = scores.routing
    if not found:
        return ""
    policy = _mapping(found.get("policy"))
    target = usable(policy.get("target_precision"))
    aim = "for a precision that is not known" if target is None else f"for a precision of {100 * target:g}%"
    if policy.get("costs"):
        aim, target = "at the lowest expected cost", None
    elif policy and usable(policy.get("threshold")) is None:
        return f"No ticket is routed automatically: the calibration split proves no threshold {aim}. All are asked."
    coverage, precision = found.get("coverage_at_target"), found.get("precision_of_routed")
    if not _known(coverage):
        return f"How many tickets can be routed automatically {aim} was not measured."
    text = f"{percent_interval(coverage)} of the tickets can be routed automatically {aim}"
    if _known(precision):
        text += f": {percent_interval(precision)} of them went to the right queue on the test split"
        high = usable((precision or {}).get("high"))
        if target is not None and high is not None and high < target:
            text += ", surely fewer than asked for"
    return f"{text}. The rest is asked{_and_out_of_scope(found)}."


def routing_lines(scores: Scores) -> list[str]:
    """Return what a model card says of the routing: what it does, its rule, and what is out of scope."""
    found, policy = scores.routing, _mapping(scores.routing.get("policy"))
    if not found:
        return []
    lines = [routing_sentence(scores)]
    threshold, margin = usable(policy.get("threshold")), usable(policy.get("min_margin")) or 0.0
    n = policy.get("n", "an unknown number of")
    if policy.get("costs"):
        lines.append("A ticket is routed where its lowest expected cost is below that of asking.")
    elif threshold is not None:
        beside = f", and leads the next by at least {margin:.3g}" if margin else ""
        lines.append(
            f"A ticket is routed where its largest probability is at least {threshold:.3g}{beside}; fitted on {n} "
            "tickets of the calibration split."
        )
    outside = _mapping(found.get("out_of_scope"))
    cut, name = usable(policy.get("out_of_scope_threshold")), str(policy.get("out_of_scope_score") or "")
    if cut is None:
        lines.append("No ticket is called out of scope: no threshold for that was fitted.")
    else:
        judged = _mapping(_mapping(outside.get("scores")).get(name)).get("auroc")
        known = f" (AUROC {interval(judged)} on the test split)" if judged else ""
        lines.append(f"Out of scope is what scores above {cut:.4g} by {_SCORES.get(name, name)}{known}.")
    lost = outside.get("in_scope_lost") or _mapping(found.get("in_scope")).get("lost")
    if cut is not None and _known(lost):
        lines.append(f"{percent_interval(lost)} of the tickets in scope are called out of scope.")
    return lines


def routing_charts(scores: Scores) -> list[Chart]:
    """Return the share of errors by the share that is routed, and both over the threshold."""
    names = ("coverage", "risk", "threshold")
    points = [tuple(usable(item.get(name)) for name in names) for item in scores.routing.get("risk_coverage") or ()]
    curve = sorted((coverage, risk) for coverage, risk, _ in points if coverage is not None and risk is not None)
    if not curve:
        return []
    policy = _mapping(scores.routing.get("policy"))
    target, cut = usable(policy.get("target_precision")), usable(policy.get("threshold"))
    # The curve is of the tickets in scope, and so is the point beside it.
    inside = _mapping(scores.routing.get("in_scope")) or scores.routing
    coverage, precision = (
        usable((inside.get(key) or {}).get("value")) for key in ("coverage_at_target", "precision_of_routed")
    )
    lines = [Line("all thresholds", curve)]
    if coverage is not None and precision is not None:
        lines.append(Line("this policy", [(coverage, 1.0 - precision)], dots=True, joined=False))
    if target is not None:
        lines.append(Line("asked for at most", [(0.0, 1.0 - target), (1.0, 1.0 - target)], dashed=True))
    charts = [
        line_chart(
            "Errors by the share that is routed",
            lines,
            x_label="share of the tickets in scope that is routed",
            y_label="share of the routed that is wrong",
            x_range=(0.0, 1.0),
        )
    ]
    over = [
        Line("routed", sorted((at, share) for share, _, at in points if at is not None and share is not None)),
        Line("of them right", sorted((at, 1.0 - bad) for _, bad, at in points if at is not None and bad is not None)),
    ]
    charts.append(
        line_chart(
            "Both over the threshold",
            over,
            x_label="threshold of the largest probability",
            y_label="share",
            x_range=(0.0, 1.0),
            y_range=(0.0, 1.0),
            marks=[] if cut is None else [Mark(cut, "chosen")],
        )
    )
    return [chart for chart in charts if chart is not None]


def _out_of_scope(found: Mapping[str, Any], policy: Mapping[str, Any]) -> Section | None:
    if not found:
        return None
    fitted = _mapping(policy.get("out_of_scope_auroc"))
    return {
        "scores": [
            {
                "name": _SCORES.get(name, name),
                "auroc": row.get("auroc"),
                "fpr95": row.get("fpr95"),
                "on_calibration": usable(fitted.get(name)),
                "chosen": bool(row.get("chosen")),
            }
            for name, row in _mapping(found.get("scores")).items()
        ],
        "threshold": usable(policy.get("out_of_scope_threshold")),
        "n_fitted": policy.get("n_out_of_scope"),
        "metrics": [
            {"name": name, "item": found[key]}
            for name, key in (
                ("out-of-scope tickets that are not routed", "recall"),
                ("out-of-scope tickets that are called so", "called"),
                ("tickets in scope that are called out of scope", "in_scope_lost"),
                ("right queue, and not called out of scope", "in_scope_accuracy"),
            )
            if found.get(key)
        ],
    }


def _and_out_of_scope(found: Mapping[str, Any]) -> str:
    recall = _mapping(found.get("out_of_scope")).get("recall")
    if not _known(recall):
        return ""
    num = recall.get("n") or found.get("n_out_of_scope")
    many = f"the {num} out-of-scope tickets" if num else "the out-of-scope tickets"
    return f"; of {many} {percent_interval(recall)} are not routed"


def _costs(costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the costs as rows; that of asking stands beside those of the queues."""
    rows = []
    for true, row in costs.items():
        if isinstance(row, Mapping):
            rows += [{"true": true, "routed": routed, "cost": cost} for routed, cost in row.items()]
        else:
            rows.append({"true": "any", "routed": true, "cost": row})
    return rows


def _known(item: Mapping[str, Any] | None) -> bool:
    return usable((item or {}).get("value")) is not None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
