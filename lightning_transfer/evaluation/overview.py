"""The table to look at first: a row for each method, what it scores, what it did to the old task, what it took."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_transfer.evaluation.baselines import BaselineOutputs
from lightning_transfer.evaluation.results import ClassificationResult
from lightning_transfer.evaluation.terminal import align
from lightning_transfer.metrics import Interval

__all__ = ["format_overview"]

_NAMES = {
    "majority": "majority class",
    "plain": "plain method, no network",
    "scratch": "from scratch",
    "knn": "neighbours, frozen backbone",
    "linear_probe": "linear probe, frozen backbone",
}
_FROZEN = ("knn", "linear_probe")
_METRICS = ("macro_f1", "auroc")


def format_overview(
    result: ClassificationResult, baselines: Mapping[str, BaselineOutputs], facts: Mapping[str, Interval]
) -> str:
    """Return the table as aligned plain text.

    Args:
        result: The model's scores beside those of its baselines.
        baselines: Their seconds.
        facts: Of the fit: ``fit_seconds``, and ``source_accuracy_before``, ``_after`` and ``_chance`` where the old
            task was watched; a frozen backbone keeps the accuracy from before.
    """
    before, after, chance = (facts.get(f"source_accuracy_{part}") for part in ("before", "after", "chance"))
    head = ["", *_METRICS, *(["source accuracy"] if before else []), "seconds"]
    rows = [tuple(head)]
    for name in (*(item for item in _NAMES if item in result.baselines), ""):
        scores = result.baselines[name] if name else result.metrics
        source = str(after) if not name else str(before) if name in _FROZEN else ""
        took = facts.get("fit_seconds") if not name else None
        seconds = baselines[name].seconds if name in baselines else None if took is None else took.value
        cells = [_NAMES.get(name, "this model"), *(str(scores.get(metric, "")) for metric in _METRICS)]
        cells += [source] if before else []
        rows.append((*cells, "" if seconds is None else f"{seconds:.1f}"))
    lines = align(rows, right=(len(head) - 1,))
    if before and chance and chance.value is not None:
        lines.append(f"source accuracy: {before} before adapting, chance {chance.value:.3f}")
    return "\n".join(lines)
