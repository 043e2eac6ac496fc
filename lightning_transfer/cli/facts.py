"""What a fit leaves for later verbs in ``RUN/metrics.json``: its score, its seconds, and what the old task lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_transfer.callbacks import ForgettingMonitor
from lightning_transfer.metrics import Interval

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["fit_facts", "read_facts", "source_lines"]


def fit_facts(cli: TransferCLI, step: int, seconds: float) -> dict[str, Interval]:
    """Return the fit's seconds, and the accuracy on the old task before the fit, of the kept weights, and by chance.

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
    """
    for key, before in facts.items():
        if key.startswith("source_") and key.endswith("_before"):
            name = key.removesuffix("_before")
            after, chance = facts[f"{name}_after"], facts[f"{name}_chance"].value
            yield f"{name.replace('_', ' ').capitalize()}: {before} before, {after} after (chance {chance:.3f})"


def read_facts(run: Path) -> dict[str, Interval]:
    """Return what the fit of a run wrote; nothing where there is no such file, or another program's."""
    try:
        values = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        return {name: Interval(**item) for name, item in values.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
