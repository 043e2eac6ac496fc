"""What a run did to the old task, from the files that its fit left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_transfer.reporting.numbers import usable
from lightning_transfer.reporting.run_files import RunFiles

__all__ = ["Forgetting", "steps_per_epoch"]

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Forgetting:
    """What was measured of the old task.

    Attributes:
        sources: Name of the old task -> ``before``, ``after`` and ``chance`` of its accuracy; of a word error rate,
            whose name ends with ``wer``, ``before``, ``after`` and their paired ``change``; of an AUROC all four.
        readings: Logged name -> (epochs done, value), in order: ``forgetting_*`` and ``drift_*``, positive is worse.
        frozen: Whether no part of the backbone ever trained, so that nothing could be forgotten.
    """

    sources: Mapping[str, Mapping[str, Item]] = field(default_factory=dict)
    readings: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    frozen: bool = False

    @classmethod
    def read(cls, run: RunFiles) -> Forgetting:
        """Return what the fit of a run measured."""
        sources = {}
        for name, before in run.fit.items():
            if name.startswith("source_") and name.endswith("_before") and isinstance(before, Mapping):
                old = name.removesuffix("_before")
                names = ("before", "after", "change" if old.endswith("_wer") else "chance")
                parts = {part: run.fit.get(f"{old}_{part}") or {} for part in names}
                if f"{old}_change" in run.fit:
                    parts["change"] = run.fit[f"{old}_change"] or {}
                sources[old.replace("_", " ")] = parts
        each = steps_per_epoch(run)
        readings: dict[str, list[tuple[float, float]]] = {}
        for row in run.curves:
            for name, value in row.items():
                if name.startswith(("forgetting_", "drift_")) and usable(value) is not None and "step" in row:
                    readings.setdefault(name, []).append((row["step"] / each, value))
        stages = [stage for stage in run.plan.get("stages") or () if stage.get("reached", True)]
        frozen = bool(stages) and not any(stage.get("open_groups") for stage in stages)
        return cls(sources, {name: tuple(sorted(points)) for name, points in readings.items()}, frozen)


def steps_per_epoch(run: RunFiles) -> float:
    """Return the optimizer steps of an epoch, as the rows of validation tell; 1 where there are none."""
    # Validation of epoch 0 is logged with the step that was just done, counted from 0.
    rows = [row for row in run.curves if any(name.startswith("val_") for name in row) and "epoch" in row]
    counts = [(row["step"] + 1) / (row["epoch"] + 1) for row in rows if row.get("step", 0) > 0]
    return max(counts, default=1.0)
