"""How much of the old task was chosen to be kept: the sweep between the two models, and the budget of forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_transfer.reporting.charts import Chart, Line, line_chart
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.numbers import metric_label, number, usable
from lightning_transfer.reporting.run_files import RunFiles

__all__ = ["retention_charts", "retention_sentence", "sweep_section"]

Section = dict[str, Any]


def sweep_section(run: RunFiles, forgetting: Forgetting) -> Section:
    """Return the mixtures that were tried and the epochs that a budget chose from, as rows; empty where there was none.

    Args:
        run: Its ``forgetting.json`` holds both.
        forgetting: Says what the old task scored before, so that a row can show the rate itself.
    """
    return {"sweep": _sweep(run, forgetting), "budget": _budget(run, forgetting)}


def retention_charts(run: RunFiles, forgetting: Forgetting) -> list[Chart]:
    """Return the trade-off of the mixtures, and that of the epochs: new task against old one, with the chosen point."""
    found = _sweep(run, forgetting)
    charts: list[Chart | None] = []
    if found:
        points = [(row, f"{row['percent']} adapted") for row in found["rows"]]
        chosen = next((row for row, _ in points if row["chosen"]), None)
        start = [(found["start"], "pretrained")] if found["start"] else []
        marked = [("chosen", chosen), ("pretrained", found["start"])]
        charts.append(_trade_off("Pretrained and adapted weights mixed", "mixtures", [*start, *points], found, marked))
    found = _budget(run, forgetting)
    if found:
        points = [(row, f"epoch {row['epoch']}") for row in found["rows"]]
        kept = next((row for row, _ in points if row["chosen"]), None)
        charts.append(_trade_off("Epochs under the budget", "epochs", points, found, [("best within it", kept)]))
    return [chart for chart in charts if chart is not None]


def retention_sentence(run: RunFiles, forgetting: Forgetting) -> str:
    """Return how the weights were chosen where the old task had a say; empty where it had none."""
    sweep, budget = _sweep(run, forgetting), _budget(run, forgetting)
    if sweep:
        chosen = next((row for row in sweep["rows"] if row["chosen"]), None)
        if chosen is None and not budget:
            return "No mixture of pretrained and adapted weights kept within the tolerance, so the adapted ones stayed."
        if chosen is not None:
            return f"The weights are a mixture, {chosen['percent']} adapted: the best that kept within the tolerance."
    if not budget:
        return ""
    kept = next((row for row in budget["rows"] if row["chosen"]), None)
    if kept is None:
        return ""
    limit = budget["limit_text"]
    if kept["within"]:
        return f"Epoch {kept['epoch']} was kept, the best within the budget of {limit}."
    return f"No epoch was within the budget of {limit}; epoch {kept['epoch']}, the least past it, was kept."


def _sweep(run: RunFiles, forgetting: Forgetting) -> Section:
    for monitor in run.forgetting.get("monitors") or ():
        found = monitor.get("interpolation") or {}
        tried = found.get("tried") or ()
        key = _key(found.get("limits") or {}, [row.get("readings") or {} for row in tried])
        if not tried or not key:
            continue
        limit = usable((found.get("limits") or {}).get(key))
        base, label = _base(key, forgetting)
        rows = [_sweep_row(row, key, base, usable(found.get("alpha"))) for row in tried]
        start = found.get("pretrained")
        return {
            "new_label": metric_label(str(found.get("monitor") or "")),
            "old_label": label,
            "limit": None if limit is None else base + limit,
            "limit_text": "" if limit is None else f"{number(limit)} more",
            "rows": rows,
            "start": _sweep_row(start, key, base, None) if start else None,
            "alpha": usable(found.get("alpha")),
        }
    return {}


def _sweep_row(row: Mapping[str, Any], key: str, base: float, chosen: float | None) -> Section:
    alpha, loss = usable(row.get("alpha")) or 0.0, usable((row.get("readings") or {}).get(key))
    return {
        "alpha": alpha,
        "percent": f"{100 * alpha:.0f}%",
        "new": usable(row.get("score")),
        "old": None if loss is None else base + loss,
        "loss": loss,
        "within": row.get("within") is True,
        "chosen": chosen is not None and abs(alpha - chosen) < 1e-9,
    }


def _budget(run: RunFiles, forgetting: Forgetting) -> Section:
    found = run.forgetting.get("retention") or {}
    rows = found.get("rows") or ()
    key = _key({}, [row.get("losses") or {} for row in rows])
    if not rows or not key:
        return {}
    limit = found.get("max_degradation")
    limit = usable(limit.get(key) if isinstance(limit, Mapping) else limit)
    base, label = _base(key, forgetting)
    best = (found.get("best") or {}).get("step")
    losses = [usable((row.get("losses") or {}).get(key)) for row in rows]
    return {
        "new_label": metric_label(str(found.get("monitor") or "")),
        "old_label": label,
        "before": usable(found.get("before")),
        "limit": None if limit is None else base + limit,
        "limit_text": number(limit),
        "rows": [
            {
                "epoch": row.get("epoch"),
                "new": usable(row.get("new")),
                "old": None if loss is None else base + loss,
                "loss": loss,
                "score": usable(row.get("score")),
                "within": row.get("within") is True,
                "chosen": row.get("step") == best,
            }
            for row, loss in zip(rows, losses, strict=True)
        ],
    }


def _key(limits: Mapping[str, Any], readings: Sequence[Mapping[str, Any]]) -> str:
    """Return the logged key to show: the first that has a limit, else the first that was read."""
    names = dict.fromkeys([*limits, *(name for row in readings for name in row if name.startswith("forgetting_"))])
    return next((str(name) for name in names if any(usable(row.get(name)) is not None for row in readings)), "")


def _base(key: str, forgetting: Forgetting) -> tuple[float, str]:
    """Return what to add to a loss to get the rate itself, and what to call it; a loss stays one where it is no WER."""
    name = key.removeprefix("forgetting_")
    before = usable((forgetting.sources.get(f"source {name.replace('_', ' ')}", {}).get("before") or {}).get("value"))
    if name.rpartition("_")[2] == "wer" and before is not None:
        probe = name.removesuffix("wer").strip("_").replace("_", " ")
        return before, f"WER on {probe}" if probe else "WER on general speech"
    return 0.0, f"{name.replace('_', ' ')} lost"


def _trade_off(
    title: str,
    name: str,
    points: Sequence[tuple[Mapping[str, Any], str]],
    about: Mapping[str, Any],
    marked: Sequence[tuple[str, Mapping[str, Any] | None]],
) -> Chart | None:
    """Lay out the old task's rate across and the new one's up: both best at the lower left."""
    known = [(row, text) for row, text in points if row["old"] is not None and row["new"] is not None]
    if not known:
        return None
    across = [(float(row["old"]), float(row["new"])) for row, _ in known]
    texts = [
        f"{text}: {about['new_label']} {number(row['new'])}, {about['old_label']} {number(row['old'])}"
        for row, text in known
    ]
    lines = [Line(name, across, dots=True, texts=texts)]
    for mark, row in marked:
        if row is not None and row["old"] is not None and row["new"] is not None:
            point = (float(row["old"]), float(row["new"]))
            text = next((text for (other, _), text in zip(known, texts, strict=True) if other is row), mark)
            lines.append(Line(mark, [point], dots=True, joined=False, sizes=(1,), texts=(text,)))
    limit = usable(about.get("limit"))
    if limit is not None:
        heights = [y for _, y in across]
        lines.append(Line("budget", [(limit, min(heights)), (limit, max(heights))], dashed=True))
    return line_chart(
        title,
        lines,
        x_label=f"{about['old_label']} (left is better)",
        y_label=f"{about['new_label']}, down is better",
    )
