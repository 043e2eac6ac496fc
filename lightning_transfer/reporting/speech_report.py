"""What the page on a run of speech recognition holds: its sections, their titles, and its charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_transfer.reporting import recognition, training
from lightning_transfer.reporting.alignments import alignments_section
from lightning_transfer.reporting.charts import Chart
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.retention import retention_charts, sweep_section
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores

__all__ = ["SPEECH_TITLES", "speech_data", "speech_forgetting_charts", "speech_makers"]

Section = dict[str, Any]

SPEECH_TITLES = {
    "data": "Data",
    "plan": "Plan: what trains when",
    "curves": "Training curves",
    "scores": "Errors beside other recognisers",
    "keywords": "Keywords",
    "words": "Words",
    "speakers": "Speakers",
    "slices": "Slices",
    "alignments": "Worst utterances and speakers",
    "forgetting": "What general speech lost",
    "cost": "Cost",
    "environment": "Environment",
    "card": "Model card",
}
_MOST_COLUMNS = 6
_MOST_VALUES = 20


def speech_makers(run: RunFiles, scores: Scores | None, forgetting: Forgetting) -> dict[str, Callable[[], Section]]:
    """Return what makes each section but the model card; a section says what was not measured.

    Args:
        run: Of a recogniser.
        scores: Of its test; None before it.
        forgetting: Of its fit.
    """
    hint = f"Not measured: run `{run.command} test RUN`."

    def tested(make: Callable[[Scores], Section]) -> Callable[[], Section]:
        return lambda: {"missing": hint} if scores is None else make(scores)

    return {
        "data": lambda: speech_data(run),
        "plan": lambda: training.plan_section(run),
        "curves": lambda: {"missing": "" if run.curves else "Not known: the run has no `logs/csv/metrics.csv`."},
        "scores": tested(lambda known: recognition.recognition_section(known, run, forgetting)),
        "keywords": tested(lambda known: recognition.keywords_section(run)),
        "words": tested(lambda known: recognition.words_section(known, run)),
        "speakers": tested(lambda known: recognition.speakers_section(known, run)),
        "slices": tested(lambda known: recognition.recognition_slices(known, run)),
        "alignments": tested(lambda known: alignments_section(run)),
        "forgetting": lambda: _forgetting(run, forgetting),
        "cost": lambda: _cost(run, scores),
        "environment": lambda: training.environment_section(run),
    }


def speech_data(run: RunFiles) -> Section:
    """Return utterances, hours and speakers of each split, and how often each accent, channel and so on is there."""
    found = {**training.data_section(run), "template": "speech_data", "classes": [], "by_class": []}
    found["splits"], found["speech_splits"] = [], []
    facts: Mapping[str, Mapping[str, Any]] = run.data.get("speech") or {}
    counts = run.data.get("counts") or run.plan.get("data") or {}
    groups = run.data.get("num_groups") or {}
    for split in dict.fromkeys([*counts, *facts]):
        own = facts.get(split) or {}
        found["speech_splits"].append(
            {
                "split": split,
                "utterances": own.get("utterances", sum((counts.get(split) or {}).values())),
                "seconds": own.get("seconds"),
                "unknown": own.get("unknown") or 0,
                "speakers": own.get("speakers", groups.get(split)),
            }
        )
    names = dict.fromkeys(name for own in facts.values() for name in own.get("columns") or {})
    found["columns"] = [_column(name, facts) for name in list(names)[:_MOST_COLUMNS]]
    found["missing"] = "" if found["speech_splits"] else "Not known: the run has no `data.json`."
    return found


def _column(name: str, facts: Mapping[str, Mapping[str, Any]]) -> Section:
    by_split = {split: (own.get("columns") or {}).get(name) or {} for split, own in facts.items()}
    totals: dict[str, int] = {}
    for counts in by_split.values():
        for value, n in counts.items():
            totals[value] = totals.get(value, 0) + n
    values = sorted(totals, key=lambda value: (-totals[value], value))
    return {
        "name": name,
        "splits": list(by_split),
        "rows": [
            {"value": value, "counts": [counts.get(value, 0) for counts in by_split.values()]}
            for value in values[:_MOST_VALUES]
        ],
        "more": max(0, len(values) - _MOST_VALUES),
    }


def _forgetting(run: RunFiles, forgetting: Forgetting) -> Section:
    found = training.forgetting_section(run, forgetting)
    hint = (
        "Not measured: name a general set (`data.general_file`), add `lightning_transfer.ForgettingMonitor` with "
        "`probe: general` and `metrics: [wer]` to `trainer.callbacks`, and fit again."
    )
    return {
        **found,
        "template": "speech_forgetting",
        "missing": hint if found["missing"] else "",
        "words": [item for item in found["sources"] if str(item["name"]).endswith("wer")],
        **sweep_section(run, forgetting),
    }


def _cost(run: RunFiles, scores: Scores | None) -> Section:
    found = training.cost_section(run, {} if scores is None else scores.latency)
    speed = {} if scores is None else dict(scores.metrics.get("real_time_factor") or {})
    return {**found, "real_time_factor": speed}


def speech_forgetting_charts(run: RunFiles, forgetting: Forgetting) -> list[Chart]:
    """Return what was lost over the epochs, and the trade-offs with the new task that were chosen from."""
    while_training = training.forgetting_charts(run, forgetting)
    chosen_from = retention_charts(run, forgetting)
    # The trade-off over the epochs is that of the budget, with more to see.
    return [*(while_training[:1] if run.forgetting.get("retention") else while_training), *chosen_from]
