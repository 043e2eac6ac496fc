from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import Parameter
from torch.optim import lr_scheduler

from lightning_transfer.callbacks.rewarm import Rewarm
from lightning_transfer.callbacks.split_optimizer import SplitOptimizer
from lightning_transfer.depth import layer_decay_scales, resolve_depth
from tests.unit.callbacks.callback_toys import Toy

FACTORS = (0.125, 0.25, 0.5, 1.0)


def walk(rewarm: Rewarm, steps: int, change: Callable[[int], object] = lambda step: None) -> list[float]:
    seen = []
    for step in range(steps):
        change(step)
        rewarm.before_step()
        seen.append(rewarm.scale("layer"))
        rewarm.after_step()
    return seen


def parameters(*trains: bool) -> list[Parameter]:
    return [Parameter(torch.zeros(1), requires_grad=value) for value in trains]


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_the_ramp_is_linear_and_ends_at_one(steps: int) -> None:
    (weight,) = parameters(False)
    seen = walk(Rewarm({"layer": [weight]}, steps), steps + 4, lambda step: weight.requires_grad_(step >= 2))
    assert seen == [1 / steps] * 2 + [(taken + 1) / steps for taken in range(steps)] + [1.0] * 2


def test_what_is_open_at_the_first_step_has_its_full_rate() -> None:
    assert walk(Rewarm({"layer": parameters(True, True)}, 4), 3) == [1.0] * 3
    assert walk(Rewarm({"layer": []}, 4), 2) == [1.0] * 2


def test_a_layer_of_which_a_part_never_opens_rises_all_the_same() -> None:
    """As under PEFT, where only the adapters of a layer ever train."""
    base, adapter = parameters(False, False)
    seen = walk(Rewarm({"layer": [base, adapter]}, 3), 5, lambda step: adapter.requires_grad_(step >= 1))
    assert seen == [1 / 3, 1 / 3, 2 / 3, 1.0, 1.0]


def test_a_layer_opened_in_parts_starts_anew_with_each() -> None:
    """As with normalisation that trains while its layer is frozen."""
    norm, weight = parameters(True, False)
    seen = walk(Rewarm({"layer": [norm, weight]}, 2), 5, lambda step: weight.requires_grad_(step >= 2))
    assert seen == [1.0, 1.0, 0.5, 1.0, 1.0]


def test_what_opens_within_a_step_begins_in_it_or_with_the_next() -> None:
    """A layer that was closed as a whole stands at the foot already; one that was part open has its full rate."""
    for trains, wanted in (((False, False), [0.25, 0.5, 0.75, 1.0]), ((True, False), [1.0, 0.25, 0.5, 0.75])):
        values, seen = parameters(*trains), []
        rewarm = Rewarm({"layer": values}, 4)
        rewarm.before_step()
        rewarm.after_step()
        for _ in range(4):
            rewarm.before_step()
            values[1].requires_grad_(True)
            seen.append(rewarm.scale("layer"))
            rewarm.after_step()
        assert seen == wanted


def test_a_layer_that_is_closed_waits_and_goes_on() -> None:
    (weight,) = parameters(False)
    trains = [False, True, False, False, True, True, False, True]
    seen = walk(Rewarm({"layer": [weight]}, 3), 8, lambda step: weight.requires_grad_(trains[step]))
    assert seen == [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("cut", range(7))
def test_a_saved_state_goes_on_where_it_was(cut: int) -> None:
    (weight,), (again,) = parameters(False), parameters(False)
    first, second = Rewarm({"layer": [weight]}, 3), Rewarm({"layer": [again]}, 3)
    seen = walk(first, cut, lambda step: weight.requires_grad_(step >= 2))
    second.load_state_dict(first.state_dict())
    seen += walk(second, 7 - cut, lambda step: again.requires_grad_(step + cut >= 2))
    assert seen == [1 / 3, 1 / 3, 1 / 3, 2 / 3, 1.0, 1.0, 1.0]


def test_a_state_of_other_layers_is_no_state() -> None:
    (weight,) = parameters(True)
    rewarm = Rewarm({"layer": [weight]}, 3)
    rewarm.load_state_dict({"other": {"waiting": [0], "taken": 1}, "layer": {"waiting": [5], "taken": 1}})
    assert walk(rewarm, 2) == [1.0, 1.0]


def opened_late(**options: Any) -> tuple[Any, torch.optim.Optimizer, SplitOptimizer]:
    """A toy whose lowest block is closed, split with ramps of four steps, after one step."""
    module = Toy()
    module.backbone.blocks[0].requires_grad_(False)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, **options)
    depth_map = resolve_depth(module)
    scales = layer_decay_scales(depth_map, layer_decay=0.5)
    splitter = SplitOptimizer(optimizer, module, depth_map, scales, rewarm_steps=4)
    step(module, optimizer)
    return module, optimizer, splitter


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for value in module.parameters():
        value.grad = torch.ones_like(value) if value.requires_grad else None
    optimizer.step()


def test_the_rate_of_each_group_is_there_before_the_step_that_uses_it() -> None:
    module, optimizer, _ = opened_late()
    weight = module.backbone.blocks[0].linear.weight
    module.backbone.blocks[0].requires_grad_(True)
    for ramp in (0.25, 0.5, 0.75, 1.0, 1.0):
        before = weight.detach().clone()
        assert optimizer.param_groups[0]["lr"] == 0.1 * (0.125 * ramp)
        step(module, optimizer)
        torch.testing.assert_close(before - weight.detach(), torch.full_like(before, 0.1 * 0.125 * ramp))
        assert [group["lr"] for group in optimizer.param_groups[1:]] == [0.1 * factor for factor in FACTORS[1:]]


@pytest.mark.parametrize(
    ("write", "base"),
    [(lambda group: 0.3, 0.3), (lambda group: group["lr"] * 0.1, 0.01)],
)
@pytest.mark.parametrize("taken", [0, 2])
def test_a_rate_written_by_hand_on_a_ramp_is_the_users_new_rate(write: Any, base: float, taken: int) -> None:
    module, optimizer, splitter = opened_late()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    splitter.drive(scheduler)
    module.backbone.blocks[0].requires_grad_(True)
    for _ in range(taken):
        step(module, optimizer)
    for group in optimizer.param_groups:
        group["lr"] = write(group)
    seen: list[list[float]] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append([group["lr"] for group in optimizer.param_groups]))
    step(module, optimizer)
    assert seen == [[pytest.approx(base * factor) for factor in (0.125 * (taken + 1) / 4, *FACTORS[1:])]]
    scheduler.step()
    assert splitter.users[0]["lr"] == pytest.approx(base / 2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(base / 2 * 0.125 * (taken + 2) / 4)


def test_a_rate_written_during_a_step_is_understood_with_the_ramp_of_that_step() -> None:
    module, optimizer, splitter = opened_late()
    module.backbone.blocks[0].requires_grad_(True)

    def closure() -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 0.5

    optimizer.step(closure)
    assert splitter.users[0]["lr"] == pytest.approx(0.05)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.125 * 0.5)


def test_rates_written_one_by_one_are_left_alone_on_a_ramp() -> None:
    module, optimizer, _ = opened_late()
    module.backbone.blocks[0].requires_grad_(True)
    wanted = [0.01, 0.04, 0.09, 0.16]
    for group, rate in zip(optimizer.param_groups, wanted, strict=True):
        group["lr"] = rate
    for _ in range(5):
        step(module, optimizer)
        assert [group["lr"] for group in optimizer.param_groups] == wanted


def test_a_state_saved_on_a_ramp_has_the_users_form() -> None:
    module, optimizer, splitter = opened_late(momentum=0.9)
    module.backbone.blocks[0].requires_grad_(True)
    step(module, optimizer)
    plain = torch.optim.SGD(Toy().parameters(), lr=0.1, momentum=0.9)
    saved = optimizer.state_dict()
    assert saved["param_groups"] == plain.state_dict()["param_groups"]
    again, second, other = opened_late(momentum=0.9)
    again.backbone.blocks[0].requires_grad_(True)
    other.load_rewarm_state(splitter.rewarm_state())
    second.load_state_dict(deepcopy(saved))
    again.load_state_dict(module.state_dict())
    for _ in range(4):
        assert [g["lr"] for g in second.param_groups] == [g["lr"] for g in optimizer.param_groups]
        step(module, optimizer)
        step(again, second)
    for left, right in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right)
    splitter.restore()
    assert not optimizer._optimizer_step_post_hooks
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


def test_a_tensor_rate_is_filled_on_a_ramp() -> None:
    module = Toy()
    module.backbone.blocks[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=torch.tensor(0.1), foreach=False)
    depth_map = resolve_depth(module)
    SplitOptimizer(optimizer, module, depth_map, layer_decay_scales(depth_map, layer_decay=0.5), rewarm_steps=2)
    held = optimizer.param_groups[0]["lr"]
    step(module, optimizer)
    assert held.item() == pytest.approx(0.1 * 0.125 * 0.5)
    module.backbone.blocks[0].requires_grad_(True)
    step(module, optimizer)
    assert optimizer.param_groups[0]["lr"] is held
    assert held.item() == pytest.approx(0.1 * 0.125)


def test_a_step_taken_only_to_make_room_for_a_state_is_none_of_the_ramps() -> None:
    """torch.distributed.checkpoint steps with a rate of 0, so that there is a state to load into."""
    module, optimizer, splitter = opened_late()
    module.backbone.blocks[0].requires_grad_(True)
    with splitter.unsplit():
        step(module, optimizer)
    for ramp in (0.25, 0.5, 0.75, 1.0):
        assert optimizer.param_groups[0]["lr"] == 0.1 * (0.125 * ramp)
        step(module, optimizer)
