"""One page on several runs: scores beside each other, differences to the first, what was done differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_transfer.errors import TransferError
from lightning_transfer.files import write_json
from lightning_transfer.reporting.charts import Chart, Line, line_chart
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.numbers import metric_label, usable
from lightning_transfer.reporting.page import STRANGE, write_page
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.training import validation_points
from lightning_transfer.reporting.verdict import compare

__all__ = ["build_comparison", "write_comparison"]

# What differs between any two runs and explains nothing.
_IGNORED = ("ckpt_path", "trainer.default_root_dir", "trainer.logger", "trainer.enable_progress_bar")
_CURVES = ("val_loss", "val_macro_f1", "val_auroc", "val_accuracy", "val_wer", "val_cer")
_MORE = ("recall_at_threshold", "false_reject_rate")


def write_comparison(folders: Sequence[str | Path], path: str | Path = "comparison.html") -> Path:
    """Write a page that compares runs, and beside it the same numbers as JSON. Earlier ones are replaced.

    Args:
        folders: Of two runs or more; the differences are to the first.
        path: Of the page.

    Raises:
        TransferError: If there are fewer than two, one is no run's folder, or some recognise speech and others do not.
    """
    if len(folders) < 2:
        raise TransferError(f"A comparison needs at least two runs, got {len(folders)}. `report RUN` describes one.")
    runs = [RunFiles.read(folder) for folder in folders]
    speech = [run.name for run in runs if run.task == "transcription"]
    others = [run.name for run in runs if run.task not in ("", "transcription")]
    if speech and others:
        raise TransferError(
            f"`{speech[0]}` writes down speech and `{others[0]}` does not, so no score of both means the same. Compare "
            "runs of one task."
        )
    found = {**build_comparison(runs), **_paired(runs)}
    target = Path(path)
    write_json(target.with_suffix(".json"), found)
    return write_page(target, "comparison.html.j2", {"comparison": found, "charts": _charts(runs)})


def build_comparison(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """Return the comparison as plain values."""
    scores = [Scores.read(run) for run in runs]
    known = [item for item in scores if item is not None]
    metrics = [name for name in (known[0].shown if known else ()) if any(name in item.metrics for item in known)]
    extra = [name for name in _MORE if any(name in item.metrics for item in known)]
    rows = []
    for place, (run, found) in enumerate(zip(runs, scores, strict=True)):
        forgetting = Forgetting.read(run)
        source = next(iter(forgetting.sources.values()), {})
        rows.append(
            {
                "letter": _letter(place),
                "run": run.name,
                "time": run.environment.get("time"),
                "metrics": {} if found is None else {name: found.metrics.get(name) for name in [*metrics, *extra]},
                "hint": "" if found is not None else f"not tested: run `{run.command} test {run.name}`",
                "n": None if found is None else found.n,
                "num_groups": None if found is None else found.num_groups,
                "source_before": source.get("before"),
                "source_after": source.get("after"),
                "frozen": forgetting.frozen,
                "fit_seconds": usable((run.fit.get("fit_seconds") or {}).get("value")),
                "device": run.environment.get("device"),
                "backbone": (run.plan.get("backbone") or {}).get("name"),
                "num_parameters": (run.plan.get("backbone") or {}).get("num_parameters"),
            }
        )
    return {
        "metrics": metrics,
        "extra": extra,
        "runs": rows,
        "warnings": _warnings(runs),
        "differences": _config_differences([run.config for run in runs]),
    }


def _paired(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """Return the differences to the first run, on the same records where both were tested on them."""
    from lightning_transfer.evaluation import compare_runs

    # The folders are all called `test`; a reader knows the runs by their letters.
    letters = {str(run.test): _letter(place) for place, run in enumerate(runs)}
    untested = [run.name for run in runs if run.test is None]
    if untested:
        return {"paired": [], "paired_reason": f"not tested yet: {', '.join(untested)}"}
    try:
        found = compare_runs([run.test for run in runs if run.test is not None])
    except (TransferError, *STRANGE) as error:
        return {"paired": [], "paired_reason": _with_letters(str(error).rstrip("."), letters)}
    rows = []
    for place, item in enumerate(found.runs[1:], start=1):
        differences = {name: value.to_dict() for name, value in item.difference.items()}
        shown = {name: {**value, "shows": compare(value, name)} for name, value in differences.items()}
        rows.append({"letter": _letter(place), "same_records": item.paired, "metrics": shown})
    notes = [_with_letters(note, letters) for note in found.notes]
    return {"paired": rows, "paired_reason": "", "notes": notes}


def _with_letters(note: str, letters: Mapping[str, str]) -> str:
    for path, letter in letters.items():
        note = note.replace(f"`{path}`", letter).replace(f"`{path}/", f"`{letter}/")
    return note


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"run {place + 1}"


def _warnings(runs: Sequence[RunFiles]) -> list[str]:
    """Say where a comparison is not like with like."""
    found = []
    prints = {run.data.get("fingerprint") for run in runs}
    if len(prints) > 1:
        found.append("The runs have different data or splits: their scores are of different records.")
    if len({tuple(run.data.get("classes") or ()) for run in runs}) > 1:
        what = "alphabets" if any(run.task == "transcription" for run in runs) else "classes"
        found.append(f"The runs have different {what}.")
    return found


def _config_differences(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each key of the configs whose value is not the same in all, with its values as text."""
    flat = [dict(_flat(config)) for config in configs]
    names = dict.fromkeys(name for values in flat for name in values if not name.startswith(_IGNORED))
    rows = []
    for name in names:
        found = [values.get(name) for values in flat]
        # Of a class that only some of them have, its name says enough.
        holder = name.partition(".init_args.")[0]
        partly = holder != name and any(f"{holder}.class_path" not in values for values in flat)
        if len(set(found)) > 1 and not partly:
            rows.append({"key": name, "values": ["not set" if value is None else value for value in found]})
    return rows


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:  # noqa: ANN401 - any tree of a config
    if isinstance(value, Mapping) and value:
        return [pair for key, item in value.items() for pair in _flat(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        # A callback is known by its class, not by its place in the list.
        named = [(_class(item) or str(place), item) for place, item in enumerate(value)]
        return [pair for key, item in named for pair in _flat(item, f"{name}.{key}")]
    return [(name, str(value))]


def _class(item: Any) -> str:  # noqa: ANN401 - an entry of a list
    path = item.get("class_path") if isinstance(item, Mapping) else None
    return str(path).rsplit(".", 1)[-1] if path else ""


def _charts(runs: Sequence[RunFiles]) -> list[Chart]:
    charts = []
    for name in _CURVES:
        lines = [Line(_letter(place), validation_points(run, name)) for place, run in enumerate(runs)]
        label = metric_label(name)
        charts.append(line_chart(label[:1].upper() + label[1:], lines, x_label="epochs done", y_label=label))
    return [chart for chart in charts if chart is not None]
