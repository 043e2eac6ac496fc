"""What an evaluation of masks found, as plain text for the terminal."""

from __future__ import annotations

from lightning_transfer.evaluation.segmentation_result import SegmentationResult
from lightning_transfer.evaluation.terminal import align, cell, signed

__all__ = ["format_segmentation"]

_MOST_SLICES = 20
_MOST_WORST = 8
_DIFFERENCES = ("dice", "pixel_auroc", "pro")
_KIND = ("dice", "pixel_auroc", "pro", "missed_rate")


def format_segmentation(result: SegmentationResult) -> str:
    """Return the result as aligned plain text: metrics beside the baselines, differences, kinds, slices, worst masks.

    Example:
        >>> from lightning_transfer.metrics import Interval
        >>> found = {"dice": Interval(0.5, 0.25, 0.75, n=10, num_groups=5)}
        >>> print(format_segmentation(SegmentationResult(found, 10, 5, ("good", "pit"), num_shown=4)))
        10 pictures of 5 groups, 4 of them show something; 95% intervals by bootstrap over groups
        metric   n  model
        dice    10  0.500 [0.250, 0.750]
    """
    sections = (
        _head(result),
        _differences(result),
        _kinds(result),
        _slices(result),
        _worst(result),
        [f"Note: {note}" for note in result.notes],
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _head(result: SegmentationResult) -> list[str]:
    share = f"{100 * result.confidence:g}%"
    groups = f"{result.num_groups} group{'s' * (result.num_groups != 1)}"
    lines = [
        f"{result.n} pictures of {groups}, {result.num_shown} of them show something; {share} intervals by bootstrap "
        "over groups"
    ]
    rows: list[tuple[str, ...]] = [("metric", "n", "model", *result.baselines)]
    for name, item in result.metrics.items():
        if "_on_" not in name:
            label = f"{name} ({result.unit})" if name.startswith("hd95") else name
            beside = (cell(found.get(name)) for found in result.baselines.values())
            rows.append((label, str(item.n), str(item), *beside))
    lines += align(rows, right=(1,))
    if result.num_unknown:
        lines.append(f"{result.num_unknown} pictures without a known mask are not judged")
    return lines


def _differences(result: SegmentationResult) -> list[str]:
    if not result.baselines:
        return []
    rows: list[tuple[str, ...]] = [("model minus", *_DIFFERENCES, "")]
    for name in result.baselines:
        found = result.differences.get(name)
        cells = ["n/a" if found is None or key not in found else signed(found[key]) for key in _DIFFERENCES]
        rows.append((name, *cells, result.descriptions.get(name, "")))
    return align(rows)


def _kinds(result: SegmentationResult) -> list[str]:
    if not result.kinds:
        return []
    rows: list[tuple[str, ...]] = [("kind", "n", *_KIND)]
    rows += [(item.kind, str(item.n), *(cell(item.metrics.get(name)) for name in _KIND)) for item in result.kinds]
    return ["Each kind of picture, beside those that show nothing", *align(rows, right=(1,))]


def _slices(result: SegmentationResult) -> list[str]:
    table = result.slices
    if table is None or not (table.slices or table.left_out):
        return []
    lines = [f"No slices by `{column}`: {reason}." for column, reason in table.left_out.items()]
    if not table.slices:
        return lines
    rows: list[tuple[str, ...]] = [("column", "value", "n", "groups", "dice", "minus the rest", "")]
    for item in table.slices[:_MOST_SLICES]:
        mark = "small" if item.small else "stands out" if item.stands_out else ""
        cells = (item.column, item.value, str(item.n), str(item.num_groups), str(item.metrics["dice"]))
        rows.append((*cells, signed(item.difference), mark))
    hidden = len(table.slices) - _MOST_SLICES
    more = [f"{hidden} more slices in evaluation.json"] if hidden > 0 else []
    return ["Slices, the lowest Dice of each column first", *align(rows, right=(2, 3)), *more, table.note, *lines]


def _worst(result: SegmentationResult) -> list[str]:
    if not result.worst:
        return []
    rows: list[tuple[str, ...]] = [("picture", "kind", "dice", "drawn", "shown")]
    for item in result.worst[:_MOST_WORST]:
        dice = "" if item.dice is None else f"{item.dice:.3f}"
        rows.append((_plain(item.id), item.kind, dice, str(item.drawn), str(item.shown)))
    return ["Worst masks, in pixels (more in evaluation.json)", *align(rows, right=(3, 4))]


def _plain(text: str) -> str:
    """Return text of one line that no terminal takes for commands."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
