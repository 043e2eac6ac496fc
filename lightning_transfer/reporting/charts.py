"""Line charts and timelines as plain geometry; a template draws them as SVG.

Our own, not a plotting library's: colours are CSS variables, so that one file serves light and dark and paper; every
text goes through the template's escaping; each point says its value under the pointer without a script; and a chart
takes three kilobytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_transfer.reporting.numbers import number, usable

__all__ = ["Chart", "Line", "Mark", "Timeline", "line_chart", "ticks", "timeline"]

# In units of the drawing, shown at about their size: 11 is still legible on a telephone, where all shrinks a little.
_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 14, 38
# More points than pixels only weigh.
_MOST_POINTS = 240
_ROW = 17


@dataclass(frozen=True)
class Line:
    """A series of a chart.

    Attributes:
        name: For the legend.
        points: ``(x, y)``; points without a finite number are left out.
        dots: Whether each point is drawn as well.
        dashed: For what is a reference.
        joined: Whether the points are joined by a line.
        sizes: Records of each point, which its dot shows; empty where all count alike.
        texts: What each point says under the pointer; empty: its numbers.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    dashed: bool = False
    joined: bool = True
    sizes: Sequence[int] = ()
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class Mark:
    """A vertical line at ``x``: a stage opens there, the epoch that was kept ends, the chosen threshold lies."""

    x: float
    kind: Literal["stage", "kept", "chosen"]


@dataclass(frozen=True)
class Chart:
    """A chart, laid out.

    Attributes:
        title: Above it.
        description: For who cannot see it: each series with its first, last, lowest and highest value.
        x_label: Below the horizontal axis.
        y_label: Above the vertical axis.
        width: Of the drawing.
        height: Of the drawing.
        frame: Left, top, right and bottom of the plot within it.
        x_ticks: Place and text.
        y_ticks: Place and text.
        lines: Each with ``name``, ``path``, ``dots`` (x, y, radius, text), ``dashed`` and ``colour``, a number from 1.
        marks: Place and kind.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    width: int
    height: int
    frame: tuple[float, float, float, float]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Mapping[str, Any], ...]
    marks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Timeline:
    """When each group of layers trains, laid out: rows from the head down, a bar from its opening to the end.

    Attributes:
        title: Above it.
        description: For who cannot see it.
        width: Of the drawing.
        height: Of the drawing.
        frame: Left, top, right and bottom of the bars' area.
        ticks: Place and text of epochs.
        rows: Each with ``name``, ``y``, ``x``, ``length`` (0: never trains), ``rate`` and ``text``.
    """

    title: str
    description: str
    width: int
    height: int
    frame: tuple[float, float, float, float]
    ticks: tuple[tuple[float, str], ...]
    rows: tuple[Mapping[str, Any], ...]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers that cover a range: at most ``most`` steps of 1, 2 or 5 times a power of ten.

    Example:
        >>> ticks(0.0, 0.93), ticks(0, 24)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 5.0, 10.0, 15.0, 20.0, 25.0])
    """
    if not high > low:
        room = abs(low) / 6 or 0.5
        low, high = low - room, high + room
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(place * step, digits) + 0.0 for place in range(first, last + 1)]


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
) -> Chart | None:
    """Lay out a chart; None where no series has a point.

    Args:
        title: Above it.
        lines: The series, in the order of their colours.
        x_label: What the horizontal axis is.
        y_label: What the vertical axis is.
        x_range: Ends of the axis; None takes round numbers around the points. Points outside are left out.
        y_range: As ``x_range``.
        marks: Vertical lines.
    """
    clean = [(line, _thinned(_finite(line.points, x_range))) for line in lines]
    clean = [(line, points) for line, points in clean if points]
    if not clean:
        return None
    every = [point for _, points in clean for point in points]
    x_values = _axis([x for x, _ in every], x_range)
    y_values = _axis([y for _, y in every], y_range)
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM

    def across(x: float) -> float:
        return round(left + (right - left) * (x - x_values[0]) / (x_values[-1] - x_values[0]), 1)

    def down(y: float) -> float:
        share = (y - y_values[0]) / (y_values[-1] - y_values[0])
        return round(bottom - (bottom - top) * min(max(share, 0.0), 1.0), 1)

    drawn = []
    for place, (line, points) in enumerate(clean, start=1):
        places = [(across(x), down(y)) for x, y in points]
        drawn.append(
            {
                "name": line.name,
                "colour": 0 if line.dashed else (place - 1) % 6 + 1,
                "dashed": line.dashed,
                "path": "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if line.joined and len(places) > 1 else "",
                "dots": _dots(line, points, places),
            }
        )
    inside = [mark for mark in marks if x_values[0] <= mark.x <= x_values[-1]]
    return Chart(
        title=title,
        description=f"{title}. " + " ".join(_described(line, points) for line, points in clean),
        x_label=x_label,
        y_label=y_label,
        width=_WIDTH,
        height=_HEIGHT,
        frame=(left, top, right, bottom),
        x_ticks=tuple((across(value), _tick(value)) for value in x_values),
        y_ticks=tuple((down(value), _tick(value)) for value in y_values),
        lines=tuple(drawn),
        marks=tuple((across(mark.x), mark.kind) for mark in inside),
    )


def timeline(rows: Sequence[tuple[str, float | None, str]], max_epochs: float) -> Timeline | None:
    """Lay out when each group trains; None where there is nothing to show.

    Args:
        rows: Name, epoch in which it opens (None: never), and learning rate as text; from the head down.
        max_epochs: Where the bars end.
    """
    if not rows or usable(max_epochs) is None or max_epochs <= 0:
        return None
    left, right, top = 92, _WIDTH - 62, 20
    bottom = top + _ROW * len(rows)
    epochs = [value for value in ticks(0.0, max_epochs, 6) if value <= max_epochs and value == int(value)]

    def across(epoch: float) -> float:
        return round(left + (right - left) * epoch / max_epochs, 1)

    drawn, said = [], []
    for place, (name, epoch, rate) in enumerate(rows):
        opens = None if epoch is None or epoch >= max_epochs else max(epoch, 0.0)
        text = f"{name}: never trains" if opens is None else f"{name}: trains from epoch {opens:g}"
        said.append(text)
        start = across(max_epochs if opens is None else opens)
        drawn.append(
            {
                "name": name if len(name) <= 13 else f"{name[:6]}…{name[-6:]}",
                "y": top + _ROW * place,
                "x": start,
                "length": round(right - start, 1),
                "rate": rate,
                "text": f"{text}, learning rate {rate}" if rate and opens is not None else text,
            }
        )
    return Timeline(
        title="What trains when",
        description=f"Timeline over {max_epochs:g} epochs. " + "; ".join(said) + ".",
        width=_WIDTH,
        height=bottom + 30,
        frame=(left, top, right, bottom),
        ticks=tuple((across(value), f"{value:g}") for value in epochs),
        rows=tuple(drawn),
    )


def _dots(
    line: Line, points: Sequence[tuple[float, float]], places: Sequence[tuple[float, float]]
) -> list[tuple[float, float, float, str]]:
    """Return place, radius and text of each point; nothing for a line that shows none."""
    if not line.dots and len(points) > 1:
        return []
    texts = [f"{line.name}: {number(y)} at {number(x)}" for x, y in points]
    if len(line.texts) == len(points):
        texts = list(line.texts)
    if len(line.sizes) != len(points):
        return [(*place, 3.2, text) for place, text in zip(places, texts, strict=True)]
    # By area, so that ten times the records look like ten times as much; the smallest can still be hit.
    most = max(line.sizes)
    radii = [round(max(1.5, 6.0 * math.sqrt(size / most)), 1) for size in line.sizes]
    return [
        (*place, radius, f"{text}, {size} records")
        for place, radius, text, size in zip(places, radii, texts, line.sizes, strict=True)
    ]


def _finite(points: Sequence[tuple[float, float]], x_range: tuple[float, float] | None) -> list[tuple[float, float]]:
    found = [(x, y) for x, y in points if usable(x) is not None and usable(y) is not None]
    return found if x_range is None else [(x, y) for x, y in found if x_range[0] <= x <= x_range[1]]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep every so many-th point, and the last."""
    each = math.ceil(len(points) / _MOST_POINTS)
    return points if each <= 1 else [*points[:-1:each], points[-1]]


def _axis(values: Sequence[float], ends: tuple[float, float] | None) -> list[float]:
    found = ticks(min(values), max(values)) if ends is None else ticks(*ends)
    if ends is None:
        return found
    inside = [value for value in found if ends[0] <= value <= ends[1]]
    # An axis with ends of its own reaches from the one to the other.
    return sorted({ends[0], *inside, ends[1]})


def _tick(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e4 else f"{value:.0e}"


def _described(line: Line, points: Sequence[tuple[float, float]]) -> str:
    values = [y for _, y in points]
    if len(values) == 1:
        return f"{line.name}: {number(values[0])}."
    ends = f"{number(values[0])} to {number(values[-1])}"
    return f"{line.name}: {ends}, lowest {number(min(values))}, highest {number(max(values))}."
