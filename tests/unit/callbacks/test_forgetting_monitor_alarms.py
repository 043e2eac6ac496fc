"""What the monitor does when too much is forgotten, in real fits."""

from __future__ import annotations

import copy

import lightning.pytorch
import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_transfer.callbacks.forgetting_monitor import ForgettingMonitor
from tests.unit.callbacks.forgetting_toys import (
    make_module,
    monitor,
    train,
)


def test_log_only_warns(tmp_path):
    callback = monitor(tolerance={"cosine": 0.0}, confirm=2)
    with pytest.warns(UserWarning, match="step 6: forgetting_cosine is .* tolerance 0, in 2 checks in a row"):
        trainer, _ = train(tmp_path, callback)
    assert [report.alarms for report in callback.history] == [(), (), ("forgetting_cosine",), ()]
    assert trainer.global_step == 9


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_stop_after_confirmed_checks(tmp_path):
    callback = monitor(tolerance={"cosine": 0.0}, confirm=2, on_alarm="stop")
    trainer, _ = train(tmp_path, callback, max_epochs=8)
    assert trainer.current_epoch == 2
    tolerant = monitor(tolerance={"cosine": 1.9}, confirm=1, on_alarm="stop")
    trainer, _ = train(tmp_path, tolerant)
    assert trainer.current_epoch == 3


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_callable_gets_trainer_module_and_report(tmp_path):
    calls = []
    callback = monitor(tolerance={"cosine": 0.0}, confirm=1, on_alarm=lambda *given: calls.append(given))
    trainer, module = train(tmp_path, callback, max_epochs=2)
    assert len(calls) == 1
    assert calls[0][:2] == (trainer, module)
    assert calls[0][2] is callback.history[1]


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_rollback_restores_weights_and_optimizer_state_of_the_last_good_check(tmp_path):
    """The second epoch is made harmful; after it the run must stand where the first epoch ended."""
    kept = {}

    class Spoil(lightning.pytorch.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                kept["weights"] = copy.deepcopy(pl_module.state_dict())
                kept["optimizer"] = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
                with torch.no_grad():
                    pl_module.backbone.conv.weight.mul_(-3)

        def on_train_epoch_end(self, trainer, pl_module):
            trainer.optimizers[0].param_groups[0]["lr"] = 0.01 * (trainer.current_epoch + 1)

    class Look(lightning.pytorch.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                kept["after"] = copy.deepcopy(pl_module.state_dict())
                kept["state"] = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
                kept["lr"] = trainer.optimizers[0].param_groups[0]["lr"]

    callback = monitor(tolerance={"cosine": 0.2}, confirm=1, on_alarm="rollback")
    trainer, _ = train(tmp_path, Spoil(), callback, Look(), module=make_module(lr=1e-4))
    assert [bool(report.alarms) for report in callback.history] == [False, False, True, False]
    for name, value in kept["weights"].items():
        assert torch.equal(value, kept["after"][name]), name
    assert kept["optimizer"].keys() == kept["state"].keys()
    for index, state in kept["optimizer"].items():
        for key, value in state.items():
            assert torch.equal(value, kept["state"][index][key]), (index, key)
    assert kept["lr"] == 0.02  # the schedule goes on
    assert trainer.global_step == 9
    assert not list(tmp_path.rglob("forgetting_last_good*"))


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_rollback_twice_without_a_good_check_stops(tmp_path):
    start = make_module()
    callback = monitor(tolerance={"cosine": 0.0}, confirm=1, on_alarm="rollback")
    trainer, module = train(tmp_path, callback, max_epochs=8)
    assert trainer.current_epoch == 2
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in start.state_dict().items())
    assert callback.summary["metrics"]["forgetting_cosine"]["last"]["value"] == 0.0


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_a_proxy_beside_source_data_warns_but_does_not_act(tmp_path):
    class Still(ForgettingMonitor):
        def _act(self, trainer, module, report):
            raise AssertionError

    probes = {"photos": TensorDataset(torch.zeros(6, 3, 6, 6)), "grain": "noise"}
    callback = Still(
        probes,
        backbone="backbone",
        metrics=("l2",),
        tolerance={"l2": 0.0},
        confirm=1,
        on_alarm="stop",
        max_overhead=None,
    )
    module = make_module()
    module.backbone.conv.bias.requires_grad_(False)
    module.backbone.norm.requires_grad_(False).eval()
    module.backbone.norm.train = lambda mode: module.backbone.norm  # images of zeros are not affected by the weights
    trainer, _ = train(tmp_path, callback, module=module)
    assert callback.history[1].alarms == ("drift_grain_l2",)
    assert trainer.current_epoch == 3
