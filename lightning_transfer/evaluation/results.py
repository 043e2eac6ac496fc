"""What an evaluation found, frozen: tables, reports and ``metrics.json`` are made from it and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.clinical_result import ClinicalResult
from lightning_transfer.evaluation.confusions import ConfusionPair
from lightning_transfer.evaluation.curves import CurvePoint, Reliability
from lightning_transfer.evaluation.latency import Latency
from lightning_transfer.evaluation.routing_metrics import RoutingResult
from lightning_transfer.evaluation.shortcuts import ShortcutTable
from lightning_transfer.evaluation.slices import SliceTable
from lightning_transfer.files import write_json
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration, Task

__all__ = ["ClassificationResult", "named_rows", "plain_rows", "write_metrics"]

_Table = Mapping[str, Mapping[str, Interval]]


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
        decisions: As ``confusion``, for the decision at the stored threshold; the same where none is stored.
        confusion_pairs: Which class is taken for which other, the most frequent first; empty for multi-label.
        escapes: Ids of the defects that are decided to be none, the lowest score first; None without a negative class.
        negative_class: The class that means "nothing found"; None if there is none.
        baselines: Name -> the same metrics of a plain method on the same records.
        differences: Baseline -> metric -> model minus baseline, paired.
        descriptions: Baseline -> what it is and what was chosen for it.
        n_resamples: Of the bootstrap.
        confidence: Of the intervals.
        slices: The headline on parts of the records; None where it was not asked for.
        reliability: Confidence against accuracy; None where it was not measured.
        curve: What every threshold does to these records.
        latency: What prediction costs; None where it was not measured.
        seconds: What each part of the evaluation took.
        routing: What the routing policy did; None where the recipe does not route.
        clinical: Each finding by itself; None where the classes are no findings.
        shortcuts: What the features tell of columns such as the site; None where there is no such column.
    """

    task: Task
    classes: tuple[str, ...]
    metrics: Mapping[str, Interval]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    n: int
    num_groups: int
    decisions: tuple[tuple[int, ...], ...] = ()
    confusion_pairs: tuple[ConfusionPair, ...] = ()
    escapes: tuple[str, ...] | None = None
    negative_class: str | None = None
    baselines: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    n_resamples: int = 2000
    confidence: float = 0.95
    slices: SliceTable | None = None
    reliability: Reliability | None = None
    curve: tuple[CurvePoint, ...] = ()
    latency: Latency | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    routing: RoutingResult | None = None
    clinical: ClinicalResult | None = None
    shortcuts: ShortcutTable | None = None

    @property
    def headline(self) -> str:
        """The metric to look at first: AUROC of findings or of one score without a class to name; else macro-F1.

        Findings are rare, and F1 at one half is that of a threshold that nobody would use.
        """
        found, ranks = self.metrics.get("auroc"), self.task == "binary" or self.clinical is not None
        return "auroc" if ranks and found is not None and found.value is not None else "macro_f1"

    @property
    def recalls(self) -> dict[str, Interval]:
        """Class -> recall of the most probable class, in the order of the classes."""
        return {name: self.metrics[f"recall_{name}"] for name in self.classes}

    def flat(self) -> dict[str, dict[str, Any]]:
        """Return everything as ``{name: {value, low, high, n, num_groups, reason}}``.

        Baselines appear as ``macro_f1_of_majority``, differences as ``macro_f1_minus_majority``. ``escapes`` is a
        count. What comes from the calibration split, not from this one: ``threshold``, and for each operating point
        ``threshold_at_false_reject_<rate>`` and ``expected_false_reject_rate_at_<rate>``.
        Of slices and latency there is one line each; `to_dict` has them whole.
        """
        findings = {} if self.clinical is None else self.clinical.flat()
        gap = self._largest_gap()
        named = {
            **self.metrics,
            **findings,
            **gap,
            **self._counts(),
            **_fitted(self.calibration),
            **self._worst_slice(),
            **self._cost(),
        }
        named |= {} if self.shortcuts is None else self.shortcuts.flat()
        named |= named_rows(self.baselines, self.differences)
        return {name: item.to_dict() for name, item in named.items()}

    def _counts(self) -> dict[str, Interval]:
        if self.escapes is None or self.negative_class is None:
            return {}
        # Of the confusion's rows, which the decisions share.
        rows = zip(self.classes, self.decisions, strict=True)
        n = sum(sum(row) for name, row in rows if name != self.negative_class)
        return {"escapes": Interval(float(len(self.escapes)), None, None, n, reason="a count, without interval")}

    def _worst_slice(self) -> dict[str, Interval]:
        if self.slices is None or not self.slices.worst:
            return {}
        worst = self.slices.worst[0]
        why = f"`{worst.column}` is `{worst.value}`: the lowest of {len(self.slices.worst)} slices, by chance low too"
        return {f"{self.slices.headline}_worst_slice": replace(worst.metrics[self.slices.headline], reason=why)}

    def _largest_gap(self) -> dict[str, Interval]:
        if self.slices is None or not self.slices.gaps:
            return {}
        gap = self.slices.gaps[0]
        out = (
            "more than the largest of all gaps is by chance"
            if gap.stands_out
            else "as large as one of them is by chance"
        )
        why = f"`{gap.column}`: `{gap.best}` {gap.best_value:.3f}, `{gap.worst}` {gap.worst_value:.3f}; {out}"
        return {f"{self.slices.headline}_largest_gap": replace(gap.difference, reason=gap.difference.reason or why)}

    def _cost(self) -> dict[str, Interval]:
        if self.latency is None:
            return {}
        first, last = self.latency.rows[0], self.latency.rows[-1]
        found = {
            f"latency_p50_ms_batch_{first.batch_size}": first.p50_ms,
            f"items_per_s_batch_{last.batch_size}": last.items_per_s,
        }
        return {
            name: Interval(value, None, None, 1, reason=f"measured once on {self.latency.device}")
            for name, value in found.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain lists, dicts, numbers and strings, free of NaN."""
        return {
            "task": self.task,
            "classes": list(self.classes),
            "negative_class": self.negative_class,
            "n": self.n,
            "num_groups": self.num_groups,
            "metrics": {name: item.to_dict() for name, item in self.metrics.items()},
            "confusion": [list(row) for row in self.confusion],
            "decisions": [list(row) for row in self.decisions],
            "confusion_pairs": [pair.to_dict() for pair in self.confusion_pairs],
            "escapes": None if self.escapes is None else list(self.escapes),
            "calibration": self.calibration.to_dict(),
            **plain_rows(self.baselines, self.differences),
            "descriptions": dict(self.descriptions),
            "n_resamples": self.n_resamples,
            "confidence": self.confidence,
            "headline": self.headline,
            **_slices(self.slices),
            "reliability": None if self.reliability is None else self.reliability.to_dict(),
            "curve": [asdict(point) for point in self.curve],
            "latency": None if self.latency is None else self.latency.to_dict(),
            "seconds": dict(self.seconds),
            "routing": None if self.routing is None else self.routing.to_dict(),
            "clinical": None if self.clinical is None else self.clinical.to_dict(),
            "shortcuts": None if self.shortcuts is None else self.shortcuts.to_dict(),
        }

    def write_json(self, path: str | Path) -> Path:
        """Write `flat` as ``metrics.json``; see `write_metrics`."""
        return write_metrics(path, self.flat())


def write_metrics(path: str | Path, flat: Mapping[str, Any]) -> Path:
    """Write metrics as a JSON file: whole or not at all, and never over an earlier one.

    Args:
        path: Of the file.
        flat: Name -> plain values.

    Raises:
        TransferError: If the file exists.
    """
    target = Path(path)
    if target.exists():
        raise TransferError(f"`{target}` exists and is not written over. Move it away, or choose another folder.")
    write_json(target, flat)
    return target


def named_rows(baselines: _Table, differences: _Table) -> dict[str, Interval]:
    """Return the metrics of all baselines, and the differences to them, each under a name of its own.

    Example:
        >>> found = {"majority": {"wer": Interval(0.5, 0.4, 0.6, n=10)}}
        >>> list(named_rows(found, found))
        ['wer_of_majority', 'wer_minus_majority']
    """
    return {
        f"{name}_{joint}_{baseline}": item
        for joint, table in (("of", baselines), ("minus", differences))
        for baseline, metrics in table.items()
        for name, item in metrics.items()
    }


def plain_rows(baselines: _Table, differences: _Table) -> dict[str, Any]:
    """Return both tables as plain values, under ``baselines`` and ``differences``."""
    return {
        name: {key: {metric: item.to_dict() for metric, item in row.items()} for key, row in table.items()}
        for name, table in (("baselines", baselines), ("differences", differences))
    }


def _slices(table: SliceTable | None) -> dict[str, Any]:
    if table is None:
        return {"slices": [], "slices_left_out": {}, "slices_note": "", "slices_headline": "", "slices_gaps": []}
    return {
        "slices": [item.to_dict() for item in table.slices],
        "slices_left_out": dict(table.left_out),
        "slices_note": table.note,
        "slices_headline": table.headline,
        "slices_gaps": [gap.to_dict() for gap in table.gaps],
    }


def _fitted(calibration: Calibration) -> dict[str, Interval]:
    """Return the thresholds with the intervals that they got on the calibration split."""
    if calibration.threshold is None:
        return {}
    if not calibration.points:
        reason = "no interval was stored with this threshold"
        return {"threshold": Interval(calibration.threshold, None, None, calibration.n, reason=reason)}
    named = {}
    for point in calibration.points:
        at = f"{point.max_false_reject_rate:g}"
        low, high = point.threshold_interval or (None, None)
        about = (point.num_negative, point.num_groups, point.note)
        named[f"threshold_at_false_reject_{at}"] = Interval(point.threshold, low, high, *about)
        rate_low, rate_high = point.false_reject_interval
        named[f"expected_false_reject_rate_at_{at}"] = Interval(point.false_reject_rate, rate_low, rate_high, *about)
    first = calibration.points[0]
    return {"threshold": named[f"threshold_at_false_reject_{first.max_false_reject_rate:g}"], **named}
