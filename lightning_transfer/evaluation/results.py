"""What an evaluation found, frozen: tables, reports and ``metrics.json`` are made from it and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_transfer.errors import TransferError
from lightning_transfer.files import write_json
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration, Task

__all__ = ["ClassificationResult", "align", "format_table"]


@dataclass(frozen=True)
class ClassificationResult:
    """The scores of a classifier on one split, beside those of its baselines.

    Attributes:
        task: ``multiclass``, ``binary`` or ``multilabel``.
        classes: In the order of the logits.
        metrics: Name -> value with interval, the headline first.
        confusion: Records of each true class (rows) predicted as each class (columns); empty for multi-label.
        calibration: Temperature and threshold that were used.
        n: Labelled records.
        num_groups: Independent groups among them.
        negative_class: The class that means "nothing found"; None if there is none.
        baselines: Name -> the same metrics of a plain method on the same records.
        differences: Baseline -> metric -> model minus baseline, paired.
        descriptions: Baseline -> what it is and what was chosen for it.
        n_resamples: Of the bootstrap.
        confidence: Of the intervals.
    """

    task: Task
    classes: tuple[str, ...]
    metrics: Mapping[str, Interval]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    n: int
    num_groups: int
    negative_class: str | None = None
    baselines: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    n_resamples: int = 2000
    confidence: float = 0.95

    @property
    def recalls(self) -> dict[str, Interval]:
        """Class -> recall of the most probable class, in the order of the classes."""
        return {name: self.metrics[f"recall_{name}"] for name in self.classes}

    def flat(self) -> dict[str, dict[str, Any]]:
        """Return everything as ``{name: {value, low, high, n, num_groups, reason}}``.

        Baselines appear as ``macro_f1_of_majority``, differences as ``macro_f1_minus_majority``.
        """
        named = dict(self.metrics)
        for joint, rows in (("of", self.baselines), ("minus", self.differences)):
            for baseline, metrics in rows.items():
                named.update({f"{name}_{joint}_{baseline}": item for name, item in metrics.items()})
        return {name: item.to_dict() for name, item in named.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain lists, dicts, numbers and strings, free of NaN."""
        rows = {
            name: {key: {metric: item.to_dict() for metric, item in row.items()} for key, row in table.items()}
            for name, table in (("baselines", self.baselines), ("differences", self.differences))
        }
        return {
            "task": self.task,
            "classes": list(self.classes),
            "negative_class": self.negative_class,
            "n": self.n,
            "num_groups": self.num_groups,
            "metrics": {name: item.to_dict() for name, item in self.metrics.items()},
            "confusion": [list(row) for row in self.confusion],
            "calibration": self.calibration.to_dict(),
            **rows,
            "descriptions": dict(self.descriptions),
            "n_resamples": self.n_resamples,
            "confidence": self.confidence,
        }

    def write_json(self, path: str | Path) -> Path:
        """Write `flat` as ``metrics.json``: whole or not at all, and never over an earlier one.

        Raises:
            TransferError: If the file exists.
        """
        target = Path(path)
        if target.exists():
            raise TransferError(f"`{target}` exists and is not written over. Move it away, or choose another folder.")
        write_json(target, self.flat())
        return target


# What the short table compares; `metrics.json` holds every difference.
_HEADLINES = ("macro_f1", "auroc", "average_precision")


def format_table(result: ClassificationResult) -> str:
    """Return the result as aligned plain text: every metric beside the baselines, then the paired differences.

    Example:
        >>> found = {"macro_f1": Interval(0.5, 0.4, 0.6, n=10, num_groups=5)}
        >>> result = ClassificationResult("multiclass", ("a", "b"), found, (), Calibration(), n=10, num_groups=5)
        >>> print(format_table(result))
        10 records in 5 groups, 95% intervals by bootstrap over groups
        metric     n  model
        macro_f1  10  0.500 [0.400, 0.600]
    """
    share = f"{100 * result.confidence:g}%"
    lines = [f"{result.n} records in {result.num_groups} groups, {share} intervals by bootstrap over groups"]
    rows: list[tuple[str, ...]] = [("metric", "n", "model", *result.baselines)]
    for name, item in result.metrics.items():
        beside = (str(found[name]) if name in found else "" for found in result.baselines.values())
        rows.append((name, str(item.n), str(item), *beside))
    lines += align(rows, right=(1,))
    if result.metrics and result.calibration.threshold is not None:
        lines.append(f"threshold {result.calibration.threshold:.4g}: {result.calibration.rule}")
    compared = [name for name in _HEADLINES if all(name in found for found in result.differences.values())]
    if result.differences and compared:
        rows = [("model minus", *compared, "")]
        for name, found in result.differences.items():
            rows.append((name, *(_signed(found[key]) for key in compared), result.descriptions.get(name, "")))
        lines += ["", *align(rows)]
    return "\n".join(lines)


def _signed(item: Interval) -> str:
    if item.value is None or item.low is None or item.high is None:
        return str(item)
    return f"{item.value:+.3f} [{item.low:+.3f}, {item.high:+.3f}]"


def align(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Return the rows as lines of equally wide columns; those of ``right`` are flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = (
        [row[place].rjust(width) if place in right else row[place].ljust(width) for place, width in enumerate(widths)]
        for row in rows
    )
    return ["  ".join(row).rstrip() for row in cells]
