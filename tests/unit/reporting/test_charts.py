import math

import numpy as np
import pytest

from lightning_transfer.reporting.charts import Line, Mark, line_chart, ticks, timeline


@pytest.mark.parametrize(
    "ends", [(0, 1), (0, 0.93), (-3, 7), (1e-5, 3e-5), (0, 1e6), (5, 5), (0, 0), (-2, -2), (99, 101)]
)
def test_ticks_are_round_few_and_cover_the_range(ends: tuple[float, float]) -> None:
    found = ticks(*ends)
    assert found[0] <= ends[0] <= ends[1] <= found[-1]
    assert 3 <= len(found) <= 7
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])
    digits = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(digits - round_) for round_ in (1, 2, 5, 10)) < 1e-6


def chart(*points: tuple[float, float], **options: object) -> object:
    return line_chart("T", [Line("a", points, dots=True)], x_label="x", y_label="y", **options)  # type: ignore[arg-type]


def test_points_lie_where_their_values_are() -> None:
    found = chart((0, 0), (5, 1), (10, 0.5), x_range=(0, 10), y_range=(0, 1))
    left, top, right, bottom = found.frame
    places = [dot[:2] for dot in found.lines[0]["dots"]]
    assert places == [(left, bottom), ((left + right) / 2, top), (right, (top + bottom) / 2)]
    assert found.lines[0]["path"] == "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
    assert found.lines[0]["dots"][2][-1] == "a: 0.500 at 10.000"


def test_labels_have_their_room_in_the_drawing() -> None:
    found = chart((0, 0), (5, 1))
    left, top, right, bottom = found.frame
    # Numbers below the axis, the name of the axis below these, and numbers of seven signs at the left.
    assert found.height - bottom >= 32 + 4
    assert found.width - right >= 8
    assert left >= 7 * 6
    assert top >= 8
    rows = timeline([("head", 0, "0.001")], 4)
    assert rows is not None
    assert rows.height - rows.frame[3] >= 28


def test_what_is_not_finite_or_outside_is_left_out_and_nothing_is_no_chart() -> None:
    found = chart((0, math.nan), (1, math.inf), (2, 0.5), (3, 0.6), (40, 0.7), x_range=(0, 10))
    assert len(found.lines[0]["dots"]) == 2
    assert chart((0, math.nan)) is None
    assert line_chart("T", [], x_label="x", y_label="y") is None
    assert chart((50, 1), x_range=(0, 10)) is None


def test_many_points_are_thinned_and_the_last_one_stays() -> None:
    found = line_chart("T", [Line("a", [(x, x) for x in range(10_000)])], x_label="x", y_label="y")
    assert found.lines[0]["path"].count("L") < 250
    assert found.lines[0]["path"].endswith("L" + f"{found.frame[2]:g} {found.frame[1]:g}")
    assert not found.lines[0]["dots"]


def test_a_single_point_is_a_dot_and_dots_show_their_records() -> None:
    assert len(line_chart("T", [Line("a", [(1, 1)])], x_label="x", y_label="y").lines[0]["dots"]) == 1
    sized = line_chart("T", [Line("a", [(1, 1), (2, 2)], dots=True, sizes=[25, 100])], x_label="x", y_label="y")
    assert [dot[2] for dot in sized.lines[0]["dots"]] == [3.0, 6.0]
    assert sized.lines[0]["dots"][0][3].endswith(", 25 records")


def test_the_description_says_what_is_seen() -> None:
    found = chart((0, 0.9), (1, 0.2), (2, 0.4))
    assert found.description == "T. a: 0.900 to 0.400, lowest 0.200, highest 0.900."


def test_marks_outside_are_left_out() -> None:
    found = chart((0, 1), (4, 2), marks=[Mark(2.0, "stage"), Mark(9.0, "kept")])
    assert [kind for _, kind in found.marks] == ["stage"]
    left, _, right, _ = found.frame
    assert found.marks[0][0] == (left + right) / 2


def test_colours_follow_the_series_and_references_are_grey() -> None:
    lines = [Line("ideal", [(0, 0), (1, 1)], dashed=True), Line("a", [(0, 1), (1, 0)]), Line("b", [(0, 0), (1, 0)])]
    assert [line["colour"] for line in line_chart("T", lines, x_label="", y_label="").lines] == [0, 2, 3]


def test_bars_begin_where_a_group_opens() -> None:
    found = timeline([("head", 0, "0.001"), ("layer4", 2, "0.0001"), ("stem", None, ""), ("late", 9, "")], 4)
    left, _, right, _ = found.frame
    assert [row["x"] for row in found.rows] == [left, (left + right) / 2, right, right]
    assert [row["length"] for row in found.rows] == [right - left, (right - left) / 2, 0, 0]
    assert "layer4: trains from epoch 2" in found.description
    assert "stem: never trains; late: never trains" in found.description
    assert len({row["y"] for row in found.rows}) == 4
    assert timeline([], 4) is None
    assert timeline([("head", 0, "")], -1) is None
