"""Going back must be as if the steps in between had not been: the next steps are bitwise those of before."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_transfer.callbacks.forgetting_rollback import Rollback, restore_snapshot, save_snapshot
from lightning_transfer.errors import CheckpointError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def step(module, optimizer, seed):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))

    def closure():
        optimizer.zero_grad()
        loss = module(x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "plain": lambda parameters: torch.optim.SGD(parameters, 0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.1),
    "fused": lambda parameters: torch.optim.AdamW(parameters, 0.1, fused=True),
    "adafactor": lambda parameters: torch.optim.Adafactor(parameters, 0.1),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, 0.1, max_iter=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_steps_are_those_from_the_snapshot(tmp_path, name):
    module = network()
    optimizer = OPTIMIZERS[name](module.parameters())
    step(module, optimizer, 0)
    step(module, optimizer, 1)
    save_snapshot(module, [optimizer], tmp_path / "good.pt")
    twin = copy.deepcopy(module)
    twin_optimizer = OPTIMIZERS[name](twin.parameters())
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    groups, parameters = [id(group) for group in optimizer.param_groups], [id(item) for item in module.parameters()]
    step(module, optimizer, 5)
    step(module, optimizer, 6)
    restore_snapshot(module, [optimizer], tmp_path / "good.pt")
    for seed in (2, 3):
        step(module, optimizer, seed)
        step(twin, twin_optimizer, seed)
    for key, value in twin.state_dict().items():
        assert torch.equal(value, module.state_dict()[key]), key
    assert groups == [id(group) for group in optimizer.param_groups]
    assert parameters == [id(item) for item in module.parameters()]


def test_groups_that_were_split_since_and_their_rates_stay(tmp_path):
    module = network()
    optimizer = OPTIMIZERS["adamw"](module.parameters())
    step(module, optimizer, 0)
    save_snapshot(module, [optimizer], tmp_path / "good.pt")
    expected = {name: copy.deepcopy(optimizer.state[item]) for name, item in module.named_parameters()}
    group = optimizer.param_groups[0]
    optimizer.add_param_group({"params": [group["params"].pop(0)], "lr": 0.5})
    group["lr"] = 0.01
    step(module, optimizer, 1)
    restore_snapshot(module, [optimizer], tmp_path / "good.pt")
    for name, item in module.named_parameters():
        for key, value in expected[name].items():
            assert torch.equal(value, optimizer.state[item][key]), (name, key)
    assert [item["lr"] for item in optimizer.param_groups] == [0.01, 0.5]


def test_state_of_what_was_not_trained_then_is_dropped(tmp_path):
    module = network()
    module[0].requires_grad_(False)
    optimizer = OPTIMIZERS["adamw"](module.parameters())
    step(module, optimizer, 0)
    save_snapshot(module, [optimizer], tmp_path / "good.pt")
    module[0].requires_grad_(True)
    step(module, optimizer, 1)
    restore_snapshot(module, [optimizer], tmp_path / "good.pt")
    assert module[0].weight not in optimizer.state
    assert module[2].weight in optimizer.state


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pt"):
        restore_snapshot(network(), [], tmp_path / "gone.pt")


def make(tmp_path, step=0, ckpt_path=None):
    module = network()
    return module, SimpleNamespace(
        checkpoint_callbacks=[SimpleNamespace(dirpath=str(tmp_path / "run"))],
        ckpt_path=ckpt_path,
        default_root_dir=str(tmp_path),
        optimizers=[OPTIMIZERS["adamw"](module.parameters())],
        global_step=step,
        local_rank=0,
        should_stop=False,
        strategy=SimpleNamespace(barrier=lambda name: None),
    )


def files(tmp_path):
    return sorted(item.name for item in tmp_path.rglob("*.pt"))


def test_only_the_latest_good_state_is_kept_and_a_finished_run_keeps_none(tmp_path):
    module, trainer = make(tmp_path)
    rollback = Rollback(trainer, None, "abc")
    rollback.prepare(trainer, module, pending=False)
    trainer.global_step = 5
    rollback.keep(trainer, module)
    assert files(tmp_path) == ["forgetting_last_good-abc-step5.pt"]
    rollback.finish(trainer, pending=True)
    assert files(tmp_path) == ["forgetting_last_good-abc-step5.pt"]
    rollback.finish(trainer, pending=False)
    assert files(tmp_path) == []


def test_second_rollback_without_a_good_check_stops(tmp_path):
    module, trainer = make(tmp_path)
    rollback = Rollback(trainer, None, "abc")
    rollback.prepare(trainer, module, pending=False)
    rollback.roll_back(trainer, module)
    rollback.keep(trainer, module)
    rollback.roll_back(trainer, module)
    assert not trainer.should_stop
    with pytest.warns(UserWarning, match="step0.pt` twice"):
        rollback.roll_back(trainer, module)
    assert trainer.should_stop


def test_resumed_run_finds_the_old_file_and_leaves_it_alone(tmp_path):
    module, trainer = make(tmp_path / "old")
    before = Rollback(trainer, None, "abc")
    before.prepare(trainer, module, pending=False)
    weight = module[0].weight.detach().clone()
    _, resumed = make(tmp_path / "new", step=7, ckpt_path=str(tmp_path / "old" / "run" / "last.ckpt"))
    with torch.no_grad():
        module[0].weight.zero_()
    after = Rollback(resumed, before.name, "abc")
    after.prepare(resumed, module, pending=True)
    resumed.optimizers = trainer.optimizers
    after.roll_back(resumed, module)
    assert torch.equal(module[0].weight, weight)
    after.keep(resumed, module)
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("pending", [True, False])
def test_resumed_run_without_the_old_file(tmp_path, pending):
    module, trainer = make(tmp_path, step=7)
    rollback = Rollback(trainer, "forgetting_last_good-abc-step3.pt", "abc")
    if pending:
        with pytest.raises(CheckpointError, match=r"step3\.pt"):
            rollback.prepare(trainer, module, pending=True)
    else:
        rollback.prepare(trainer, module, pending=False)
        assert files(tmp_path) == ["forgetting_last_good-abc-step7.pt"]
