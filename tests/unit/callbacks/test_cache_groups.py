"""What a run's schedule says of its groups, and what the module says where there is none."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from lightning_transfer.callbacks import BackboneFreezeUnfreeze
from lightning_transfer.callbacks.cache_conditions import CacheRefusedError
from lightning_transfer.callbacks.cache_groups import RunGroups
from tests.unit.callbacks.cache_toys import make_module


def trainer_of(*callbacks: Any, **values: Any) -> Any:
    given = {"max_epochs": 10, "max_steps": -1, "current_epoch": 0, "global_step": 0, "num_training_batches": 5}
    given |= {"accumulate_grad_batches": 1, "val_check_batch": 5}
    return SimpleNamespace(callbacks=list(callbacks), **{**given, **values})


def test_a_schedule_in_epochs() -> None:
    groups = RunGroups.of(trainer_of(BackboneFreezeUnfreeze({0: 0, 4: 2})), make_module())
    assert (groups.total, groups.end) == (5, 10)
    assert [groups.open_at(epoch) for epoch in (0, 3, 4, 9)] == [0, 0, 2, 2]
    assert groups.opened(5, 3) == ""
    assert groups.opened(5, 4) == "`layer4`"
    assert groups.opened(3, 4) == ""


def test_a_schedule_in_steps_counts_all_that_an_epoch_will_see() -> None:
    """12 steps are in the middle of the third epoch; with accumulation over two batches, in the fourth."""
    freezer = BackboneFreezeUnfreeze({0: 0, 12: 1, 13: 3, 14: 1}, unit="step")
    groups = RunGroups.of(trainer_of(freezer), make_module())
    assert [groups.open_at(epoch) for epoch in range(4)] == [0, 0, 3, 1]
    groups = RunGroups.of(trainer_of(freezer, accumulate_grad_batches=2), make_module())
    assert [groups.open_at(epoch) for epoch in range(6)] == [0, 0, 0, 0, 3, 1]


def test_a_metric_is_sure_for_as_many_checks_as_a_stall_takes() -> None:
    freezer = BackboneFreezeUnfreeze("gradual", monitor="val_loss", patience=3)
    groups = RunGroups.of(trainer_of(freezer), make_module())
    # The first check sets the best value, three more make the stall, and the group opens with the fifth epoch.
    assert [groups.open_at(epoch) for epoch in range(6)] == [0, 0, 0, 0, 5, 5]
    twice = RunGroups.of(trainer_of(freezer, val_check_batch=3), make_module())
    assert [twice.open_at(epoch) for epoch in range(3)] == [0, 0, 5]


def test_without_a_schedule_what_takes_gradients_counts() -> None:
    module = make_module()
    assert RunGroups.of(trainer_of(), module).open_at(0) == 5
    for layer in (module.backbone.conv1, module.backbone.bn1, module.backbone.layer1):
        layer.requires_grad_(False)
    groups = RunGroups.of(trainer_of(), module)
    assert groups.open_at(7) == 3
    above = groups.trains(module, 2)
    assert above == {id(v) for number in (2, 3, 4) for v in getattr(module.backbone, f"layer{number}").parameters()}


def test_a_backbone_without_groups_is_one_group() -> None:
    module = nn.Module()
    module.backbone = nn.Identity()
    groups = RunGroups.of(trainer_of(), module)  # type: ignore[arg-type]
    assert (groups.depth_map, groups.total, groups.open_at(0)) == (None, 1, 0)
    assert groups.trains(module, 1) == set()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "end"),
    [({"max_epochs": -1}, math.inf), ({"max_epochs": None}, math.inf), ({"max_steps": 12}, 3),
     ({"max_epochs": -1, "max_steps": 12, "current_epoch": 1, "global_step": 5}, 3),
     ({"max_epochs": 2, "max_steps": 100}, 2)],
)  # fmt: skip
def test_the_end_of_a_run(values: Any, end: float) -> None:
    assert RunGroups.of(trainer_of(**values), make_module()).end == end


def test_two_schedules_are_refused() -> None:
    with pytest.raises(CacheRefusedError, match="2 `BackboneFreezeUnfreeze`"):
        RunGroups.of(trainer_of(BackboneFreezeUnfreeze(), BackboneFreezeUnfreeze()), make_module())
