from __future__ import annotations

from typing import Any

import pytest

from lightning_transfer.callbacks.metric_stages import StallCounter


def test_a_stall_needs_patience_checks_without_improvement() -> None:
    counter = StallCounter("max", patience=2)
    assert [counter.update(value) for value in (0.5, 0.4, 0.6, 0.6, 0.6, 0.1, 0.1)] == [
        False,
        False,
        False,
        False,
        True,
        False,
        True,
    ]
    assert counter.best == 0.6
    assert counter.stage == 2


def test_a_metric_that_is_not_a_number_never_improves() -> None:
    counter = StallCounter("min", patience=2)
    assert [counter.update(value) for value in (float("nan"), float("-inf"))] == [False, True]
    assert counter.best is None


def test_the_counter_continues_from_its_state() -> None:
    values = [3.0, 2.0, 2.5, 2.5, 1.0, 1.5, 1.5]
    whole = StallCounter("min", 2)
    expected = [whole.update(value) for value in values]
    for cut in range(len(values)):
        first, second = StallCounter("min", 2), StallCounter("min", 2)
        done = [first.update(value) for value in values[:cut]]
        second.load_state_dict(first.state_dict())
        assert done + [second.update(value) for value in values[cut:]] == expected


@pytest.mark.parametrize(("mode", "patience", "message"), [("lower", 2, "lower"), ("min", 0, "0"), ("min", 1.5, "1.5")])
def test_wrong_counter_arguments_are_named(mode: Any, patience: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StallCounter(mode, patience)
