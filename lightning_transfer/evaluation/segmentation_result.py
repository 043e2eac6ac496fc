"""What an evaluation of masks found, frozen: tables and reports are made from it and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_transfer.evaluation.results import named_rows, plain_rows, write_metrics
from lightning_transfer.evaluation.slices import SliceTable
from lightning_transfer.metrics import Interval

__all__ = ["KindScore", "SegmentationResult", "WorstMask"]


@dataclass(frozen=True)
class WorstMask:
    """A picture whose mask fits badly.

    Attributes:
        id: Of the record.
        path: Of the picture, as text.
        label: Of the whole picture; None if it has none.
        kind: ``poor`` where something is shown and drawn, ``missed`` where what is shown is not met at all, ``false``
            where nothing is shown and something is drawn.
        dice: Of all classes but the background; None where the truth shows nothing.
        drawn: Pixels that were drawn.
        shown: Pixels of the truth.
        mask: File of the drawn mask, relative to the folder of the test; empty if it was not written.
    """

    id: str
    path: str
    label: str | None
    kind: str
    dice: float | None
    drawn: int
    shown: int
    mask: str = ""


@dataclass(frozen=True)
class KindScore:
    """One kind of picture, beside those that show nothing.

    Attributes:
        kind: Label of the whole picture, such as the kind of defect.
        n: Pictures of the kind with a known truth.
        metrics: ``dice``, ``pixel_auroc``, ``pro``, ``missed_rate``: the name in the flat table has the kind behind it.
    """

    kind: str
    n: int
    metrics: Mapping[str, Interval]


@dataclass(frozen=True)
class SegmentationResult:
    """How well masks fit on one split, beside those of baselines.

    Attributes:
        metrics: Name -> value with interval, ``dice`` first.
        n: Pictures with a known truth.
        num_groups: Independent groups among them.
        classes: Of pixels, the background first.
        unit: Of the distances: ``mm`` or ``px``.
        num_shown: Pictures whose truth shows anything but the background.
        num_unknown: Pictures that were run and have no truth.
        baselines: Name -> the same metrics of another model on the same pictures.
        differences: Baseline -> metric -> model minus baseline, paired.
        descriptions: Baseline -> what it is and what was chosen for it.
        kinds: Each kind of picture, where the records have labels.
        slices: Dice on parts of the records; None where it was not asked for.
        worst: Pictures whose masks fit worst.
        notes: What must be known to read the numbers.
        n_resamples: Of the bootstrap.
        confidence: Of the intervals.
        seconds: What each part of the evaluation took.
    """

    metrics: Mapping[str, Interval]
    n: int
    num_groups: int
    classes: tuple[str, ...]
    unit: str = "px"
    num_shown: int = 0
    num_unknown: int = 0
    baselines: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[KindScore, ...] = ()
    slices: SliceTable | None = None
    worst: tuple[WorstMask, ...] = ()
    notes: tuple[str, ...] = ()
    n_resamples: int = 2000
    confidence: float = 0.95
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The metric to look at first."""
        return "dice"

    def flat(self) -> dict[str, dict[str, Any]]:
        """Return everything as ``{name: {value, low, high, n, num_groups, reason}}``.

        Baselines appear as ``dice_of_unet``, differences as ``dice_minus_unet``.
        """
        named = dict(self.metrics)
        named |= named_rows(self.baselines, self.differences)
        return {name: item.to_dict() for name, item in named.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain lists, dicts, numbers and strings, free of NaN."""
        table = self.slices or SliceTable("dice")
        return {
            "task": "segmentation",
            "headline": self.headline,
            "n": self.n,
            "num_groups": self.num_groups,
            "classes": list(self.classes),
            "unit": self.unit,
            "num_shown": self.num_shown,
            "num_unknown": self.num_unknown,
            "metrics": {name: item.to_dict() for name, item in self.metrics.items()},
            **plain_rows(self.baselines, self.differences),
            "descriptions": dict(self.descriptions),
            "kinds": [
                {"kind": item.kind, "n": item.n, "metrics": {key: one.to_dict() for key, one in item.metrics.items()}}
                for item in self.kinds
            ],
            "slices": [item.to_dict() for item in table.slices],
            "slices_left_out": dict(table.left_out),
            "slices_note": table.note,
            "worst_masks": [asdict(item) for item in self.worst],
            "notes": list(self.notes),
            "n_resamples": self.n_resamples,
            "confidence": self.confidence,
            "seconds": dict(self.seconds),
        }

    def write_json(self, path: str | Path) -> Path:
        """Write `flat` as ``metrics.json``; see `write_metrics`."""
        return write_metrics(path, self.flat())
