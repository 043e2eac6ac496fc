"""Each wrong argument is refused with its value."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from torch.utils.data import TensorDataset

from lightning_transfer.callbacks.forgetting_arguments import (
    check_action,
    check_arguments,
    check_averaging,
    is_averaged,
)
from lightning_transfer.callbacks.forgetting_monitor import ForgettingMonitor

DATA = TensorDataset(torch.ones(4, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("cosin",)}, "'cosin'.*Did you mean `cosine`"),
        ({"metrics": ()}, r"got \(\)"),
        ({"n_probe": 3}, "got 3"),
        ({"confirm": 0}, "got 0"),
        ({"every_n_epochs": 0}, "`every_n_epochs` of at least 1, got 0"),
        ({"every_n_steps": -2}, "got -2"),
        ({"max_overhead": 1.5}, r"`max_overhead` in \(0, 1\] or None, got 1.5"),
        ({"tolerance": {"l2": 0.1}}, "names 'l2', which is not in metrics"),
        ({"tolerance": {"cka": -0.1}}, "got -0.1"),
        ({"tolerance": {"cka": float("nan")}}, "got nan"),
        ({"tolerance": {"agrement": 0.1}}, "Did you mean `agreement`"),
        ({"on_alarm": "rolback"}, "'rolback'.*Did you mean `rollback`"),
        ({"on_alarm": "stop", "max_overhead": None}, "'stop' never acts without `tolerance`"),
        ({"on_alarm": "stop", "tolerance": {"cka": 0.1}}, "fixed cadence.*max_overhead=0.05. Pass max_overhead=None"),
        ({"on_alarm": print, "tolerance": {"cka": 0.1}}, "fixed cadence"),
        ({"on_alarm": "interpolate", "tolerance": {"cka": 0.1}}, "needs `monitor`.*monitor=None"),
        ({"monitor": "val_f1"}, "only it does; got on_alarm='log', monitor='val_f1'"),
        ({"mode": "maximum"}, "'maximum'"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(ValueError, match=message):
        ForgettingMonitor(DATA, **options)


@pytest.mark.parametrize("probe", ["target", {"a": "noise", "b": "target"}])
def test_proxies_alone_never_act(probe):
    with pytest.raises(ValueError, match=r"'stop' needs source data.*shows drift"):
        ForgettingMonitor(probe, on_alarm="stop", tolerance={"cka": 0.1}, max_overhead=None)
    ForgettingMonitor(
        {"x": probe if isinstance(probe, str) else "noise", "y": DATA},
        on_alarm="stop",
        tolerance={"cka": 0.1},
        max_overhead=None,
    )


def test_what_is_right_passes():
    check_arguments(("cka",), {"cka": 0.0}, 4, 1)
    check_action("log", {}, 0.05, {"": "noise"})
    check_action("interpolate", {"cka": 0.1}, None, {"": DATA}, "val_f1", "max")


class WeightAveraging(Callback):
    """As Lightning's, by name and by nothing else."""


class Average(WeightAveraging):
    pass


def test_averages_must_come_first():
    def trainer_with(*callbacks):
        return SimpleNamespace(callbacks=list(callbacks))

    options = {"tolerance": {"cka": 0.1}, "max_overhead": None}
    log = ForgettingMonitor(DATA)
    interpolate = ForgettingMonitor(DATA, on_alarm="interpolate", monitor="val_loss", **options)
    rollback = ForgettingMonitor(DATA, on_alarm="rollback", **options)
    assert is_averaged(trainer_with(Average(), log), log)
    assert not is_averaged(trainer_with(log, Average()), log)
    assert not is_averaged(trainer_with(Callback(), log), log)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_averaging(trainer_with(Average(), log), log)
        check_averaging(trainer_with(Average(), interpolate), interpolate)
    with pytest.raises(MisconfigurationException, match="`Average` comes after ForgettingMonitor"):
        check_averaging(trainer_with(interpolate, Average()), interpolate)
    with pytest.warns(UserWarning, match="the last reading is of the weights before the average"):
        check_averaging(trainer_with(log, Average()), log)
    with pytest.warns(UserWarning, match="not their average"):
        check_averaging(trainer_with(Average(), rollback), rollback)
