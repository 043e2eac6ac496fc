from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_transfer.callbacks.freeze_plan import (
    build_plan,
    check_optimizers,
    describe_differences,
    describe_unreached,
    end_of_run,
    is_late,
)
from lightning_transfer.depth import Freezer, resolve_depth
from tests.unit.callbacks.callback_toys import Toy


def count_trainable(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters() if value.requires_grad)


@pytest.mark.parametrize("train_bn", [False, True])
def test_the_plan_is_what_the_freezer_does(train_bn: bool) -> None:
    module = Toy()
    module.backbone.blocks[1].linear.bias.requires_grad_(False)  # frozen by the user, for good
    depth_map = resolve_depth(module)
    steps = [(0, 0), (1, 1), (2, 3)]
    plan = build_plan(module, depth_map, steps, train_bn=train_bn)
    freezer = Freezer(module, depth_map, train_bn=train_bn)
    for stage, (epoch, count) in zip(plan, steps, strict=True):
        freezer.apply(count)
        assert stage.epoch == epoch
        assert stage.trainable_parameters == count_trainable(module)
        assert stage.share == count_trainable(module) / sum(value.numel() for value in module.parameters())
    assert [stage.opened for stage in plan] == [(), ("blocks.2",), ("blocks.1", "blocks.0")]
    assert plan[2].open_groups == ("blocks.0", "blocks.1", "blocks.2")


@pytest.mark.parametrize(
    ("max_epochs", "reached"), [(None, [1, 1, 1]), (-1, [1, 1, 1]), (2, [1, 1, 0]), (1, [1, 0, 0])]
)
def test_stages_from_max_epochs_on_are_not_reached(max_epochs: int | None, reached: list[int]) -> None:
    module = Toy()
    plan = build_plan(module, resolve_depth(module), [(0, 0), (1, 1), (2, 2)], end=max_epochs)
    assert [stage.reached for stage in plan] == [bool(value) for value in reached]
    text = describe_unreached(plan, max_epochs)
    assert bool(text) == (0 in reached)
    if text:
        assert f"`max_epochs` is {max_epochs}" in text


def test_the_warning_names_the_first_group_that_stays_closed() -> None:
    module = Toy()
    plan = build_plan(module, resolve_depth(module), [(0, 0), (5, 1), (7, 2)], end=4)
    assert "`blocks.2` is due at epoch 5" in describe_unreached(plan, 4)


def test_an_optimizer_that_misses_a_parameter_is_refused() -> None:
    module = Toy()
    depth_map = resolve_depth(module)
    left_out = module.backbone.blocks[1].linear.weight
    optimizer = torch.optim.SGD([value for value in module.parameters() if value is not left_out], lr=0.1)
    plan = build_plan(module, depth_map, [(0, 0), (3, 2)])
    with pytest.raises(
        MisconfigurationException, match=r"1 parameters of `blocks.1`.*epoch 3: .*blocks.1.linear.weight"
    ):
        check_optimizers([optimizer], module, depth_map, plan)
    # A second optimizer, the user's own freezing, or a schedule that never comes there make it right.
    check_optimizers([optimizer, torch.optim.SGD([left_out], lr=0.1)], module, depth_map, plan)
    check_optimizers([optimizer], module, depth_map, build_plan(module, depth_map, [(0, 0), (3, 2)], end=3))
    check_optimizers([optimizer], module, depth_map, build_plan(module, depth_map, [(0, 1)]))
    left_out.requires_grad_(False)
    check_optimizers([optimizer], module, depth_map, build_plan(module, depth_map, [(0, 0), (3, 2)]))


def test_parameters_of_equal_value_are_told_apart() -> None:
    module = Toy()
    for block in module.backbone.blocks:
        nn.init.zeros_(block.linear.bias)
    depth_map = resolve_depth(module)
    left_out = module.backbone.blocks[2].linear.bias
    optimizer = torch.optim.SGD([value for value in module.parameters() if value is not left_out], lr=0.1)
    with pytest.raises(MisconfigurationException, match=r"1 parameters of `blocks.2`"):
        check_optimizers([optimizer], module, depth_map, build_plan(module, depth_map, [(0, 1)]))


@pytest.mark.parametrize(
    ("begin", "end", "late"),
    [(0, 1, False), (1, 1, True), (2, 1, True), (0, 0, True), (9, -1, False), (9, None, False), (None, 1, False)],
)
def test_a_stage_is_late_from_the_end_on(begin: int | None, end: int | None, late: bool) -> None:
    assert is_late(begin, end) == late


@pytest.mark.parametrize(
    ("unit", "automatic", "loaded", "estimated", "expected"),
    [
        ("epoch", True, True, 40, 5),
        ("step", True, True, 40, 40),
        ("step", True, True, math.inf, None),
        # Not known yet, or the module's own affair: only `max_steps` is left.
        ("step", True, False, 40, 70),
        ("step", False, True, 40, 70),
    ],
)
def test_the_end_of_a_run_is_what_is_known_of_it(
    unit: Any, automatic: bool, loaded: bool, estimated: float, expected: int | None
) -> None:
    run: Any = SimpleNamespace(
        max_epochs=5, max_steps=70, estimated_stepping_batches=estimated, train_dataloader=[] if loaded else None
    )
    assert end_of_run(run, SimpleNamespace(automatic_optimization=automatic), unit) == expected  # type: ignore[arg-type]


def test_stages_in_steps_have_no_epoch() -> None:
    module = Toy()
    plan = build_plan(module, resolve_depth(module), [(0, 0), (200, 2)], unit="step", end=150)
    assert [(stage.epoch, stage.step, stage.begins, stage.reached) for stage in plan] == [
        (None, 0, "at step 0", True),
        (None, 200, "at step 200", False),
    ]
    text = describe_unreached(plan, 150)
    assert "due at step 200, but the run ends after 150 optimizer steps. Train for more than 200 steps" in text


@pytest.mark.parametrize(
    ("state", "texts"),
    [
        (None, []),
        # As Lightning's finders save it before a fit has begun.
        ({"groups": [], "schedule": "gradual()"}, []),
        ({"groups": ["stem", "top"], "schedule": "full()"}, []),
        ({"groups": ["stem"], "schedule": "full()"}, ["layer groups stem; this run has stem, top"]),
        ({"groups": ["stem", "top"], "schedule": "gradual()"}, ["schedule gradual(), this run has full()"]),
    ],
)
def test_a_checkpoint_of_another_run_is_described(state: Any, texts: list[str]) -> None:
    found = describe_differences(state, ("stem", "top"), "full()")
    assert len(found) == len(texts)
    assert all(text in line for text, line in zip(texts, found, strict=True))
