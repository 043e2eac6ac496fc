from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.callbacks.metric_stages import MetricStages, StallCounter


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


def moment(value: float | None, *, rank_zero: Any = "the same", fn: str = "fit", sanity: bool = False) -> Any:
    """A Trainer at a check: what this rank has logged, and what rank 0 says."""
    metrics = {} if value is None else {"loss": torch.tensor(value)}
    strategy = SimpleNamespace(broadcast=lambda own: own if rank_zero == "the same" else rank_zero)
    return SimpleNamespace(
        callback_metrics=metrics, strategy=strategy, sanity_checking=sanity, state=SimpleNamespace(fn=fn)
    )


@pytest.mark.parametrize("own", [None, 0.0, 9.0])
def test_the_first_rank_decides_whatever_this_rank_has_logged(own: float | None) -> None:
    stages = MetricStages("loss", "min", 1)
    for value, expected in [(1.0, 0), (2.0, 1), (0.5, 1), (0.6, 2)]:
        stages.after_validation(moment(own, rank_zero=value))
        assert stages.stage == expected


def test_only_validations_of_a_fit_count() -> None:
    stages = MetricStages("loss", "min", 1)
    stages.after_validation(moment(1.0))
    for other in (moment(2.0, fn="validate"), moment(2.0, sanity=True)):
        stages.after_validation(other)
    assert stages.stage == 0
    stages.after_validation(moment(2.0))
    assert stages.stage == 1
    # Validation logs it, so the end of the epoch is not a second check of the same value.
    stages.after_epoch(moment(2.0))
    assert stages.stage == 1


def test_a_metric_of_training_is_read_at_the_end_of_the_epoch_alone() -> None:
    stages = MetricStages("loss", "min", 1)
    stages.after_validation(moment(None))
    stages.after_epoch(moment(1.0))
    stages.after_validation(moment(1.0))
    assert stages.stage == 0
    stages.after_epoch(moment(2.0))
    assert stages.stage == 1


def test_a_metric_that_is_missing_twice_is_an_error_on_every_rank() -> None:
    stages = MetricStages("los", "min", 1)
    stages.after_epoch(moment(1.0))
    with pytest.raises(MisconfigurationException, match=r"monitor='los'.*Did you mean `loss`.*Logged: loss"):
        stages.after_epoch(moment(1.0))
    second = MetricStages("loss", "min", 1)
    second.after_epoch(moment(1.0, rank_zero=None))
    with pytest.raises(MisconfigurationException, match="monitor='loss'"):
        second.after_epoch(moment(1.0, rank_zero=None))


def test_without_a_metric_nothing_is_read() -> None:
    stages = MetricStages(None, "min", 1)
    for _ in range(3):
        stages.after_validation(moment(1.0))
        stages.after_epoch(moment(1.0))
    assert stages.stage == 0


def test_stages_continue_from_their_state() -> None:
    first, second = MetricStages("loss", "min", 1), MetricStages("loss", "min", 1)
    first.after_validation(moment(1.0))
    first.after_validation(moment(2.0))
    second.load_state_dict(first.state_dict())
    assert second.stage == 1
    # Where the metric comes from is known, too.
    second.after_epoch(moment(3.0))
    assert second.stage == 1
    second.after_validation(moment(3.0))
    assert second.stage == 2
