"""The scores of a run's test in one shape, whichever files it left: ``evaluation.json``, or ``metrics.json`` alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_transfer.reporting.numbers import BASELINES, lower_is_better, usable
from lightning_transfer.reporting.run_files import RunFiles

__all__ = ["Point", "Scores", "count_table"]

Item = Mapping[str, Any]
"""A metric as ``metrics.json`` holds it: value, low, high, n, num_groups, reason."""

_HEADLINES = ("macro_f1", "wer", "dice", "auroc", "accuracy")
_FITTED = ("threshold", "threshold_at_false_reject_", "expected_false_reject_rate_at_")


@dataclass(frozen=True)
class Point:
    """A threshold that was fitted on the calibration split, and what it did on the test split.

    Attributes:
        asked: Highest share of the negative class that it may reject.
        threshold: With its interval.
        expected: False-reject rate on the calibration split, with the interval for new records.
        rate: False-reject rate on the test split.
        recall: Share of the other classes that it finds there.
        note: What the data were too few for.
        chosen: Whether it decided.
    """

    asked: float
    threshold: Item
    expected: Item
    rate: Item | None
    recall: Item | None
    note: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Scores:
    """What a test found. Every mapping may be empty, and every metric may lack its value.

    Attributes:
        headline: Name of the metric to look at first.
        metrics: Name -> item.
        classes: In the order of the tables.
        negative_class: The class that means "nothing found".
        n: Labelled records.
        num_groups: Independent groups among them.
        confidence: Of the intervals.
        baselines: Name -> the same metrics.
        differences: Baseline -> metric -> model minus baseline, paired.
        descriptions: Baseline -> what it is.
        confusion: Records of each true class (rows) by the most probable class.
        decisions: The same at the threshold.
        confusion_pairs: Which class is taken for which other, the most frequent first, as ``evaluation.json`` has it.
        routing: What is routed, asked and out of scope, as ``evaluation.json`` has it; empty where nothing is routed.
        label_thresholds: Multi-label: class -> probability from which it is called; empty: 0.5.
        label_rules: Class -> how that was chosen.
        threshold: On the score; None where the most probable class decides.
        rule: How the threshold was chosen.
        temperature: Divides the logits.
        points: Operating points, the smallest rate first.
        slices: Rows as ``evaluation.json`` holds them.
        reliability: Bins and errors before and after temperature.
        curve: False-reject rate and recall by threshold.
        latency: Time and size of the model.
        shortcuts: What the features tell of columns such as the site, as ``evaluation.json`` has it.
    """

    headline: str
    metrics: Mapping[str, Item]
    classes: tuple[str, ...] = ()
    negative_class: str | None = None
    n: int = 0
    num_groups: int | None = None
    confidence: float = 0.95
    baselines: Mapping[str, Mapping[str, Item]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Item]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()
    decisions: tuple[tuple[int, ...], ...] = ()
    confusion_pairs: tuple[Item, ...] = ()
    routing: Mapping[str, Any] = field(default_factory=dict)
    label_thresholds: Mapping[str, float] = field(default_factory=dict)
    label_rules: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    rule: str = ""
    temperature: float | None = None
    points: tuple[Point, ...] = ()
    slices: tuple[Item, ...] = ()
    reliability: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[Item, ...] = ()
    latency: Mapping[str, Any] = field(default_factory=dict)
    shortcuts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, run: RunFiles) -> Scores | None:
        """Return the scores of a run's latest test; None before the first."""
        if run.test is None:
            return None
        found = run.evaluation
        flat = {name: item for name, item in run.metrics.items() if isinstance(item, Mapping)}
        own, baselines, differences = _divided(flat)
        metrics = found.get("metrics") or own
        classes = tuple(found.get("classes") or run.data.get("classes") or ())
        calibration: Mapping[str, Any] = found.get("calibration") or {}
        first_of = ("auroc", *_HEADLINES) if run.data.get("task") == "binary" else _HEADLINES
        headline = str(found.get("headline") or next((item for item in first_of if item in metrics), ""))
        first = metrics.get(headline) or {}
        threshold = usable(calibration.get("threshold"))
        if threshold is None:
            threshold = usable((flat.get("threshold") or {}).get("value"))
        if threshold is None:
            threshold = _written_threshold(run.predictions)
        return cls(
            headline=headline,
            metrics=metrics,
            classes=classes,
            negative_class=found.get("negative_class") or run.data.get("negative_class"),
            n=int(found.get("n") or first.get("n") or 0),
            num_groups=found.get("num_groups") or first.get("num_groups"),
            confidence=float(found.get("confidence") or 0.95),
            baselines=found.get("baselines") or baselines,
            differences=found.get("differences") or differences,
            descriptions=found.get("descriptions") or {},
            confusion=_table(found.get("confusion")) or count_table(run.predictions, classes, "predicted"),
            decisions=_table(found.get("decisions")) or count_table(run.predictions, classes, "decision"),
            confusion_pairs=tuple(found.get("confusion_pairs") or ()),
            routing=found.get("routing") or {},
            label_thresholds=dict(zip(classes, calibration.get("label_thresholds") or (), strict=False)),
            label_rules=dict(zip(classes, calibration.get("label_rules") or (), strict=False)),
            threshold=threshold,
            rule=str(calibration.get("rule") or ""),
            temperature=usable(calibration.get("temperature")),
            points=tuple(sorted(_points(calibration, flat, metrics), key=lambda point: point.asked)),
            slices=tuple(found.get("slices") or ()),
            reliability=found.get("reliability") or {},
            curve=tuple(found.get("curve") or ()),
            latency=found.get("latency") or {},
            shortcuts=found.get("shortcuts") or {},
        )

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the best headline; None where none has one."""
        sign = -1.0 if lower_is_better(self.headline) else 1.0
        values = {
            name: sign * value
            for name, row in self.baselines.items()
            if (value := usable((row.get(self.headline) or {}).get("value"))) is not None
        }
        return max(values, key=values.__getitem__) if values else None

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics to show first: the headline, then those without a class in their name that there are."""
        wanted = (
            *(self.headline, "micro_f1", "macro_f1_at_thresholds", "micro_f1_at_thresholds", *_HEADLINES),
            *("top_3_accuracy", "average_precision", "cer", "image_dice", "hd95", "pixel_auroc", "pro"),
        )
        return tuple(dict.fromkeys(name for name in wanted if name in self.metrics))

    @property
    def levels(self) -> tuple[int, ...]:
        """Parts of the classes' names that make a level above the leaves, the coarsest first."""
        found = (re.fullmatch(r"accuracy_level_(\d+)", name) for name in self.metrics)
        return tuple(sorted(int(match.group(1)) for match in found if match))


def _divided(
    flat: Mapping[str, Item],
) -> tuple[dict[str, Item], dict[str, dict[str, Item]], dict[str, dict[str, Item]]]:
    """Take the names of ``metrics.json`` apart: the model's, those of baselines, and the differences to them."""
    # A class may be called `a_of_b`: only what stands behind the headline's name is a baseline.
    pattern = re.compile(rf"(?:{'|'.join(_HEADLINES)})_of_(.+)")
    names = [match.group(1) for name in flat if (match := pattern.fullmatch(name))]
    names = [name for name in names if name in BASELINES] or names
    baselines: dict[str, dict[str, Item]] = {name: {} for name in dict.fromkeys(names)}
    differences: dict[str, dict[str, Item]] = {name: {} for name in baselines}
    own: dict[str, Item] = {}
    for name, item in flat.items():
        for joint, rows in (("_of_", baselines), ("_minus_", differences)):
            ending = next((key for key in rows if name.endswith(f"{joint}{key}")), None)
            if ending is not None:
                rows[ending][name.removesuffix(f"{joint}{ending}")] = item
                break
        else:
            if not name.startswith(_FITTED) and name != "escapes":
                own[name] = item
    return own, baselines, {name: row for name, row in differences.items() if row}


def _points(calibration: Mapping[str, Any], flat: Mapping[str, Item], metrics: Mapping[str, Item]) -> Iterator[Point]:
    stored: Sequence[Mapping[str, Any]] = calibration.get("points") or ()
    for place, point in enumerate(stored):
        at = f"{float(point['max_false_reject_rate']):g}"
        low, high = point.get("threshold_interval") or (None, None)
        from_low, to_high = point.get("false_reject_interval") or (None, None)
        about = {"n": point.get("num_negative"), "num_groups": point.get("num_groups")}
        yield Point(
            asked=float(point["max_false_reject_rate"]),
            threshold={"value": point.get("threshold"), "low": low, "high": high, **about},
            expected={"value": point.get("false_reject_rate"), "low": from_low, "high": to_high, **about},
            rate=metrics.get(f"false_reject_rate_at_{at}"),
            recall=metrics.get(f"recall_at_false_reject_{at}"),
            note=str(point.get("note") or ""),
            chosen=place == 0,
        )
    if stored:
        return
    cut = usable((flat.get("threshold") or {}).get("value"))
    for name, item in flat.items():
        at = name.removeprefix("threshold_at_false_reject_")
        if at == name or usable_text(at) is None:
            continue
        yield Point(
            asked=float(at),
            threshold=item,
            expected=flat.get(f"expected_false_reject_rate_at_{at}") or {},
            rate=metrics.get(f"false_reject_rate_at_{at}"),
            recall=metrics.get(f"recall_at_false_reject_{at}"),
            note=str(item.get("reason") or ""),
            chosen=cut is not None and cut == usable(item.get("value")),
        )


def usable_text(text: str) -> float | None:
    """Return the finite number that a text spells, or None.

    Example:
        >>> usable_text("0.05"), usable_text("nan"), usable_text("")
        (0.05, None, None)
    """
    try:
        return usable(float(text))
    except ValueError:
        return None


def _written_threshold(rows: Sequence[Mapping[str, str]]) -> float | None:
    return next((found for row in rows if (found := usable_text(row.get("threshold", ""))) is not None), None)


def _table(value: object) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(cell) for cell in row) for row in value) if isinstance(value, list) else ()


def count_table(rows: Sequence[Mapping[str, str]], classes: Sequence[str], column: str) -> tuple[tuple[int, ...], ...]:
    """Count the predictions of each true class (rows) by what stands in a column; empty where no row fits.

    Example:
        >>> rows = [{"label": "a", "decision": "b"}, {"label": "a", "decision": "a"}, {"label": "a", "decision": "?"}]
        >>> count_table(rows, ["a", "b"], "decision")
        ((1, 1), (0, 0))
    """
    places = {name: place for place, name in enumerate(classes)}
    table = [[0] * len(places) for _ in places]
    for row in rows:
        true, found = places.get(row.get("label", "")), places.get(row.get(column, ""))
        if true is not None and found is not None:
            table[true][found] += 1
    return tuple(tuple(row) for row in table) if any(map(any, table)) else ()
