"""DiscriminativeLR beside what else a Trainer does: averaging, accumulation, clipping, half precision, copies."""

from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim import lr_scheduler

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, copy_state, difference, moved, sgd, trainer
from tests.unit.callbacks.test_discriminative_lr import FACTORS

OPTIONS: dict[str, dict[str, Any]] = {
    "accumulate": {"accumulate_grad_batches": 2},
    "clip_norm": {"gradient_clip_val": 0.05},
    "clip_value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "bf16": {"precision": "bf16-mixed"},
    "all": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05, "precision": "bf16-mixed"},
}


def one_rate(module: Any) -> Any:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, weight_decay=0.1)
    return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, T_max=4, eta_min=0.002)]


def by_hand(module: Any) -> Any:
    """What a user writes without the callback: a group for each layer, and a curve that multiplies."""
    parts = {f"blocks.{number}": block for number, block in enumerate(module.backbone.blocks)} | {"head": module.head}
    groups = [{"params": list(part.parameters()), "lr": 0.02 * FACTORS[name]} for name, part in parts.items()]
    optimizer = torch.optim.AdamW(groups, lr=0.02, weight_decay=0.1)
    curve = lr_scheduler.CosineAnnealingLR(torch.optim.SGD([torch.zeros(1)], lr=0.02), T_max=4, eta_min=0.002)
    rates = []
    for _ in range(5):
        rates.append(curve.get_last_lr()[0] / 0.02)
        curve.optimizer.step()
        curve.step()
    return [optimizer], [lr_scheduler.LambdaLR(optimizer, lambda epoch: rates[epoch])]


def averaging(wanted: bool) -> list[Any]:
    return [EMAWeightAveraging(decay=0.5)] if wanted else []


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_run_is_that_of_groups_made_by_hand(name: str, averaged: bool) -> None:
    """The norm for clipping is summed over parameters in the same order, so the weights agree but for rounding."""
    theirs, ours = Toy(by_hand), Toy(one_rate)
    start = copy_state(ours)
    trainer(averaging(averaged), **OPTIONS[name]).fit(theirs)
    both = [DiscriminativeLR(layer_decay=0.5), BackboneFreezeUnfreeze("full", verbose=False)]
    trainer([*both, *averaging(averaged)], **OPTIONS[name]).fit(ours)
    assert len(moved(start, ours)) == len(start)
    assert difference(theirs, ours) < 1e-6


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("order", [1, -1])
def test_what_stays_closed_does_not_move_and_what_opens_does(name: str, averaged: bool, order: int) -> None:
    module = Toy(one_rate)
    start = copy_state(module)
    both = [
        DiscriminativeLR(layer_decay=0.5, rewarm_steps=3),
        BackboneFreezeUnfreeze({0: 0, 1: 1, 2: 2}, verbose=False),
    ]
    trainer([*both[::order], *averaging(averaged)], **OPTIONS[name]).fit(module)
    closed = {key for key in start if "blocks.0" in key}
    assert moved(start, module) == start.keys() - closed


def test_a_copy_and_a_pickle_made_before_the_fit_train_as_the_original() -> None:
    original = DiscriminativeLR(multipliers={"blocks.0": 0.2, "head": 2.0}, layer_decay=0.5, rewarm_steps=3)
    copies = [deepcopy(original), pickle.loads(pickle.dumps(original)), original]  # noqa: S301 - our own bytes
    results = []
    for callback in copies:
        module = Toy(one_rate)
        trainer([callback, BackboneFreezeUnfreeze(verbose=False)]).fit(module)
        results.append(module)
    assert difference(results[0], results[2]) == difference(results[1], results[2]) == 0.0
    assert original.state_dict() == copies[0].state_dict() == copies[1].state_dict()


def test_a_callback_that_has_run_can_be_copied_pickled_and_used_again() -> None:
    callback, first = DiscriminativeLR(layer_decay=0.5, rewarm_steps=3), Toy(sgd)
    trainer([callback, BackboneFreezeUnfreeze(verbose=False)]).fit(first)
    for again in (deepcopy(callback), pickle.loads(pickle.dumps(callback))):  # noqa: S301 - our own bytes
        module = Toy(sgd)
        trainer([again, BackboneFreezeUnfreeze(verbose=False)]).fit(module)
        assert difference(first, module) == 0.0
