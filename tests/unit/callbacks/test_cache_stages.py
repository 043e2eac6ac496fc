"""Which prefix pays, against a brute force over all epochs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from lightning_transfer.callbacks.cache_stages import Segment, choose_frozen, epochs_frozen, segments
from lightning_transfer.callbacks.schedule import Schedule

TOTAL, END = 4, 9
SCHEDULES = [
    Schedule("feature_extraction"), Schedule("full"), Schedule("partial"), Schedule("gradual"),
    Schedule("gradual", unfreeze_at_epoch=2, epochs_per_group=3), Schedule("lp_ft", unfreeze_at_epoch=6),
    Schedule({0: 0, 2: 3, 4: 1, 7: "all"}), Schedule({0: 4, 3: 0}),
]  # fmt: skip


def opened(schedule: Schedule) -> Callable[[int], int]:
    return lambda epoch: schedule.open_at(epoch, TOTAL)


def brute(schedule: Schedule, frozen: int, epoch: int) -> int:
    states = [TOTAL - schedule.open_at(number, TOTAL) >= frozen for number in range(epoch, END)]
    return len(list(itertools.takewhile(bool, states)))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda item: item.describe())
def test_epochs_are_counted_one_by_one(schedule: Schedule) -> None:
    for frozen, epoch in itertools.product(range(1, TOTAL + 1), range(END)):
        found = epochs_frozen(opened(schedule), TOTAL, frozen, epoch=epoch, end=END)
        assert found == brute(schedule, frozen, epoch)


@pytest.mark.parametrize("min_epochs", [1, 2, 3])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda item: item.describe())
def test_the_most_groups_that_last_are_chosen(schedule: Schedule, min_epochs: int) -> None:
    for epoch in range(END):
        lasting = [k for k in range(1, TOTAL + 1) if brute(schedule, k, epoch) >= min_epochs]
        best = max(lasting, default=0)
        found, lasts = choose_frozen(opened(schedule), TOTAL, epoch=epoch, end=END, min_epochs=min_epochs)
        assert (found, lasts) == (best, brute(schedule, best, epoch) if best else 0)


@pytest.mark.parametrize("min_epochs", [1, 2, 3])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda item: item.describe())
def test_no_pass_is_made_in_vain(schedule: Schedule, min_epochs: int) -> None:
    found = segments(opened(schedule), TOTAL, end=END, min_epochs=min_epochs)
    for one, other in itertools.pairwise(found):
        assert one.end <= other.begin
    for part in found:
        assert min(min_epochs, 1) <= part.end - part.begin
        assert part.end - part.begin >= min_epochs
        frozen = [TOTAL - schedule.open_at(epoch, TOTAL) for epoch in range(part.begin, int(part.end))]
        assert min(frozen) >= part.frozen
    if schedule.kind == "full":
        assert found == []


def test_a_run_without_end_keeps_what_stays_frozen_for_ever() -> None:
    assert segments(lambda _: 1, TOTAL, end=math.inf, min_epochs=2) == [Segment(0, math.inf, 3)]
