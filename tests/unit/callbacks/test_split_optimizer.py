from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lightning_transfer.callbacks.split_optimizer import SplitOptimizer
from lightning_transfer.depth import layer_decay_scales, resolve_depth
from tests.unit.callbacks.callback_toys import Toy

Make = Callable[[torch.optim.Optimizer], Any]


def split(optimizer: torch.optim.Optimizer, module: nn.Module, decay: float = 0.5, **options: Any) -> SplitOptimizer:
    depth_map = resolve_depth(module)
    return SplitOptimizer(optimizer, module, depth_map, layer_decay_scales(depth_map, layer_decay=decay), **options)


def factor_of(module: nn.Module) -> dict[int, float]:
    """Factors written by hand: three blocks below the head, decay 0.5."""
    factors = {}
    for index, block in enumerate(module.backbone.blocks):
        factors.update(dict.fromkeys(map(id, block.parameters()), 0.5 ** (3 - index)))
    factors.update(dict.fromkeys(map(id, module.head.parameters()), 1.0))
    return factors


def rates(optimizer: torch.optim.Optimizer, key: str = "lr") -> dict[int, Any]:
    return {id(value): group[key] for group in optimizer.param_groups for value in group["params"]}


def give_gradients(module: nn.Module) -> None:
    for value in module.parameters():
        value.grad = torch.ones_like(value)


def two_groups(module: nn.Module, cls: type = torch.optim.SGD, **options: Any) -> torch.optim.Optimizer:
    """The user's own groups, cut across the layers: biases without decay at another rate."""
    biases = [value for name, value in module.named_parameters() if name.endswith("bias")]
    weights = [value for name, value in module.named_parameters() if not name.endswith("bias")]
    return cls(
        [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0, "lr": 0.05}],
        lr=0.2,
        **options,
    )


class Halving:
    """A scheduler that shares nothing with torch's, and that keeps a hold on the group dictionaries."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.groups = list(optimizer.param_groups)
        self.count = 0

    def step(self) -> None:
        self.count += 1
        for group in self.groups:
            group["lr"] = group["lr"] * 0.5 + 0.001

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def transformers_schedule(name: str, **options: Any) -> Make:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        transformers = pytest.importorskip("transformers")
        return getattr(transformers, name)(optimizer, num_warmup_steps=3, num_training_steps=20, **options)

    return make


SCHEDULERS: dict[str, Make] = {
    "lambda": lambda opt: lr_scheduler.LambdaLR(opt, lambda step: 1 / (1 + step)),
    "lambda_per_group": lambda opt: lr_scheduler.LambdaLR(opt, [lambda step: 0.9**step, lambda step: 0.5**step]),
    "one_cycle": lambda opt: lr_scheduler.OneCycleLR(opt, max_lr=[0.5, 0.3], total_steps=21),
    "cyclic": lambda opt: lr_scheduler.CyclicLR(opt, base_lr=[0.01, 0.02], max_lr=[0.5, 0.4], step_size_up=4),
    "warm_restarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=5, eta_min=0.01),
    "cosine": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=20),
    "cosine_floor": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=12, eta_min=0.04),
    "step": lambda opt: lr_scheduler.StepLR(opt, step_size=4, gamma=0.3),
    "exponential": lambda opt: lr_scheduler.ExponentialLR(opt, gamma=0.8),
    "linear": lambda opt: lr_scheduler.LinearLR(opt, start_factor=0.2, total_iters=9),
    "polynomial": lambda opt: lr_scheduler.PolynomialLR(opt, total_iters=15, power=2.0),
    "plateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=1, factor=0.3, min_lr=[0.01, 0.002]),
    "sequential": lambda opt: lr_scheduler.SequentialLR(
        opt,
        [lr_scheduler.LinearLR(opt, 0.1, total_iters=5), lr_scheduler.CosineAnnealingLR(opt, 15)],
        milestones=[5],
    ),
    "chained": lambda opt: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(opt, 0.1, total_iters=6), lr_scheduler.ExponentialLR(opt, 0.9)], optimizer=opt
    ),
    "transformers_cosine": transformers_schedule("get_cosine_schedule_with_warmup"),
    "transformers_linear": transformers_schedule("get_linear_schedule_with_warmup"),
    "transformers_polynomial": transformers_schedule("get_polynomial_decay_schedule_with_warmup", lr_end=1e-4),
    "custom": Halving,
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.AdamW])
def test_any_scheduler_gives_the_users_curve_times_the_factor(name: str, cls: type) -> None:
    options = {"momentum": 0.9} if cls is torch.optim.SGD else {}
    plain, ours = Toy(), Toy()
    left, right = two_groups(plain, cls, **options), two_groups(ours, cls, **options)
    reference, driven = SCHEDULERS[name](left), SCHEDULERS[name](right)
    splitter = split(right, ours)
    splitter.drive(driven)
    factors = factor_of(ours)
    for index in range(20):
        for optimizer, scheduler in ((left, reference), (right, driven)):
            optimizer.step()
            arguments = (1.0 / (index // 6 + 1),) if name == "plateau" else ()
            scheduler.step(*arguments)
        expected, actual = rates(left), rates(right)
        momentum = "momentum" if "momentum" in options else "betas"
        assert rates(left, momentum).keys() == expected.keys()
        for (mine, rate), (other, wanted) in zip(
            sorted((factors_order(ours, key), value) for key, value in actual.items()),
            sorted((factors_order(plain, key), value) for key, value in expected.items()),
            strict=True,
        ):
            assert mine == other
            key = id(list(ours.parameters())[mine])
            assert rate == pytest.approx(wanted * factors[key], rel=1e-12, abs=0)
            assert rates(right, momentum)[key] == rates(left, momentum)[id(list(plain.parameters())[mine])]
    assert str(driven.state_dict()) == str(reference.state_dict())


def factors_order(module: nn.Module, key: int) -> int:
    return [id(value) for value in module.parameters()].index(key)


def test_groups_keep_every_option_and_have_unique_names() -> None:
    module = Toy()
    optimizer = two_groups(module, momentum=0.9, nesterov=True)
    split(optimizer, module)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1] * 4 + [0.0] * 4
    assert [group["lr"] for group in optimizer.param_groups] == [
        user * factor for user in (0.2, 0.05) for factor in (0.125, 0.25, 0.5, 1.0)
    ]
    assert all(group["momentum"] == 0.9 and group["nesterov"] for group in optimizer.param_groups)
    names = [group["name"] for group in optimizer.param_groups]
    assert len(set(names)) == 8
    assert "blocks.1" in names[1]
    assert "depth1" in names[1]
    held = [id(value) for group in optimizer.param_groups for value in group["params"]]
    assert sorted(held) == sorted(map(id, module.parameters()))


def test_names_the_user_gave_are_kept_in_the_new_names() -> None:
    module = Toy()
    groups = [
        {"params": list(module.backbone.parameters()), "name": "old"},
        {"params": list(module.head.parameters()), "name": "new"},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    splitter = split(optimizer, module)
    assert all("old" in group["name"] for group in optimizer.param_groups[:3])
    assert "new" in optimizer.param_groups[3]["name"]
    splitter.restore()
    assert [group["name"] for group in optimizer.param_groups] == ["old", "new"]


def test_parameters_of_equal_value_go_to_their_own_layers() -> None:
    module = Toy()
    for block in module.backbone.blocks:
        for value in block.parameters():
            nn.init.zeros_(value)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    split(optimizer, module)
    assert rates(optimizer) == factor_of(module)


def test_parameters_outside_the_module_keep_the_users_rate() -> None:
    module, outside = Toy(), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([*module.parameters(), outside], lr=1.0)
    split(optimizer, module)
    assert rates(optimizer)[id(outside)] == 1.0


def test_no_decay_for_norms_and_biases_also_when_decay_is_scheduled() -> None:
    module = Toy()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.0)
    splitter = split(optimizer, module, no_decay_norm_and_bias=True)
    with splitter.users_view():
        optimizer.param_groups[0]["weight_decay"] = 0.3
    decays = rates(optimizer, "weight_decay")
    matrices = {id(value) for value in module.parameters() if value.ndim > 1}
    assert {key: value for key, value in decays.items() if value} == dict.fromkeys(matrices, 0.3)


def test_a_list_shared_with_a_wrapper_is_split_for_both() -> None:
    module = Toy()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    shared = optimizer.param_groups
    splitter = split(optimizer, module)
    assert optimizer.param_groups is shared
    splitter.restore()
    assert optimizer.param_groups is shared
    assert len(shared) == 1


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.AdamW])
def test_state_is_saved_in_the_users_form_and_loads_again(cls: type) -> None:
    options = {"momentum": 0.9} if cls is torch.optim.SGD else {}
    plain, ours = Toy(), Toy()
    left, right = two_groups(plain, cls, **options), two_groups(ours, cls, **options)
    splitter = split(right, ours, decay=1.0)  # factor one: both must stay equal, step by step
    for _ in range(3):
        for module, optimizer in ((plain, left), (ours, right)):
            give_gradients(module)
            optimizer.step()
    saved, expected = right.state_dict(), left.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [
        group["params"] for group in expected["param_groups"]
    ]
    assert saved["state"].keys() == expected["state"].keys()
    for index, state in expected["state"].items():
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(saved["state"][index][key]), torch.as_tensor(value))
    for group, wanted in zip(saved["param_groups"], expected["param_groups"], strict=True):
        assert group == wanted
    # Into a split optimizer, and, unsplit, into the user's.
    again = Toy()
    again.load_state_dict(ours.state_dict())
    third = two_groups(again, cls, **options)
    split(third, again, decay=1.0)
    third.load_state_dict(deepcopy(saved))
    left.load_state_dict(deepcopy(saved))
    for module, optimizer in ((plain, left), (ours, right), (again, third)):
        give_gradients(module)
        optimizer.step()
    for value, one, two in zip(plain.parameters(), ours.parameters(), again.parameters(), strict=True):
        assert torch.equal(value, one)
        assert torch.equal(one, two)
    splitter.restore()


def test_loading_a_state_takes_over_its_rates() -> None:
    first, second = Toy(), Toy()
    saved = torch.optim.SGD(first.parameters(), lr=0.7).state_dict()
    optimizer = torch.optim.SGD(second.parameters(), lr=0.1)
    splitter = split(optimizer, second)
    optimizer.load_state_dict(saved)
    assert rates(optimizer) == {key: 0.7 * factor for key, factor in factor_of(second).items()}
    splitter.restore()
    assert optimizer.param_groups[0]["lr"] == 0.7


def test_a_state_of_another_optimizer_is_refused_as_torch_does() -> None:
    module = Toy()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    split(optimizer, module)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(two_groups(Toy()).state_dict())


class Counting(torch.optim.SGD):
    """Keeps a count in its groups, as schedule-free and D-adaptation optimizers do."""

    def step(self, closure: Any = None) -> None:
        for index, group in enumerate(self.param_groups):
            group["count"] = group.get("count", 0) + 1 + index
        super().step(closure)


def test_what_an_optimizer_counts_in_its_groups_survives() -> None:
    module = Toy()
    optimizer = Counting(module.parameters(), lr=0.1)
    split(optimizer, module)
    optimizer.step()
    optimizer.step()
    counts = [group["count"] for group in optimizer.param_groups]
    other = Toy()
    again = Counting(other.parameters(), lr=0.1)
    split(again, other)
    again.load_state_dict(optimizer.state_dict())
    assert [group["count"] for group in again.param_groups] == counts == [2, 4, 6, 8]


def test_what_saves_and_loads_past_the_hooks_sees_the_users_groups() -> None:
    module, optimizer = (toy := Toy()), Counting(toy.parameters(), lr=0.1)
    splitter = split(optimizer, module)
    optimizer.step()
    with splitter.unsplit():
        saved = deepcopy(optimizer.state_dict())
        assert [group["count"] for group in saved["param_groups"]] == [1]
        saved["param_groups"][0].update(lr=0.7, count=5)
        optimizer.load_state_dict(saved)
    assert rates(optimizer) == {key: 0.7 * factor for key, factor in factor_of(module).items()}
    assert [group["count"] for group in optimizer.param_groups] == [5] * 4


@pytest.mark.parametrize(
    ("write", "base"),
    [
        (lambda group: 0.3, 0.3),  # warm-up by hand: one rate for all
        (lambda group: group["lr"] * 0.1, 0.01),  # a cut by hand: one multiple for all
    ],
)
def test_a_rate_written_by_hand_is_the_users_new_rate(write: Callable[[dict[str, Any]], float], base: float) -> None:
    module = Toy()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    splitter = split(optimizer, module)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    splitter.drive(scheduler)
    for group in optimizer.param_groups:
        group["lr"] = write(group)
    give_gradients(module)
    before = {id(value): value.detach().clone() for value in module.parameters()}
    optimizer.step()
    for value in module.parameters():
        wanted = before[id(value)] - base * factor_of(module)[id(value)]
        torch.testing.assert_close(value.detach(), wanted, rtol=0, atol=1e-7)
    scheduler.step()
    assert splitter.users[0]["lr"] == pytest.approx(base / 2)


def test_rates_written_one_by_one_are_left_alone_and_saved() -> None:
    module = Toy()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    split(optimizer, module)
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = 0.01 * (index + 1) ** 2
    wanted = [group["lr"] for group in optimizer.param_groups]
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == wanted
    other = Toy()
    again = torch.optim.SGD(other.parameters(), lr=0.1)
    split(again, other)
    again.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in again.param_groups] == wanted


def test_a_tensor_rate_is_filled_not_replaced() -> None:
    module = Toy()
    optimizer = torch.optim.AdamW(module.parameters(), lr=torch.tensor(0.1), capturable=False, foreach=False)
    splitter = split(optimizer, module)
    held = [group["lr"] for group in optimizer.param_groups]
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    splitter.drive(scheduler)
    optimizer.step()
    scheduler.step()
    assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, held, strict=True))
    torch.testing.assert_close(torch.stack(held), 0.05 * torch.tensor([0.125, 0.25, 0.5, 1.0]))


def test_a_group_added_later_is_left_alone() -> None:
    module, late = Toy(), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    splitter = split(optimizer, module)
    optimizer.add_param_group({"params": [late], "lr": 0.9})
    assert len(optimizer.state_dict()["param_groups"]) == 2
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[-1]["lr"] == 0.9
    splitter.restore()
    assert [len(group["params"]) for group in optimizer.param_groups] == [len(list(module.parameters())), 1]


def test_restore_leaves_no_trace() -> None:
    module = Toy()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    before, kind = deepcopy(optimizer.state_dict()), type(scheduler)
    splitter = split(optimizer, module)
    splitter.drive(scheduler)
    assert type(scheduler) is not kind
    assert type(scheduler).__name__ == "ExponentialLR"
    splitter.restore()
    assert type(scheduler) is kind
    assert optimizer.state_dict() == before
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_state_dict_post_hooks
    assert not optimizer._optimizer_load_state_dict_pre_hooks


def test_named_parameters_are_split_with_their_names() -> None:
    module = Toy()
    optimizer = torch.optim.SGD(module.named_parameters(), lr=0.1)
    if "param_names" not in optimizer.param_groups[0]:
        pytest.skip("this torch keeps no parameter names in its groups")
    split(optimizer, module)
    names = {id(value): name for name, value in module.named_parameters()}
    for group in optimizer.param_groups:
        assert group["param_names"] == [names[id(value)] for value in group["params"]]
    again = torch.optim.SGD(module.named_parameters(), lr=0.1)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == again.param_groups[0]["param_names"]
