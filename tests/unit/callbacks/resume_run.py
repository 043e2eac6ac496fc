"""Fits the random toy on two processes, whole and resumed, and writes each rank's end for `test_exact_resume.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR, ExactResume
from tests.unit.callbacks.callback_toys import trainer
from tests.unit.callbacks.resume_toys import RandomToy, SaveEverywhere


class Rank(Callback):
    """Gives each process a random state of its own, and writes what it ends with."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        torch.manual_seed(100 * self.number + trainer.global_rank)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        end = {"state": pl_module.state_dict(), "drawn": torch.rand(3).tolist()}
        torch.save(end, self.path / f"{self.number}-rank{trainer.global_rank}.pt")


def main(folder: Path) -> None:
    for number, name in enumerate([None, "1-2-batch.ckpt", "2-3-epoch.ckpt"]):
        callbacks = [BackboneFreezeUnfreeze("gradual", verbose=False), DiscriminativeLR(), Rank(folder, number)]
        trainer(
            [*callbacks, ExactResume(), *([] if name else [SaveEverywhere(folder)])],
            strategy=DDPStrategy(start_method="fork", process_group_backend="gloo"),
            devices=2,
            num_sanity_val_steps=0,
            enable_checkpointing=not name,
        ).fit(RandomToy(norm="layer", seed=number), ckpt_path=folder / name if name else None, weights_only=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
