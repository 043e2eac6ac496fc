"""The score against cases that were computed by hand from the paper's equations, and the order under a hard budget."""

from __future__ import annotations

import math

import pytest

from lightning_transfer.metrics.retention import budget_left, relative_gain, retention_rank, retention_score


@pytest.mark.parametrize(
    ("losses", "budgets", "left"),
    [
        ([0.0], [0.03], 1.0),
        ([-0.02], [0.03], 1.0),  # an improvement is no damage: max(0, WER_o* - WER_o)
        ([0.01], [0.03], 2 / 3),
        ([0.03], [0.03], 0.0),
        ([0.3], [0.03], 0.0),
        ([0.01, 0.03], [0.02, 0.04], (0.5 + 0.25) / 2),
        ([0.05, 0.0], [0.02, 0.04], (0.0 + 1.0) / 2),
    ],
)
def test_what_is_left_of_the_budget(losses: list[float], budgets: list[float], left: float) -> None:
    assert budget_left(losses, budgets) == pytest.approx(left)


@pytest.mark.parametrize(
    ("before", "now", "gain"), [(0.2, 0.15, 0.25), (0.2, 0.0, 1.0), (0.2, 0.3, 0.0), (0.0, 0.0, 0.0), (1.5, 0.3, 0.8)]
)
def test_what_is_gained(before: float, now: float, gain: float) -> None:
    assert relative_gain(before, now) == pytest.approx(gain)


def test_the_score_is_gain_times_what_is_left() -> None:
    # WER 20.69 -> 12.0 on the new domain, 5.118 -> 6.5 on the old one, at most 3 points: as the authors' script has it.
    expected = (20.690 - 12.0) / 20.690 * (3 - (6.5 - 5.118)) / 3
    assert retention_score(0.20690, 0.12, [0.065 - 0.05118], [0.03]) == pytest.approx(expected)


def test_a_smaller_gain_may_be_worth_more() -> None:
    greedy, careful = retention_score(0.4, 0.1, [0.018], [0.02]), retention_score(0.4, 0.2, [0.004], [0.02])
    assert careful > greedy


def test_within_the_budget_comes_before_past_it_and_less_past_before_more() -> None:
    candidates = {
        "good": (0.1, [0.01]),
        "no gain": (0.5, [0.0]),
        "just past": (0.0, [0.022]),
        "far past": (0.0, [0.2]),
        "broken": (math.nan, [0.0]),
    }
    ranks = {name: retention_rank(0.4, now, losses, [0.02]) for name, (now, losses) in candidates.items()}
    assert sorted(ranks, key=lambda name: -ranks[name]) == list(candidates)
    assert ranks["good"] == retention_score(0.4, 0.1, [0.01], [0.02])
    assert ranks["no gain"] == 0.0
    assert ranks["just past"] == pytest.approx(-0.1)


def test_one_old_task_past_its_budget_is_enough() -> None:
    assert retention_score(0.4, 0.1, [0.0, 0.05], [0.02, 0.02]) > 0
    assert retention_rank(0.4, 0.1, [0.0, 0.05], [0.02, 0.02]) == pytest.approx(-1.5)


def test_exactly_the_budget_is_within_it() -> None:
    loss = 0.33 - 0.3  # 0.030000000000000027
    assert loss > 0.03
    assert retention_rank(0.4, 0.1, [loss], [0.03]) == pytest.approx(0.0)
    assert retention_rank(0.4, 0.1, [loss], [0.03]) >= 0


def test_what_cannot_be_is_refused() -> None:
    for kappa in (0.0, -0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"above 0, got {kappa}"):
            budget_left([0.1], [kappa])
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        retention_rank(0.1, 0.1, [], [])
    with pytest.raises(ValueError, match="got 1 and 2"):
        budget_left([0.1], [0.1, 0.1])
