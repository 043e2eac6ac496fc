"""What a fit leaves for later verbs in ``RUN/metrics.json``: its score, its seconds, and what the old task lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer.callbacks import ForgettingMonitor, RetentionBudget
from lightning_transfer.metrics import Interval

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["fit_facts", "forgetting_facts", "read_facts", "source_lines"]


def fit_facts(cli: TransferCLI, step: int, seconds: float) -> dict[str, Interval]:
    """Return the fit's seconds, and what was scored on the old task before the fit, and by the kept weights.

    Args:
        cli: After its trainer's ``fit``.
        step: Optimizer step of the kept weights.
        seconds: That the fit took.
    """
    facts = {"fit_seconds": Interval(seconds, None, None, 1, reason="measured once")}
    for callback in cli.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ForgettingMonitor):
            for name, found in callback.source_scores(step).items():
                facts.update({f"{name}_{part}": item for part, item in found.items()})
    return facts


def source_lines(facts: Mapping[str, Interval]) -> Iterator[str]:
    """Yield a line for each old task that was watched.

    Example:
        >>> shares = {"before": 0.75, "after": 0.5, "chance": 0.125}
        >>> facts = {f"source_accuracy_{part}": Interval(value, None, None, 40) for part, value in shares.items()}
        >>> list(source_lines(facts))
        ['Source accuracy: 0.750 [n/a] before, 0.500 [n/a] after (chance 0.125)']
        >>> rates = {"before": Interval(0.1, 0.0, 0.2, 40), "after": Interval(0.15, None, None, 40)}
        >>> facts = {f"source_wer_{part}": item for part, item in rates.items()}
        >>> list(source_lines({**facts, "source_wer_change": Interval(0.05, 0.01, 0.09, 40)}))
        ['Source WER: 0.100 [0.000, 0.200] before, 0.150 after, by 0.050 [0.010, 0.090]']
    """
    for key, before in facts.items():
        if key.startswith("source_") and key.endswith("_before"):
            name = key.removesuffix("_before")
            title, after = name.replace("_", " ").capitalize(), facts[f"{name}_after"]
            title = title.replace("auroc", "AUROC")
            if f"{name}_chance" in facts:
                change = facts.get(f"{name}_change")
                if change is not None and change.value is not None and after.value is not None:
                    yield f"{title}: {before} before, {after.value:.3f} after, changed by {change}"
                    continue
                yield f"{title}: {before} before, {after} after (chance {facts[f'{name}_chance'].value:.3f})"
                continue
            change = facts[f"{name}_change"]
            now = str(after) if after.value is None else f"{after.value:.3f} after, by {change}"
            yield f"{title.replace('wer', 'WER')}: {before} before, {now}"


def forgetting_facts(cli: TransferCLI) -> dict[str, Any]:
    """Return the whole story of what was forgotten, as plain values; nothing where nobody watched.

    ``monitors`` holds the summary of each `ForgettingMonitor`, with the sweep of weights between pretrained and
    fine-tuned where there was one; ``retention`` what a `RetentionBudget` chose by.
    """
    callbacks = cli.trainer.callbacks  # type: ignore[attr-defined]
    summaries = [dict(item.summary) for item in callbacks if isinstance(item, ForgettingMonitor) and item.summary]
    budget = next((item for item in callbacks if isinstance(item, RetentionBudget) and item.rows), None)
    if not summaries:
        return {}
    return {"monitors": summaries, "retention": None if budget is None else budget.to_dict()}


def read_facts(run: Path) -> dict[str, Interval]:
    """Return what the fit of a run wrote; nothing where there is no such file, or another program's."""
    try:
        values = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        return {name: Interval(**item) for name, item in values.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
