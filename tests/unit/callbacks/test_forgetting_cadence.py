"""When a check is due, and how rare checks become to stay within their share of the time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lightning_transfer.callbacks.forgetting_cadence import Cadence

TRAINER = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value))


def test_epochs():
    cadence = Cadence(3, None, None)
    cadence.start(0)
    due = [epoch for epoch in range(10) if cadence.epoch_is_due(epoch) and cadence.takes(TRAINER, 99.0, 1.0)]
    assert due == [2, 5, 8]


def test_steps_instead_of_epochs_and_multiples_that_are_stepped_over():
    cadence = Cadence(1, 3, None)
    cadence.start(0)
    assert not cadence.epoch_is_due(0)
    steps = [2, 4, 4, 6, 8, 10]  # two optimizers, and one batch that only accumulates
    assert [step for step in steps if cadence.step_is_due(step, 0)] == [4, 6, 10]


def test_resume_in_the_middle_is_not_due_at_once():
    cadence = Cadence(1, 4, None)
    cadence.start(6)
    assert [step for step in range(7, 17) if cadence.step_is_due(step, 0)] == [8, 12, 16]


@pytest.mark.parametrize(
    ("cost", "seconds", "expected"),
    # Two epochs of 5 batches were trained, checks asked for after each second: 10 s lie between checks.
    [(0.39, 10.0, 1), (0.41, 10.0, 2), (1.0, 10.0, 3), (5.1, 10.0, 13)],
)
def test_stretch_is_the_smallest_that_keeps_the_share(cost, seconds, expected):
    cadence = Cadence(2, None, 0.05)
    cadence.start(0)
    for _ in range(2):
        for batch in range(5):
            cadence.step_is_due(0, batch)
    assert cadence.epoch_is_due(1)
    taken = cadence.takes(TRAINER, cost, seconds)
    assert cadence.stretch == expected
    assert taken == (expected == 1)
    assert cost / (expected * seconds) <= 0.8 * 0.05
    # Decided for good: what comes later does not change it.
    cadence.takes(TRAINER, 1000.0, 1.0)
    assert cadence.stretch == expected
    due = [epoch for epoch in range(2, 50) if cadence.epoch_is_due(epoch) and cadence.takes(TRAINER, cost, seconds)]
    assert [(epoch + 1) % (2 * expected) for epoch in due] == [0] * len(due)


def test_rank_zero_decides():
    other = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: 7))
    cadence = Cadence(1, 1, 0.05)
    cadence.start(0)
    assert cadence.step_is_due(1, 0)
    assert not cadence.takes(other, 1e-9, 1.0)
    assert cadence.stretch == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, None, None), "got 0"), ((1, 0, None), "`every_n_steps` of at least 1, got 0"), ((1, None, 0.0), "got 0.0")],
)
def test_wrong_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        Cadence(*arguments)
