"""Trains the toy recogniser on two processes, and writes what each rank ends with; run by a test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from lightning_transfer.callbacks import RetentionBudget
from tests.unit.callbacks.words_toys import monitor, train


class Keep(Callback):
    """Writes this rank's weights and readings."""

    def __init__(self, folder: Path, *watchers: Any) -> None:
        self.folder, self.watchers = folder, watchers

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        watcher, budget = self.watchers
        values = [report.readings["forgetting_wer"].value for report in watcher.history]
        state = {"state": pl_module.state_dict(), "history": values, "rows": budget.rows}
        torch.save(state, self.folder / f"rank{trainer.global_rank}.pt")


def main(folder: Path) -> None:
    watcher, budget = monitor(), RetentionBudget(0.1)
    saver = ModelCheckpoint(folder / "saved", monitor="val_retention_score", mode="max", save_on_train_epoch_end=True)
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo")
    callbacks = watcher, budget, Keep(folder, watcher, budget), saver
    train(folder, *callbacks, strategy=strategy, devices=2, enable_checkpointing=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
