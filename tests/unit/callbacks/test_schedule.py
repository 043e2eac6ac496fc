from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from lightning_transfer.callbacks.schedule import Schedule, Stage


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("feature_extraction"), [0, 0, 0, 0, 0, 0]),
        (Schedule("full"), [4, 4, 4, 4, 4, 4]),
        (Schedule("partial", num_open_groups=3), [3, 3, 3, 3, 3, 3]),
        (Schedule("lp_ft", unfreeze_at_epoch=2), [0, 0, 4, 4, 4, 4]),
        (Schedule("gradual"), [0, 1, 2, 3, 4, 4]),
        (Schedule("gradual", unfreeze_at_epoch=0), [1, 2, 3, 4, 4, 4]),
        (Schedule("gradual", unfreeze_at_epoch=2, epochs_per_group=3), [0, 0, 1, 1, 1, 2]),
        (Schedule({1: 2, 4: "all"}), [0, 2, 2, 2, 4, 4]),
        (Schedule({4: "all", 1: 2}), [0, 2, 2, 2, 4, 4]),
        (Schedule({0: 3, 2: 0, 5: 1}), [3, 3, 0, 0, 0, 1]),
        (Schedule({"0": "1", "3": "all"}), [1, 1, 1, 4, 4, 4]),
        (Schedule({1: 2, 4: "all"}, unit="step"), [0, 2, 2, 2, 4, 4]),
    ],
)
def test_open_groups_by_epoch_are_the_table_written_by_hand(schedule: Schedule, expected: list[int]) -> None:
    assert [schedule.open_at(epoch, total=4) for epoch in range(6)] == expected


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("gradual", unfreeze_at_epoch=3, epochs_per_group=2),
        Schedule("lp_ft"),
        Schedule("full"),
        Schedule({0: 3, 2: 0, 3: 0, 5: 1}),
    ],
)
def test_changes_are_where_a_walk_over_the_epochs_finds_them(schedule: Schedule) -> None:
    counts = [schedule.open_at(epoch, total=4) for epoch in range(30)]
    walked = [epoch for epoch in range(30) if epoch == 0 or counts[epoch] != counts[epoch - 1]]
    assert schedule.changes(total=4) == walked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "gradul"}, "gradul.*Did you mean `gradual`"),
        ({"kind": 3}, "schedule.* 3"),
        ({"kind": {}}, "at least one epoch"),
        ({"kind": {-1: 2}}, "-1"),
        ({"kind": {0.5: 2}}, "0.5"),
        ({"kind": {0: "al"}}, "'al'"),
        ({"kind": {0: -2}}, "-2"),
        ({"kind": {0: True}}, "True"),
        ({"kind": "gradual", "unfreeze_at_epoch": -1}, "unfreeze_at_epoch.*-1"),
        ({"kind": "gradual", "epochs_per_group": 0}, "epochs_per_group.*0"),
        ({"kind": "partial", "num_open_groups": 1.5}, "num_open_groups.*1.5"),
        ({"kind": {0: 1}, "unit": "batch"}, "unit.*'batch'"),
        ({"kind": "lp_ft", "unit": "step"}, "'lp_ft' counts in epochs.*mapping"),
        ({"kind": {0: 1}, "unit": "step", "unfreeze_at_epoch": 3}, "unfreeze_at_epoch=3.*unit='step'"),
        ({"kind": {0: 1}, "unit": "step", "epochs_per_group": 2}, "epochs_per_group=2.*unit='step'"),
        ({"kind": {-1: 2}, "unit": "step"}, "steps.*-1"),
        ({"kind": {7: -2}, "unit": "step"}, "-2 at step 7"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)


@pytest.mark.parametrize("schedule", [Schedule({0: 1, 2: 9}), Schedule("partial", num_open_groups=9)])
def test_more_groups_than_there_are_is_an_error(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"opens 9 groups.*has 2: stem, blocks"):
        schedule.check_total(("stem", "blocks"))
    schedule.check_total(tuple("abcdefghi"))


def test_gradual_and_all_fit_every_backbone() -> None:
    for schedule in (Schedule("gradual"), Schedule("lp_ft"), Schedule({0: "all"})):
        schedule.check_total(("stem",))


def test_a_stage_cannot_be_changed() -> None:
    stage = Stage(0, (), (), 1, 1.0)
    with pytest.raises(FrozenInstanceError):
        stage.epoch = 2  # type: ignore[misc]


def test_a_schedule_describes_itself() -> None:
    assert Schedule({2: "all", 0: 1}).describe() == "{0: 1, 2: all}"
    assert Schedule({200: "all", 0: 1}, unit="step").describe() == "{0: 1, 200: all} by step"
    assert Schedule("lp_ft", unfreeze_at_epoch=3).describe() == "lp_ft(unfreeze_at_epoch=3)"
