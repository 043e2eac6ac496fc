"""Trains the toy on two processes under several DDP settings and writes each rank's weights; run by `test_ddp.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, loader, trainer

# Name: arguments of DDP, gradient accumulation.
SETTINGS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 1),
    "bucket_view": ({"gradient_as_bucket_view": True}, 1),
    "static_graph": ({"static_graph": True}, 1),
    "accumulate": ({"gradient_as_bucket_view": True}, 2),
}
SCHEDULE = {0: 0, 1: 1, 2: 3, 3: 1}


class Keep(Callback):
    """Writes the weights of this rank, and in how many parameters DDP had its reducer in each epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reduced: list[int] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        wrapped = trainer.strategy.model
        if batch_idx == 0:
            count = sum(value.requires_grad for value in wrapped._module_parameters)
            self.reduced.append(count if isinstance(wrapped, DistributedDataParallel) else 0)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        state = {"state": pl_module.state_dict(), "reduced": self.reduced}
        torch.save(state, self.path / f"rank{trainer.global_rank}.pt")


class Sharded(Toy):  # type: ignore[misc, valid-type]
    """Lightning's own sampler would shuffle; here both ranks together see the global batches of one process."""

    def train_dataloader(self) -> DataLoader:
        dataset = loader().dataset
        return DataLoader(dataset, batch_size=4, sampler=DistributedSampler(dataset, shuffle=False))


def callbacks() -> list[Any]:
    return [DiscriminativeLR(layer_decay=0.5), BackboneFreezeUnfreeze(SCHEDULE, verbose=False)]


def configure(module: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def main(folder: Path, start: str, names: list[str]) -> None:
    for name in names:
        arguments, accumulate = SETTINGS[name]
        path = folder / name
        path.mkdir()
        module = Sharded(configure, norm="layer")
        trainer(
            [*callbacks(), Keep(path)],
            strategy=DDPStrategy(start_method=start, process_group_backend="gloo", **arguments),
            devices=2,
            accumulate_grad_batches=accumulate,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            use_distributed_sampler=False,
        ).fit(module)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
