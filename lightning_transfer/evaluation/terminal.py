"""What was fitted and found, as plain text for the terminal."""

from __future__ import annotations

from lightning_transfer.errors import listing
from lightning_transfer.evaluation.latency import Latency
from lightning_transfer.evaluation.results import ClassificationResult
from lightning_transfer.evaluation.slices import SliceTable
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration, OperatingPoint

__all__ = ["align", "cell", "format_calibration", "format_latency", "format_slices", "format_table", "signed"]

# With more classes than these, a table of all of them is no longer read: the worst ones are shown.
_MOST_CLASSES = 20
_WORST_CLASSES = 10
# Wider matrices than this do not fit on a screen; the pairs say what there is to see.
_MOST_IN_MATRIX = 30
_MOST_PAIRS = 10
# What the short table compares; `metrics.json` holds every difference.
_HEADLINES = ("macro_f1", "auroc", "average_precision")


def format_table(result: ClassificationResult) -> str:
    """Return the result as aligned plain text.

    Every metric beside the baselines, the paired differences, recall and precision of each class (of many the worst),
    which class is taken for which, the operating points, and the confusion matrix of the decisions with what was let
    through.

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
        if _is_below(name, result):
            continue
        beside = (str(found[name]) if name in found else "" for found in result.baselines.values())
        rows.append((name, str(item.n), str(item), *beside))
    lines += align(rows, right=(1,))
    if result.metrics and result.calibration.threshold is not None:
        lines.append(f"threshold {result.calibration.threshold:.4g}: {result.calibration.rule}")
    compared = [name for name in _HEADLINES if all(name in found for found in result.differences.values())]
    if result.differences and compared:
        rows = [("model minus", *compared, "")]
        for name, found in result.differences.items():
            rows.append((name, *(signed(found[key]) for key in compared), result.descriptions.get(name, "")))
        lines += ["", *align(rows)]
    lines += _classes(result) + _confusions(result) + _operating_points(result) + _decisions(result)
    return "\n".join(lines)


def format_calibration(calibration: Calibration) -> str:
    """Return temperature, thresholds and operating points as plain text, for a fit and a prediction.

    Example:
        >>> point = OperatingPoint(0.05, 0.25, (0.2, 0.3), 0.04, (0.01, 0.1), 50, 20, rule="at most 0.05 of `good`")
        >>> print(format_calibration(Calibration(1.5, 0.25, point.rule, 70, (point,))))
        Calibration: temperature 1.5, threshold 0.25 (at most 0.05 of `good`)
          false rejects  threshold          on calibration  expected on new ones (95%)
          <= 5%, chosen  0.25 [0.2, 0.3]    0.040 of 50     [0.010, 0.100]
    """
    threshold = "none" if calibration.threshold is None else f"{calibration.threshold:.4g}"
    if calibration.label_thresholds:
        found = calibration.label_thresholds
        threshold = f"{min(found):.3g}" if min(found) == max(found) else f"{min(found):.3g} to {max(found):.3g}"
    lines = [f"Calibration: temperature {calibration.temperature:.4g}, threshold {threshold} ({calibration.rule})"]
    rows: list[tuple[str, ...]] = [("false rejects", "threshold", "on calibration", "expected on new ones (95%)")]
    for point in _by_rate(calibration):
        on_calibration = f"{point.false_reject_rate:.3f} of {point.num_negative}"
        rows.append((_asked(point, calibration), _cut(point), on_calibration, _expected(point)))
    if calibration.points:
        lines += [f"  {line}" for line in align(rows)] + _notes(calibration)
    return "\n".join(lines)


def format_slices(table: SliceTable | None, most: int = 5) -> str:
    """Return the worst slices as plain text; small ones are counted, not shown. Empty without slices.

    Args:
        table: Of `evaluate_slices`.
        most: Slices to show.
    """
    if table is None or not (table.slices or table.left_out):
        return ""
    lines = []
    if table.slices:
        small = sum(item.small for item in table.slices)
        about = f", {small} of them small and not shown" if small else ""
        lines = [f"Slices: the worst of {len(table.slices)} by {table.headline}{about}"]
        rows: list[tuple[str, ...]] = [("column", "value", "n", "groups", table.headline, "minus the rest", "")]
        for item in table.worst[:most]:
            cells = (item.column, item.value, str(item.n), str(item.num_groups), str(item.metrics[table.headline]))
            rows.append((*cells, signed(item.difference), "stands out" if item.stands_out else ""))
        lines += [*align(rows, right=(2, 3)), table.note] if len(rows) > 1 else [table.note]
    lines += [f"No slices by `{column}`: {reason}." for column, reason in table.left_out.items()]
    return "\n".join(lines)


def format_latency(latency: Latency | None) -> str:
    """Return what prediction costs as plain text; empty where it was not measured.

    Example:
        >>> from lightning_transfer.evaluation.latency import LatencyRow
        >>> row = LatencyRow(8, 2.5, 3.0, 3200.0, runs=200)
        >>> print(format_latency(Latency("cpu", 1, (row,), 12.3, "weights and tensors", 7.5, 1_800_000)))
        Latency on cpu, 1 thread: forward passes on items in memory: no file is read, decoded or resized
        batch  p50 ms  p95 ms  items/s  passes
            8    2.50    3.00    3,200     200
        1,800,000 parameters, 7.5 MB on disk, 12.3 MB at the peak (weights and tensors)
    """
    if latency is None:
        return ""
    threads = f"{latency.threads} thread{'s' if latency.threads != 1 else ''}"
    rows: list[tuple[str, ...]] = [("batch", "p50 ms", "p95 ms", "items/s", "passes")]
    for row in latency.rows:
        p95 = "n/a" if row.p95_ms is None else f"{row.p95_ms:.2f}"
        rows.append((str(row.batch_size), f"{row.p50_ms:.2f}", p95, f"{row.items_per_s:,.0f}", str(row.runs)))
    size = "" if latency.size_mb is None else f", {latency.size_mb:.1f} MB on disk"
    peak = f"{latency.peak_memory_mb:.1f} MB at the peak ({latency.peak_memory})"
    return "\n".join(
        [
            f"Latency on {latency.device}, {threads}: {latency.note}",
            *align(rows, right=(0, 1, 2, 3, 4)),
            f"{latency.num_parameters:,} parameters{size}, {peak}",
        ]
    )


def _is_below(name: str, result: ClassificationResult) -> bool:
    """Tell whether a metric stands in a table of its own, below the first."""
    of_classes = {f"{kind}_at_threshold_{label}" for kind in ("recall", "precision") for label in result.classes}
    if _has_table_of_classes(result):
        of_classes |= {f"{kind}_{label}" for kind in ("recall", "precision") for label in result.classes}
    shown = name == "escape_rate" or name in of_classes
    return shown or name.startswith(("recall_at_false_reject_", "false_reject_rate_at_"))


def _has_table_of_classes(result: ClassificationResult) -> bool:
    return any(f"precision_{label}" in result.metrics for label in result.classes)


def _classes(result: ClassificationResult) -> list[str]:
    """Recall and precision of each class, at its own threshold where it has one; of many the lowest recalls."""
    if not _has_table_of_classes(result):
        return []
    thresholds = dict(zip(result.classes, result.calibration.label_thresholds, strict=False))
    ending = "_at_threshold" if thresholds else ""
    found = {
        name: tuple(result.metrics.get(f"{kind}{ending}_{name}") for kind in ("recall", "precision"))
        for name in result.classes
    }

    def lowest(name: str) -> tuple[bool, float]:
        recall = found[name][0]
        value = None if recall is None else recall.value
        return value is None, 0.0 if value is None else value

    names, title = list(result.classes), "Each class, by the most probable one"
    if thresholds:
        title = "Each class, called at its own threshold"
    elif result.task == "multilabel":
        title = "Each class, called at one half"
    if len(names) > _MOST_CLASSES:
        names = sorted(names, key=lowest)[:_WORST_CLASSES]
        title += f": the {len(names)} of {len(found)} with the lowest recall"
    first = ("class", "n", *(["threshold"] if thresholds else []), "recall", "precision")
    rows: list[tuple[str, ...]] = [first]
    for name in names:
        recall, precision = found[name]
        cut = [f"{thresholds[name]:.3g}"] if thresholds else []
        n = "" if recall is None else str(recall.n)
        rows.append((name, n, *cut, *("" if item is None else str(item) for item in (recall, precision))))
    return ["", title, *align(rows, right=(1, 2) if thresholds else (1,))]


def _confusions(result: ClassificationResult) -> list[str]:
    pairs = result.confusion_pairs[:_MOST_PAIRS]
    if not pairs or len(result.classes) < 3:
        return []
    wrong = sum(sum(row) - row[place] for place, row in enumerate(result.confusion))
    rows: list[tuple[str, ...]] = [("true class", "taken for", "n", "of the class", "such as")]
    for pair in pairs:
        rows.append((pair.true, pair.predicted, str(pair.n), f"{100 * pair.share:.1f}%", ", ".join(pair.examples)))
    shown = sum(pair.n for pair in pairs)
    title = f"Most frequent confusions: {shown} of {wrong} errors, by the most probable class"
    return ["", title, *align(rows, right=(2, 3))]


def _operating_points(result: ClassificationResult) -> list[str]:
    calibration = result.calibration
    rows: list[tuple[str, ...]] = [("false rejects", "threshold", "expected (95%)", "false-reject rate", "recall")]
    for point in _by_rate(calibration):
        at = f"{point.max_false_reject_rate:g}"
        reached, recall = (
            result.metrics.get(f"{name}_{at}") for name in ("false_reject_rate_at", "recall_at_false_reject")
        )
        if reached is not None and recall is not None:
            cells = (_asked(point, calibration), _cut(point), _expected(point), str(reached), str(recall))
            rows.append(cells)
    if len(rows) == 1:
        return []
    title = "Operating points: thresholds fitted on the calibration split, and applied to these records as they are"
    return ["", title, *align(rows), *_notes(calibration)]


def _decisions(result: ClassificationResult) -> list[str]:
    if not result.decisions or result.negative_class is None or result.escapes is None:
        return []
    found = [result.metrics.get(f"recall_at_threshold_{name}") for name in result.classes]
    last = ("not let through",) if any(found) else ()
    rows: list[tuple[str, ...]] = [("", *result.classes, *last)]
    for name, counts, recall in zip(result.classes, result.decisions, found, strict=True):
        rows.append((name, *map(str, counts), *(("" if recall is None else str(recall),) if last else ())))
    places = tuple(range(1, len(result.classes) + 1))
    defects = sum(
        sum(counts)
        for name, counts in zip(result.classes, result.decisions, strict=True)
        if name != result.negative_class
    )
    rate = result.metrics.get("escape_rate")
    line = f"Escapes: {len(result.escapes)} of {defects} defects let through"
    line += "" if rate is None else f", {rate}"
    line += f": {listing(result.escapes)}" if result.escapes else ""
    if len(result.classes) > _MOST_IN_MATRIX:
        return ["", line]
    return ["", "Decisions (rows: true class, columns: decision)", *align(rows, right=places), line]


def _by_rate(calibration: Calibration) -> list[OperatingPoint]:
    return sorted(calibration.points, key=lambda point: point.max_false_reject_rate)


def _asked(point: OperatingPoint, calibration: Calibration) -> str:
    chosen = ", chosen" if point is calibration.points[0] else ""
    return f"<= {100 * point.max_false_reject_rate:g}%{chosen}"


def _cut(point: OperatingPoint) -> str:
    if point.threshold_interval is None:
        return f"{point.threshold:.4g} [n/a]"
    low, high = point.threshold_interval
    return f"{point.threshold:.4g} [{low:.4g}, {high:.4g}]"


def _expected(point: OperatingPoint) -> str:
    low, high = point.false_reject_interval
    return f"[{low:.3f}, {high:.3f}]"


def _notes(calibration: Calibration) -> list[str]:
    return [f"Too little data: {note}." for note in dict.fromkeys(p.note for p in _by_rate(calibration) if p.note)]


def cell(item: Interval | None) -> str:
    """Return a value as a cell of a table, without why there is none.

    Example:
        >>> cell(Interval(None, None, None, n=3, reason="one class")), cell(None)
        ('n/a', '')
    """
    return "" if item is None else "n/a" if item.value is None else str(item)


def signed(item: Interval) -> str:
    """Return a difference with its sign.

    Example:
        >>> signed(Interval(0.5, -0.25, 1.0, n=4))
        '+0.500 [-0.250, +1.000]'
    """
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
