"""Sections on what happened before the test: data, plan, curves, forgetting, cost, environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_transfer.reporting.charts import Chart, Line, Mark, Timeline, line_chart, ticks, timeline
from lightning_transfer.reporting.forgetting import Forgetting, steps_per_epoch
from lightning_transfer.reporting.numbers import metric_label, number, usable
from lightning_transfer.reporting.run_files import RunFiles

__all__ = [
    "cost_section",
    "curve_charts",
    "data_section",
    "environment_section",
    "forgetting_charts",
    "forgetting_section",
    "plan_section",
    "plan_timeline",
    "validation_points",
]

Section = dict[str, Any]

# What a reader can take in; the JSON files of the run hold all.
_MOST_ROWS = 40
_MOST_COLUMNS = 8
_SCORES = ("val_macro_f1", "val_accuracy", "val_auroc", "val_ap", "val_wer", "val_cer")


def data_section(run: RunFiles) -> Section:
    """Return counts and groups of each split, what the check found, and what was skipped."""
    counts: Mapping[str, Mapping[str, int]] = run.data.get("counts") or run.plan.get("data") or {}
    found: Section = {"missing": ""} if counts else {"missing": "Not known: the run has no `data.json`."}
    classes = list(run.data.get("classes") or dict.fromkeys(name for split in counts.values() for name in split))
    groups = run.data.get("num_groups") or {}
    skipped = run.data.get("skipped") or {}
    found["classes"] = classes
    found["splits"] = [
        {
            "split": split,
            "total": sum(by_class.values()),
            "num_groups": groups.get(split),
            "counts": [by_class.get(name, 0) for name in classes],
        }
        for split, by_class in counts.items()
    ]
    # Of many classes each gets a row, not a column.
    by_class = [{"name": name, "counts": [by_class.get(name, 0) for by_class in counts.values()]} for name in classes]
    found["by_class"] = by_class if len(classes) > _MOST_COLUMNS else []
    found["negative_class"] = run.data.get("negative_class")
    found["fingerprint"] = run.data.get("fingerprint")
    found["num_skipped"] = len(skipped)
    found["skipped"] = [{"id": key, "reason": reason} for key, reason in list(skipped.items())[:_MOST_ROWS]]
    found["findings"] = list(run.check.get("findings") or ())
    found["suspects"] = list(run.check.get("suspects") or ())[:_MOST_ROWS]
    found["checked"] = bool(run.check)
    found["check_hint"] = "" if run.check else f"Not checked: run `{run.command} check-data --config FILE`."
    return found


def plan_section(run: RunFiles) -> Section:
    """Return the stages, the learning rates and the backbone."""
    stages = list(run.plan.get("stages") or ())
    reason = str(run.plan.get("reason") or "the run has no `plan.json`")
    found: Section = {"missing": "" if run.plan else f"Not known: {reason}."}
    found["backbone"] = dict(run.plan.get("backbone") or {})
    found["max_epochs"] = run.plan.get("max_epochs")
    found["notes"] = list(run.plan.get("notes") or ())
    found["warnings"] = list(run.plan.get("warnings") or ())
    found["stages"] = [{**stage, "begins": _begins(stage)} for stage in stages]
    found["learning_rates"] = list(run.plan.get("learning_rates") or ())
    return found


def plan_timeline(run: RunFiles) -> Timeline | None:
    """Return when each group trains; None where stages open by step or on a stall, which only the fit knows."""
    stages, groups = run.plan.get("stages") or (), run.plan.get("groups") or ()
    last = usable(run.plan.get("max_epochs"))
    if not stages or not groups or len(groups) > _MOST_ROWS or last is None:
        return None
    if any(stage.get("epoch") is None for stage in stages):
        return None
    opens: dict[str, float | None] = {group["name"]: None for group in groups}
    opens[groups[-1]["name"]] = 0.0  # the head
    for stage in stages:
        for name in stage.get("open_groups") or ():
            if opens.get(name) is None and stage.get("reached", True):
                opens[name] = stage["epoch"]
    rates = run.plan.get("learning_rates") or ()
    rows = [(name, epoch, _rate(name, rates)) for name, epoch in reversed(opens.items())]
    return timeline(rows, last)


def validation_points(run: RunFiles, name: str) -> list[tuple[float, float]]:
    """Return (epochs done, value) of a logged number."""
    each = steps_per_epoch(run)
    found = []
    for row in run.curves:
        if name not in row:
            continue
        if name.startswith("train_") and "step" in row:
            found.append(((row["step"] + 1) / each, row[name]))
        elif "epoch" in row:
            found.append((row["epoch"] + 1, row[name]))
    return found


def curve_charts(run: RunFiles) -> list[Chart]:
    """Return the losses and the scores of validation over the epochs, with marks where stages open."""
    marks = _marks(run)
    epochs = _epochs(run)
    losses = [Line(metric_label(name), validation_points(run, name)) for name in ("train_loss", "val_loss")]
    charts = [line_chart("Loss", losses, x_label="epochs done", y_label="loss", x_range=epochs, marks=marks)]
    scores = [Line(metric_label(name), validation_points(run, name), dots=True) for name in _SCORES]
    charts.append(
        line_chart(
            "Scores on the validation split",
            scores,
            x_label="epochs done",
            y_label="score",
            x_range=epochs,
            marks=marks,
        )
    )
    return [chart for chart in charts if chart is not None]


def forgetting_section(run: RunFiles, forgetting: Forgetting) -> Section:
    """Return what was measured of the old task."""
    measured = forgetting.sources or forgetting.readings or forgetting.frozen
    hint = "Not measured: add `lightning_transfer.ForgettingMonitor` to `trainer.callbacks` and fit again."
    return {
        "missing": "" if measured else hint,
        "frozen": forgetting.frozen,
        "sources": [{"name": name, **parts} for name, parts in forgetting.sources.items()],
        "readings": [
            {
                "name": name,
                "first": points[0][1],
                "worst": max(value for _, value in points),
                "last": points[-1][1],
                "epochs": points[-1][0],
            }
            for name, points in forgetting.readings.items()
        ],
    }


def forgetting_charts(run: RunFiles, forgetting: Forgetting) -> list[Chart]:
    """Return forgetting over the epochs, and the downstream score against it."""
    lines = [Line(name.replace("_", " "), points, dots=True) for name, points in forgetting.readings.items()]
    charts = [
        line_chart(
            "Forgetting while training", lines[:6], x_label="epochs done", y_label="loss (up is worse)",
            x_range=_epochs(run), marks=_marks(run),
        )
    ]  # fmt: skip
    score = next((name for name in _SCORES if validation_points(run, name)), None)
    by_epoch = {round(epoch): value for epoch, value in validation_points(run, score)} if score else {}
    against = []
    for name, points in list(forgetting.readings.items())[:3]:
        pairs = [(value, by_epoch[round(epoch)]) for epoch, value in points if round(epoch) in by_epoch]
        against.append(Line(name.replace("_", " "), pairs, dots=True))
    charts.append(
        line_chart(
            "New task against old task, epoch by epoch",
            against,
            x_label="forgetting (right is worse)",
            y_label=metric_label(score or ""),
        )
    )
    return [chart for chart in charts if chart is not None]


def cost_section(run: RunFiles, latency: Mapping[str, Any]) -> Section:
    """Return what the fit and a prediction cost: time, memory, device, size."""
    took = usable((run.fit.get("fit_seconds") or {}).get("value"))
    epochs = [item for item in run.cost.get("epochs") or () if usable(item.get("seconds")) is not None]
    model = run.folder / "model.ckpt"
    return {
        "missing": "",
        "device": run.cost.get("device") or run.environment.get("device"),
        "fit_seconds": took,
        "fit_hint": "" if took is not None else "not measured: the fit wrote no `fit_seconds`",
        "stages": _stage_seconds(run, epochs),
        "stage_hint": "" if epochs else "not measured: the fit wrote no `cost.json`",
        "peak_memory_mb": run.cost.get("peak_memory_mb"),
        "peak_memory_kind": run.cost.get("peak_memory_kind"),
        "model_mb": round(model.stat().st_size / 1e6, 2) if model.is_file() else None,
        "latency": dict(latency),
        "latency_hint": "" if latency else f"not measured: run `{run.command} test RUN`",
        "export": [item for item in run.export.get("files") or () if isinstance(item, Mapping)],
        "export_hint": "" if run.export else f"not exported: run `{run.command} export RUN`",
    }


def environment_section(run: RunFiles) -> Section:
    """Return where the fit ran."""
    found = dict(run.environment)
    versions = found.pop("versions", None) or {}
    return {
        "missing": "" if run.environment else "Not known: the run has no `environment.json`.",
        "facts": [{"name": name.replace("_", " "), "value": value} for name, value in found.items() if value],
        "versions": [{"name": name, "version": version} for name, version in versions.items()],
    }


def _begins(stage: Mapping[str, Any]) -> str:
    for unit in ("epoch", "step"):
        if stage.get(unit) is not None:
            return f"{unit} {stage[unit]}"
    return "when the watched metric stalls"


def _rate(group: str, rates: Sequence[Mapping[str, Any]]) -> str:
    """Return the learning rates of a group's layers, or that of all where the optimizer has one."""
    own = [rate["lr"] for rate in rates if _is_of(str(rate["name"]), group)]
    own = own or ([rates[0]["lr"]] if len({rate["lr"] for rate in rates}) == 1 else [])
    if not own:
        return ""
    low, high = (f"{value:.2g}" for value in (min(own), max(own)))
    return low if low == high else f"≤ {high}"


def _is_of(name: str, group: str) -> bool:
    return name == group or name.startswith((f"{group}.", f"{group}-"))


def _epochs(run: RunFiles) -> tuple[float, float]:
    """Return the ends of an axis of epochs: round numbers, so that the last label has room."""
    done = [row["epoch"] + 1 for row in run.curves if "epoch" in row and any(name.startswith("val_") for name in row)]
    done = done or [row["step"] / steps_per_epoch(run) for row in run.curves if "step" in row]
    return 0.0, ticks(0.0, max(done, default=1.0) or 1.0)[-1]


def _marks(run: RunFiles) -> list[Mark]:
    stages = [stage for stage in run.plan.get("stages") or () if stage.get("reached", True) and stage.get("opened")]
    marks = [Mark(float(stage["epoch"]), "stage") for stage in stages if stage.get("epoch")]
    if run.kept_epoch is not None:
        marks.append(Mark(run.kept_epoch + 1.0, "kept"))
    return marks


def _stage_seconds(run: RunFiles, epochs: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Add up the seconds of the epochs of each stage that begins with an epoch."""
    starts = [int(stage["epoch"]) for stage in run.plan.get("stages") or () if stage.get("epoch") is not None]
    found = []
    for place, start in enumerate(starts):
        end = starts[place + 1] if place + 1 < len(starts) else None
        own = [item for item in epochs if start <= int(item["epoch"]) and (end is None or int(item["epoch"]) < end)]
        if own:
            first, last = int(own[0]["epoch"]), int(own[-1]["epoch"])
            total = sum(float(item["seconds"]) for item in own)
            each = f"{number(total / len(own), 1)} s an epoch"
            found.append(
                {"epochs": f"{first}" if first == last else f"{first} to {last}", "seconds": total, "each": each}
            )
    return found
