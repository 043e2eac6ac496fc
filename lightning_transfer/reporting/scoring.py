"""Sections on the test: scores beside baselines, slices, calibration, threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lightning_transfer.reporting.charts import Chart, Line, Mark, line_chart
from lightning_transfer.reporting.findings import gap_sentences
from lightning_transfer.reporting.numbers import BASELINES, lower_is_better, metric_label, usable
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.verdict import compare

__all__ = [
    "calibration_section",
    "operating_charts",
    "reliability_charts",
    "score_section",
    "slices_section",
    "threshold_section",
]

Section = dict[str, Any]

# Operating points lie at the left end; a curve up to 1 would hide them.
_SHOWN_RATE = 0.2


def score_section(scores: Scores) -> Section:
    """Return the headline, and each method's row with the paired differences."""
    rows = [
        {
            "name": BASELINES.get(name, name),
            "key": name,
            "metrics": {metric: found.get(metric) for metric in scores.shown},
            "differences": {
                metric: {**item, "shows": compare(item, metric)}
                for metric, item in scores.differences.get(name, {}).items()
                if metric in scores.shown
            },
            "description": scores.descriptions.get(name, ""),
        }
        for name, found in scores.baselines.items()
    ]
    metrics = {**scores.metrics, **_routing_metrics(scores)}
    levels = [f"{name}_level_{depth}" for depth in scores.levels for name in ("macro_f1", "accuracy")]
    for row in rows:
        found = scores.baselines[str(row["key"])]
        row["levels"] = {name: found.get(name) for name in levels}
    return {
        "missing": "",
        "headline": scores.headline,
        "shown": list(scores.shown),
        "cards": [name for name in _cards(scores) if name in metrics],
        "n": scores.n,
        "num_groups": scores.num_groups,
        "confidence": scores.confidence,
        "metrics": metrics,
        "levels": levels,
        "baselines": rows,
        "baseline_hint": "" if rows else "Not measured: set `--evaluation.baselines` and test again.",
    }


def _cards(scores: Scores) -> tuple[str, ...]:
    """Return what stands in large figures: the first metrics, and what the threshold or the routing does."""
    at_threshold = ("recall_at_threshold", "false_reject_rate")
    if at_threshold[0] in scores.metrics:
        return (*scores.shown[:4], *at_threshold)
    routed = tuple(_routing_metrics(scores))[:2]
    return (*routed, *scores.shown[:4]) if routed else scores.shown[:6]


def _routing_metrics(scores: Scores) -> dict[str, Mapping[str, Any]]:
    """Return what is known of the routing, by the names of ``metrics.json``."""
    names = {
        "routing_coverage": "coverage_at_target",
        "routing_precision": "precision_of_routed",
        "routing_aurc": "aurc",
    }
    found = {name: scores.metrics.get(name) or scores.routing.get(key) for name, key in names.items()}
    return {name: item for name, item in found.items() if item} if scores.routing else {}


def slices_section(scores: Scores, run: RunFiles) -> Section:
    """Return the slices of each column, as the test ordered them: worst first."""
    by_column: dict[str, list[Mapping[str, Any]]] = {}
    for item in scores.slices:
        by_column.setdefault(str(item.get("column")), []).append(item)
    wanted = dict.fromkeys((*scores.shown, "mean_recall_at_thresholds", "mean_false_positive_rate_at_thresholds"))
    names = [name for name in wanted if any(name in (item.get("metrics") or {}) for item in scores.slices)]
    columns = list(run.data.get("columns") or ())
    hint = f"Not measured: test again with `{run.command} test RUN` for scores by column."
    if not columns and run.data:
        hint = "Not measured: the data have no further columns to slice by."
    return {
        "missing": "" if by_column else hint,
        "metrics": names[: 3 if not scores.gaps else 4],
        "gaps": gap_sentences(scores),
        "columns": [{"name": name, "rows": [_sided(row, scores) for row in rows]} for name, rows in by_column.items()],
        "left_out": dict(run.evaluation.get("slices_left_out") or {}),
        "note": str(run.evaluation.get("slices_note") or ""),
    }


def _sided(row: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    """Say on which side of the rest a slice stands out; empty where it does not."""
    value = _value(row.get("difference"))
    if not row.get("stands_out") or not value:
        return {**row, "side": ""}
    return {**row, "side": "better" if (value < 0) == lower_is_better(scores.headline) else "worse"}


def calibration_section(scores: Scores, run: RunFiles) -> Section:
    """Return the temperature, and the errors of the probabilities before and after it."""
    found = scores.reliability
    errors = []
    for name in ("ece", "brier", "log_loss"):
        after = scores.metrics.get(name) or {"value": found.get(f"{name}_after"), "reason": "not measured"}
        if usable(after.get("value")) is not None:
            errors.append({"name": metric_label(name), "before": found.get(f"{name}_before"), "after": after})
    return {
        "missing": "" if errors else f"Not measured: run `{run.command} test RUN`.",
        "temperature": scores.temperature,
        "errors": errors,
        "reliability": {name: list(found.get(name) or ()) for name in ("before", "after")},
        "reliability_hint": "" if found.get("after") else "The reliability of each bin was not measured.",
    }


def reliability_charts(scores: Scores) -> list[Chart]:
    """Return how often the model is right where it is so sure: before and after temperature, and as it should be."""
    lines = [Line("as it should be", [(0.0, 0.0), (1.0, 1.0)], dashed=True)]
    for name, text in (("before", "before temperature"), ("after", "after temperature")):
        bins = scores.reliability.get(name) or ()
        bins = [item for item in bins if item.get("n") and usable(item.get("confidence")) is not None]
        points = [(float(item["confidence"]), float(item["accuracy"])) for item in bins]
        if points:
            lines.append(Line(text, points, dots=True, sizes=[int(item["n"]) for item in bins]))
    if len(lines) == 1:
        return []
    chart = line_chart(
        "Reliability", lines, x_label="confidence", y_label="share that is right", x_range=(0, 1), y_range=(0, 1)
    )
    return [chart] if chart else []


def threshold_section(scores: Scores, run: RunFiles) -> Section:
    """Return the operating points, and the curve from which one chooses."""
    if scores.negative_class is None:
        missing = "There is no threshold to choose: the data name no negative class (`--data.negative_class`)."
    elif scores.threshold is None and not scores.points:
        missing = f"Not measured: the model has no threshold; run `{run.command} fit` with a calibration split."
    else:
        missing = ""
    return {
        "missing": missing,
        "threshold": scores.threshold,
        "rule": scores.rule,
        "negative_class": scores.negative_class,
        "points": [asdict(point) for point in scores.points],
        "curve": [dict(item) for item in scores.curve],
        "curve_hint": "" if scores.curve else f"The curve was not measured: run `{run.command} test RUN`.",
    }


def operating_charts(scores: Scores) -> list[Chart]:
    """Return what a threshold finds against what it costs, with the fitted ones; and both over the threshold."""
    curve = _pairs([(item.get("false_reject_rate"), item.get("recall")) for item in scores.curve])
    points = [(_value(point.rate), _value(point.recall), point.chosen) for point in scores.points]
    chosen = _pairs([(rate, recall) for rate, recall, is_chosen in points if is_chosen])
    others = _pairs([(rate, recall) for rate, recall, is_chosen in points if not is_chosen])
    end = max([_SHOWN_RATE, *(min(1.0, 1.5 * rate) for rate, _ in [*chosen, *others])])
    lines = [Line("all thresholds", sorted(curve))] if curve else []
    lines += [Line("chosen", chosen, dots=True, joined=False)] if chosen else []
    lines += [Line("other fitted thresholds", others, dots=True, joined=False)] if others else []
    charts = [
        line_chart(
            "What a threshold costs and finds",
            lines,
            x_label=f"share of “{scores.negative_class}” rejected",
            y_label="share of others found",
            x_range=(0.0, round(end, 2)),
            y_range=(0.0, 1.0),
        )
    ]
    by_threshold = [
        Line(name, sorted(_pairs([(item.get("threshold"), item.get(key)) for item in scores.curve])))
        for name, key in ((f"“{scores.negative_class}” rejected", "false_reject_rate"), ("others found", "recall"))
    ]
    marks = [] if scores.threshold is None else [Mark(scores.threshold, "chosen")]
    both = line_chart(
        "Both over the threshold", by_threshold, x_label="threshold", y_label="share", x_range=(0.0, 1.0), marks=marks,
        y_range=(0.0, 1.0),
    )  # fmt: skip
    return [chart for chart in (*charts, both) if chart is not None]


def _value(item: Mapping[str, Any] | None) -> float | None:
    return usable((item or {}).get("value"))


def _pairs(points: Sequence[tuple[Any, Any]]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points if usable(x) is not None and usable(y) is not None]
