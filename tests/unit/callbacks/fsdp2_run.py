"""Trains the toy under FSDP2 on two processes, saves in the middle, resumes; run by the tests of DiscriminativeLR."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, Subset

from lightning_transfer.callbacks import DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, loader, trainer


class Project(Toy):  # type: ignore[misc, valid-type]
    """The head is registered first, so that the order of layers is not that of the user's group."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(configure, norm="layer", seed=seed)
        self.backbone = self._modules.pop("backbone")
        self.backbone.blocks[0].requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        self.backbone.blocks[0].requires_grad_(self.trainer.current_epoch >= 1)


class Sharded(Project):
    """Both ranks together see the global batches of one process."""

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for part in (*self.backbone.blocks, self.head, self):
            fully_shard(part, mesh=mesh)

    def train_dataloader(self) -> DataLoader:
        rank = self.trainer.global_rank
        mine = [place for start in range(0, 32, 8) for place in range(start + 4 * rank, start + 4 * rank + 4)]
        return DataLoader(Subset(loader().dataset, mine), batch_size=4)


class Keep(Callback):
    """Saves a checkpoint after the second epoch, and the full weights and the rates at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rates: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path / "two.ckpt")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        weights = {
            name: (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().clone()
            for name, value in pl_module.named_parameters()
        }
        torch.save({"weights": weights, "rates": self.rates}, self.path / f"rank{trainer.global_rank}.pt")


def configure(module: torch.nn.Module) -> Any:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, weight_decay=0.1)
    return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)]


def callback() -> DiscriminativeLR:
    return DiscriminativeLR(layer_decay=0.5, no_decay_norm_and_bias=True, rewarm_steps=6)


def main(folder: Path) -> None:
    for kind in ("one_file", "shards"):
        for name in ("whole", "resumed"):
            path = folder / kind / name
            path.mkdir(parents=True, exist_ok=True)
            module = Sharded(seed=3 if name == "resumed" else 0)
            if name == "resumed":
                # FSDP2 loads the state of what takes gradients at that moment, and of nothing else.
                module.backbone.blocks[0].requires_grad_(True)
            strategy = ModelParallelStrategy(
                data_parallel_size=2,
                tensor_parallel_size=1,
                save_distributed_checkpoint=kind == "shards",
                process_group_backend="gloo",
            )
            run = trainer(
                [callback(), Keep(path)],
                strategy=strategy,
                devices=2,
                num_sanity_val_steps=0,
                limit_val_batches=0,
                use_distributed_sampler=False,
            )
            run.fit(module, ckpt_path=folder / kind / "whole" / "two.ckpt" if name == "resumed" else None)
            assert not {"optimizer_state", "load_checkpoint"} & vars(strategy).keys()
            assert len(run.optimizers[0].param_groups) == 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
