"""Trains on two processes with each action of the monitor and writes what each rank ends with; run by a test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, ForgettingMonitor
from tests.unit.callbacks.callback_toys import trainer
from tests.unit.callbacks.forgetting_toys import PROBE, dataset
from tests.unit.callbacks.interpolate_toys import make

# Each rank validates on its own shard, with its own score: rank 0's must decide.
VAL = dataset(30, 5)


class Keep(ForgettingMonitor):
    """Writes this rank's weights and the result of the search."""

    folder = ""

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        super().on_train_end(trainer, pl_module)
        found = dict(self.summary.get("interpolation", {}), seconds=0.0)
        values = [{key: item.value for key, item in report.readings.items()} for report in self.history]
        state = {"state": pl_module.state_dict(), "interpolation": found, "history": values}
        torch.save(state, Path(self.folder) / f"rank{trainer.global_rank}.pt")


def monitor(action: str, **options: Any) -> Keep:
    given = {"tolerance": {"cosine": 0.0}, "confirm": 1, **options}
    return Keep(
        {"photos": PROBE, "others": dataset(16, 9), "grain": "noise"},
        backbone="backbone",
        metrics=("cosine", "cka"),
        max_overhead=None,
        on_alarm=action,
        **given,
    )


ACTIONS: dict[str, dict[str, Any]] = {
    "log": {},
    "stop": {},
    "rollback": {"tolerance": {"cosine": 0.05}},
    "refreeze": {},
    "interpolate": {"tolerance": {"cosine": 0.3}, "monitor": "val_loss"},
}


def main(folder: Path, start: str, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.mkdir()
        callback = monitor(name, **ACTIONS[name])
        callback.folder = str(path)
        freezing = [BackboneFreezeUnfreeze("full", backbone="backbone", verbose=False)] if name == "refreeze" else []
        fit = trainer(
            [*freezing, callback, ModelCheckpoint(path / "saved")],
            epochs=4,
            strategy=DDPStrategy(start_method=start, process_group_backend="gloo"),
            devices=2,
            enable_checkpointing=True,
            default_root_dir=str(path),
        )
        torch.manual_seed(3)
        fit.fit(make(), DataLoader(dataset(32, 1), batch_size=4), DataLoader(VAL, batch_size=7))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
