"""DiscriminativeLR with `rewarm_steps`: what opens during the fit starts with a small rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.tuner.lr_finder import _lr_find

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, adamw, difference, toy_of, trainer
from tests.unit.callbacks.test_discriminative_lr import Rates, cosine_floor, factor_of, one_cycle, plateau

STEPS = 3


class OpenRates(Callback):
    """Writes down the rates of what takes gradients, before each step and after its closure."""

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        names = {id(value): name for name, value in pl_module.named_parameters()}
        groups = optimizer.param_groups
        self.history.append(
            {names[id(v)]: float(group["lr"]) for group in groups for v in group["params"] if v.requires_grad}
        )


def expected(reference: Rates, opened_at: dict[str, int]) -> list[dict[str, float]]:
    """The user's curve, times the factor, times the ramp since the layer's first step."""
    result = []
    for step, users in enumerate(reference.history):
        rates = {}
        for name, rate in users.items():
            first = next((first for layer, first in opened_at.items() if layer in name), 0)
            if step >= first:
                ramp = min(1.0, (step - first + 1) / STEPS) if first else 1.0
                rates[name] = pytest.approx(rate * factor_of(name) * ramp, rel=1e-12)
        result.append(rates)
    return result


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("configure", [one_cycle, cosine_floor, plateau])
@pytest.mark.parametrize("first", ["rates", "freezing"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_opens_rises_on_top_of_the_users_curve(package: str, configure: Any, first: str, accumulate: int) -> None:
    options = {"package": package, "epochs": 4 * accumulate, "accumulate_grad_batches": accumulate}
    reference, seen = Rates(), OpenRates()
    trainer([reference], **options).fit(toy_of(package, configure))
    callbacks = [
        DiscriminativeLR(layer_decay=0.5, rewarm_steps=STEPS),
        BackboneFreezeUnfreeze("gradual", epochs_per_group=accumulate, unfreeze_at_epoch=accumulate, verbose=False),
    ]
    callbacks = callbacks if first == "rates" else callbacks[::-1]
    trainer([*callbacks, seen], **options).fit(toy_of(package, configure))
    assert len(seen.history) == 16
    assert seen.history == expected(reference, {"blocks.2": 4, "blocks.1": 8, "blocks.0": 12})


@pytest.mark.parametrize("where", ["epoch start", "training step", "batch end"])
def test_any_way_of_opening_is_seen(where: str) -> None:
    class Opening(Toy):  # type: ignore[misc, valid-type]
        def open_at(self, step: int) -> None:
            for number, block in enumerate(self.backbone.blocks):
                block.requires_grad_(step >= 4 * (3 - number))

        def on_train_epoch_start(self) -> None:
            if where == "epoch start":
                self.open_at(self.global_step)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if where == "training step":
                self.open_at(self.global_step)
            return super().training_step(batch, batch_idx)

        def on_train_batch_end(self, *args: Any) -> None:
            if where == "batch end":
                self.open_at(self.global_step)

    reference, seen = Rates(), OpenRates()
    trainer([reference]).fit(Toy(one_cycle))
    module = Opening(one_cycle)
    module.backbone.requires_grad_(False)
    trainer([DiscriminativeLR(layer_decay=0.5, rewarm_steps=STEPS), seen]).fit(module)
    assert seen.history == expected(reference, {"blocks.2": 4, "blocks.1": 8, "blocks.0": 12})


def test_it_is_off_by_default_and_one_step_is_none() -> None:
    whole = Toy(adamw)
    trainer([DiscriminativeLR(layer_decay=0.5), BackboneFreezeUnfreeze(verbose=False)]).fit(whole)
    for steps, same in ((0, True), (1, True), (2, False)):
        module = Toy(adamw)
        rates = DiscriminativeLR(layer_decay=0.5, rewarm_steps=steps)
        trainer([rates, BackboneFreezeUnfreeze(verbose=False)]).fit(module)
        assert (difference(whole, module) == 0.0) == same


@pytest.mark.parametrize("first", ["rates", "freezing"])
def test_a_run_resumed_on_a_ramp_ends_where_the_uninterrupted_one_does(first: str, tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        both = [
            DiscriminativeLR(layer_decay=0.5, rewarm_steps=6),
            BackboneFreezeUnfreeze("gradual", verbose=False),
        ]
        return both if first == "rates" else both[::-1]

    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    whole, seen = Toy(one_cycle), OpenRates()
    trainer([*callbacks(), saver, seen], enable_checkpointing=True).fit(whole)
    for epoch in range(3):
        again, rest = Toy(one_cycle, seed=3), OpenRates()
        path = tmp_path / f"epoch={epoch}.ckpt"
        trainer([*callbacks(), rest]).fit(again, ckpt_path=path, weights_only=True)
        assert rest.history == seen.history[4 * (epoch + 1) :]
        assert difference(whole, again) == 0.0


def test_a_checkpoint_saved_after_the_fit_holds_the_ramps(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        return [DiscriminativeLR(layer_decay=0.5, rewarm_steps=6), BackboneFreezeUnfreeze(verbose=False)]

    whole, again = Toy(one_cycle), Toy(one_cycle, seed=3)
    trainer(callbacks()).fit(whole)
    run = trainer(callbacks(), epochs=2)
    run.fit(Toy(one_cycle))
    run.save_checkpoint(tmp_path / "two.ckpt")
    trainer(callbacks()).fit(again, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert difference(whole, again) == 0.0


def test_a_second_fit_starts_its_ramps_anew() -> None:
    rates = DiscriminativeLR(layer_decay=0.5, rewarm_steps=6)
    seen = OpenRates()
    for _ in range(2):
        trainer([rates, BackboneFreezeUnfreeze(verbose=False), seen]).fit(Toy(one_cycle))
    assert seen.history[:16] == seen.history[16:]


def test_a_search_for_a_rate_takes_nothing_of_the_ramps(tmp_path: Path) -> None:
    class Tunable(Toy):  # type: ignore[misc, valid-type]
        lr = 0.1

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    class Late(Callback):
        """Searches while the groups are split, which Lightning's own callback does not."""

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.requires_grad_(True)
            _lr_find(trainer, pl_module, num_training=12, update_attr=False)
            pl_module.backbone.requires_grad_(False)

    class Open(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.backbone.requires_grad_(trainer.current_epoch > 0)

    seen = OpenRates()
    callbacks = [DiscriminativeLR(layer_decay=0.5, rewarm_steps=STEPS), Late(), Open(), seen]
    trainer(callbacks, default_root_dir=tmp_path, epochs=3).fit(Tunable())
    run = [rates["backbone.blocks.0.linear.weight"] for rates in seen.history[-8:]]
    assert run == pytest.approx([0.1 * 0.125 * ramp for ramp in (1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1)])


@pytest.mark.parametrize("value", [-1, 2.5])
def test_a_wrong_number_of_steps_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=f"rewarm_steps.*{value}"):
        DiscriminativeLR(rewarm_steps=value)  # type: ignore[arg-type]
