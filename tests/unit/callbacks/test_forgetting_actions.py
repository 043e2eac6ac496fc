"""Refreezing in real fits: which group closes when, that closed means closed, and that a resumed run does the same."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import TensorDataset

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, ForgettingMonitor
from lightning_transfer.callbacks.forgetting_actions import Action, CallAction, RollbackAction, StopAction
from tests.unit.callbacks.callback_toys import Toy, copy_state, difference, trainer
from tests.unit.callbacks.forgetting_toys import Crash

pytestmark = pytest.mark.filterwarnings("ignore:ForgettingMonitor, step", "ignore:Checkpoint directory")

PROBE = TensorDataset(torch.randn(12, 6, generator=torch.Generator().manual_seed(3)))


class Watch(Callback):
    """What is open in each epoch, and which blocks move in it."""

    def __init__(self):
        self.open, self.moved = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            blocks = pl_module.backbone.blocks
            self.open.append([all(p.requires_grad for p in block.parameters()) for block in blocks])

    def on_train_epoch_start(self, trainer, pl_module):
        self.before = copy_state(pl_module.backbone)

    def on_train_epoch_end(self, trainer, pl_module):
        now = pl_module.backbone.state_dict()
        changed = {name for name, value in now.items() if not torch.equal(value, self.before[name])}
        self.moved.append([any(name.startswith(f"blocks.{number}.") for name in changed) for number in range(3)])


def monitor(**options):
    given = {"tolerance": {"cosine": 0.0}, "metrics": ("cosine",), "confirm": 1, "max_overhead": None}
    return ForgettingMonitor(PROBE, backbone="backbone", on_alarm="refreeze", **{**given, **options})


def freeze(schedule="full", **options):
    return BackboneFreezeUnfreeze(schedule, backbone="backbone", verbose=False, **options)


def run(*callbacks, epochs=6, module=None, ckpt_path=None, **options):
    module = Toy(norm="layer") if module is None else module
    given = {"limit_val_batches": 0, **options}
    trainer(list(callbacks), epochs=epochs, **given).fit(module, ckpt_path=ckpt_path)
    return module


OPEN_FROM = [[number >= closed for number in range(3)] for closed in range(4)]


class Subclass(BackboneFreezeUnfreeze):
    pass


@pytest.mark.parametrize("cls", [BackboneFreezeUnfreeze, Subclass])
@pytest.mark.parametrize("first", [True, False], ids=["monitor first", "monitor last"])
def test_each_alarm_closes_the_deepest_open_group(cls, first):
    watch, others = Watch(), [cls("full", backbone="backbone", verbose=False), monitor()]
    with pytest.warns(UserWarning, match="no layer group left to close.*the head alone") as said:
        module = run(watch, *(reversed(others) if first else others))
    assert watch.open == [*OPEN_FROM, OPEN_FROM[3], OPEN_FROM[3]]
    assert watch.moved == watch.open
    assert sum("no layer group left" in str(item.message) for item in said) == 1
    assert all(parameter.requires_grad for parameter in module.parameters())  # put back after the fit


def test_the_head_goes_on_training_and_the_readings_stand_still():
    callback = monitor()
    start = Toy(norm="layer")
    with pytest.warns(UserWarning, match="no layer group left"):
        module = run(freeze(), callback)
    assert not torch.equal(start.head.weight, module.head.weight)
    values = [report.readings["forgetting_cosine"].value for report in callback.history]
    assert values[3] == values[4] == values[5] == values[6] > values[1] > 0


def test_the_checks_count_anew_after_each_closing():
    watch = Watch()
    run(watch, freeze(), monitor(confirm=2), epochs=5)
    assert watch.open == [OPEN_FROM[0], OPEN_FROM[0], OPEN_FROM[1], OPEN_FROM[1], OPEN_FROM[2]]


def test_what_is_closed_stays_closed_whatever_the_schedule_says():
    watch = Watch()
    with pytest.warns(UserWarning, match="no layer group left"):
        run(watch, freeze({0: 0, 1: 1, 2: 2, 3: 3}), monitor(), epochs=5)
    # The top block opens in the second epoch and is closed after it; nothing opens again.
    assert watch.open == [OPEN_FROM[3], OPEN_FROM[2], OPEN_FROM[3], OPEN_FROM[3], OPEN_FROM[3]]


def test_by_steps_and_between_two_halves_of_an_accumulated_step():
    watch, freezing = Watch(), freeze()
    callback = monitor(every_n_steps=1, metrics=("l2",), tolerance={"l2": 0.0})
    with pytest.warns(UserWarning, match="no layer group left"):
        run(watch, freezing, callback, epochs=3, accumulate_grad_batches=2)
    # Two steps an epoch: two groups close in each.
    assert watch.open == [OPEN_FROM[0], OPEN_FROM[2], OPEN_FROM[3]]


def test_a_good_check_closes_nothing():
    watch = Watch()
    run(watch, freeze(), monitor(tolerance={"cosine": 1.9}), epochs=3)
    assert watch.open == [OPEN_FROM[0]] * 3


@pytest.mark.parametrize("first", [True, False], ids=["monitor first", "monitor last"])
def test_nothing_is_closed_after_the_last_step(caplog, recwarn, first):
    # Checked at the end of the fit only.
    others = [freeze(), monitor(every_n_epochs=2, metrics=("l2",), tolerance={"l2": 0.0})]
    with caplog.at_level("INFO"):
        run(*(reversed(others) if first else others), epochs=1)
    assert [bool(report.alarms) for report in others[1].history] == [False, True]
    assert not [record for record in caplog.records if "closes" in record.message]
    assert not [item for item in recwarn if "left to close" in str(item.message)]


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path):
    options = {"enable_checkpointing": True, "default_root_dir": str(tmp_path)}
    with pytest.warns(UserWarning, match="no layer group left"):
        whole = run(freeze(), monitor(), ModelCheckpoint(tmp_path / "whole"), epochs=5, **options)
    saver = ModelCheckpoint(tmp_path / "part", save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(freeze(), monitor(), saver, Crash(2), epochs=5, **options)
    watch = Watch()
    with pytest.warns(UserWarning, match="no layer group left"):
        resumed = run(watch, freeze(), monitor(), ckpt_path=tmp_path / "part" / "last.ckpt", epochs=5)
    assert watch.open == [OPEN_FROM[2], OPEN_FROM[3], OPEN_FROM[3]]
    assert difference(whole, resumed) == 0.0


def test_without_the_callback_that_closes_it_is_refused():
    with pytest.raises(MisconfigurationException, match=r"the trainer has none. Add.*BackboneFreezeUnfreeze\('full'\)"):
        run(monitor())


def test_of_several_the_one_with_the_same_backbone_closes():
    top = BackboneFreezeUnfreeze("full", backbone="backbone", verbose=False)
    deep = BackboneFreezeUnfreeze("full", backbone="backbone.blocks", verbose=False)
    with pytest.raises(MisconfigurationException, match=r"has 2 .*backbone='backbone.blocks'.*has backbone=None"):
        run(top, deep, ForgettingMonitor(PROBE, on_alarm="refreeze", tolerance={"cka": 0.1}, max_overhead=None))
    action = monitor()._action
    found = action._freezing(type("T", (), {"callbacks": [deep, top]}))
    assert found is top


def test_open_groups_outside_a_fit_and_while_a_limit_waits():
    seen = []

    class Ask(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append(freezing.open_groups)
            freezing.limit_open_groups(1)
            seen.append(freezing.open_groups)

    freezing = freeze()
    assert freezing.open_groups == ()
    run(freezing, Ask(), epochs=1)
    assert [len(names) for names in seen] == [3, 1]
    assert seen[0][-1:] == seen[1]
    assert freezing.open_groups == ()


def test_the_state_of_each_action_is_plain_and_comes_back():
    for action in (Action(), StopAction(), CallAction(print)):
        assert action.state_dict() == {}
        action.load_state_dict({"snapshot": "from another action"})
    rollback = RollbackAction()
    rollback.load_state_dict({"snapshot": "last_good.pt", "rolled_back": True})
    assert rollback.state_dict() == {"snapshot": "last_good.pt", "rolled_back": True}
    fresh = RollbackAction()
    fresh.load_state_dict({"pretrained": "of another action"})
    assert fresh.state_dict() == {"snapshot": None, "rolled_back": False}
