"""The largest gaps. Oracles: differences written out, and simulations in which there is no gap."""

import json

import numpy as np
import pytest

from lightning_transfer.evaluation.slice_gaps import SliceGap, SliceValues, find_gaps

RNG = np.random.default_rng(0)


def _slice(column: str, value: str, points: list[float], spread: float = 0.02, draws: int = 400) -> SliceValues:
    point = np.array(points)
    return SliceValues(column, value, point, point[:, None] + RNG.normal(0, spread, (len(point), draws)), 100, 40)


def test_pairs_are_of_one_column_and_the_largest_comes_first() -> None:
    gaps = find_gaps(
        [
            _slice("sex", "F", [0.80]), _slice("sex", "M", [0.84]),
            _slice("site", "a", [0.90]), _slice("site", "b", [0.70]), _slice("site", "c", [0.85]),
        ],
        ["covid"],
    )  # fmt: skip
    assert [(gap.column, gap.best, gap.worst) for gap in gaps] == [("site", "a", "b"), ("sex", "M", "F")]
    largest = gaps[0]
    assert largest.difference.value == pytest.approx(0.2)
    assert (largest.best_value, largest.worst_value) == (pytest.approx(0.9), pytest.approx(0.7))
    assert largest.difference.low == pytest.approx(0.2 - 1.96 * 0.02 * 2**0.5, abs=0.012)
    assert (largest.difference.n, largest.difference.num_groups) == (200, 80)
    assert largest.stands_out
    assert not gaps[1].stands_out
    json.dumps([gap.to_dict() for gap in gaps], allow_nan=False)


def test_errors_are_better_when_lower() -> None:
    [gap] = find_gaps([_slice("site", "a", [0.1]), _slice("site", "b", [0.3])], [], higher_is_worse=True)
    assert (gap.best, gap.difference.value) == ("a", pytest.approx(-0.2))


def test_two_slices_are_compared_by_the_findings_that_both_have() -> None:
    # By the plain means b would be worse, since it alone has the hard finding.
    gaps = find_gaps(
        [_slice("site", "a", [0.9, np.nan, 0.5]), _slice("site", "b", [0.92, 0.4, 0.6])], ["x", "hard", "y"]
    )
    headline = gaps[0]
    assert (headline.best, headline.num_findings) == ("b", 2)
    assert headline.difference.value == pytest.approx((0.02 + 0.1) / 2)
    assert [(gap.finding, gap.best) for gap in gaps[1:]] == [("y", "b"), ("x", "b")]


def test_nothing_in_common_is_no_gap_and_rare_draws_give_no_interval() -> None:
    assert find_gaps([_slice("s", "a", [np.nan, 0.5]), _slice("s", "b", [0.4, np.nan])], ["x", "y"]) == ()
    assert find_gaps([_slice("s", "a", [0.5])], ["x"]) == ()
    first, second = _slice("s", "a", [0.5]), _slice("s", "b", [0.9])
    second.draws[0, :200] = np.nan
    [gap] = find_gaps([first, second], ["x"])
    assert gap.difference.low is None
    assert gap.difference.reason == "undefined in 200 of 400 resamples, no interval"
    assert not gap.stands_out


def test_without_a_gap_few_tables_have_one_that_stands_out() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        sides = []
        for value in "abcdef":
            point = rng.normal(0.8, 0.03, 1)
            sides.append(SliceValues("site", value, point, point + rng.normal(0, 0.03, (1, 300)), 50, 50))
        hits += any(gap.stands_out for gap in find_gaps(sides, ["x"]))
    assert hits <= 20  # 5% of 200 is 10


def test_a_gap_is_frozen() -> None:
    [gap] = find_gaps([_slice("s", "a", [0.5]), _slice("s", "b", [0.9])], ["x"])
    assert isinstance(gap, SliceGap)
    with pytest.raises(AttributeError):
        gap.best = "c"  # type: ignore[misc]
