"""Contestants that are wrong on purpose, each in one way, to see that the rules of the benchmark notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping

from benchmarks.correctness.contestants import Contestant, Settings, Spec, _checkpoint


@dataclass(frozen=True)
class Clumsy(Contestant):
    """Uses one of the callbacks below."""

    name: str = "clumsy"
    package: str = "lightning"
    callback: str = ""

    def specs(self, wish: Settings) -> list[Spec]:
        path = f"tests.benchmarks.clumsy.{self.callback}"
        return [(path, {"open_at": wish.open_at}), *_checkpoint(wish)] if self.callback else _checkpoint(wish)


class Opening(Callback):
    """Freezes the backbone in every verb, and opens it where an epoch begins, but not where it was open before."""

    def __init__(self, open_at: int | None) -> None:
        self.open_at = open_at

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pl_module.backbone.requires_grad_(False)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        optimizer = trainer.optimizers[0]
        held = {id(value) for group in optimizer.param_groups for value in group["params"]}
        missing = [value for value in pl_module.parameters() if id(value) not in held]
        if missing:
            optimizer.param_groups[0]["params"].extend(missing)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.open_at:
            pl_module.backbone.requires_grad_(True)


class Sawtooth(Opening):
    """Sets the first group's rate back at every epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        trainer.optimizers[0].param_groups[0]["lr"] = 0.05


class Decaying(Opening):
    """Gives every group a decay."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        for group in trainer.optimizers[0].param_groups:
            group["weight_decay"] = 0.3


class Meddling(Opening):
    """Takes the user's EarlyStopping away and trains longer."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_fit_start(trainer, pl_module)
        trainer.callbacks = [item for item in trainer.callbacks if not isinstance(item, EarlyStopping)]
        trainer.fit_loop.max_epochs += 1


class Forgetful(Opening):
    """Opens in its first fit only."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.open_at = None
