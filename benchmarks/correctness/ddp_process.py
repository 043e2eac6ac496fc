"""Trains the toy on two processes with one contestant and writes each rank's weights; run by `rows/distributed.py`.

Arguments: the contestant's name and the folder.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, DistributedSampler

from benchmarks.correctness.contestants import CONTESTANTS, Settings
from benchmarks.correctness.rows.distributed import EPOCHS, OPEN_AT, plain
from benchmarks.correctness.toys import BATCH, Toy, loader, trainer


class Keep(Callback):
    """Writes the weights of this rank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them."""
        torch.save(pl_module.state_dict(), self.folder / f"rank{trainer.global_rank}.pt")


class Sharded(Toy):
    """Both ranks together see the global batches of one process, in the same order."""

    def train_dataloader(self) -> DataLoader[Any]:
        """Return this rank's half of every batch."""
        data = loader().dataset
        return DataLoader(data, batch_size=BATCH // 2, sampler=DistributedSampler(data, shuffle=False))

    val_dataloader = train_dataloader


def main(name: str, folder: Path) -> None:
    """Train."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    contestant = next(item for item in CONTESTANTS if item.name == name)
    callbacks = contestant.callbacks(Settings(folder, EPOCHS, OPEN_AT))
    options = {"strategy": "ddp_fork", "devices": 2, "use_distributed_sampler": False}
    trainer([*callbacks, Keep(folder)], EPOCHS, **options).fit(Sharded(plain))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
