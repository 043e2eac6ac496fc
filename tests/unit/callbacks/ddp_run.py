"""Trains the toy on two processes under several DDP settings and writes each rank's weights; run by `test_ddp.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, loader, trainer

SCHEDULE = {0: 0, 1: 1, 2: 3, 3: 1}
# What each check of the metric reads; ranks other than the first read the opposite.
SCORES = [5.0, 4.0, 4.0, 4.0, 3.0, 3.5, 3.5, 3.5]


class Score(Callback):
    """Logs a metric from a list, twice an epoch."""

    def __init__(self, rank_zero_only: bool) -> None:
        self.rank_zero_only = rank_zero_only
        self.checks = 0

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        value = SCORES[self.checks] * (1 if trainer.global_rank == 0 else -1)
        pl_module.log("score", value, rank_zero_only=self.rank_zero_only)
        self.checks += 1


class Keep(Callback):
    """Writes the weights of this rank, and in how many parameters DDP had its reducer at each batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reduced: list[int] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        wrapped = trainer.strategy.model
        count = sum(value.requires_grad for value in wrapped._module_parameters)
        self.reduced.append(count if isinstance(wrapped, DistributedDataParallel) else 0)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        state = {"state": pl_module.state_dict(), "reduced": self.reduced}
        torch.save(state, self.path / f"rank{trainer.global_rank}.pt")


def by_epoch() -> list[Any]:
    return [BackboneFreezeUnfreeze(SCHEDULE, verbose=False)]


def by_step() -> list[Any]:
    return [BackboneFreezeUnfreeze({0: 0, 1: 1, 6: 3, 11: 1}, unit="step", verbose=False)]


def by_score(rank_zero_only: bool = False) -> list[Any]:
    return [Score(rank_zero_only), BackboneFreezeUnfreeze("gradual", monitor="score", patience=2, verbose=False)]


def by_loss() -> list[Any]:
    """The loss falls, so in mode "max" every check is a stall."""
    return [BackboneFreezeUnfreeze("gradual", monitor="val_loss", mode="max", patience=1, verbose=False)]


# What DDP reduces: two head tensors, and four in each open block.
HEAD, ONE, TWO, ALL = 2, 6, 10, 14
PLAIN = [HEAD] * 4 + [ONE] * 4 + [ALL] * 4 + [ONE] * 4


@dataclass(frozen=True)
class Setting:
    """One run: what it is given, and what DDP must reduce at each of its 16 batches."""

    reduced: list[int]
    freezing: Callable[[], list[Any]] = by_epoch
    ddp: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


TWICE = {"val_check_interval": 2}
SETTINGS = {
    "plain": Setting(PLAIN),
    "bucket_view": Setting(PLAIN, ddp={"gradient_as_bucket_view": True}),
    "static_graph": Setting(PLAIN, ddp={"static_graph": True}),
    "accumulate": Setting(PLAIN, ddp={"gradient_as_bucket_view": True}, options={"accumulate_grad_batches": 2}),
    "steps": Setting([HEAD] + [ONE] * 5 + [ALL] * 5 + [ONE] * 5, by_step),
    # Four batches an epoch make steps of three and one: eight steps in all.
    "steps_accumulate": Setting([HEAD] * 3 + [ONE] * 9 + [ALL] * 4, by_step, options={"accumulate_grad_batches": 3}),
    # Checks after batch 2, 4, ...: stalls at the fourth and at the seventh.
    "score": Setting([HEAD] * 8 + [ONE] * 6 + [TWO] * 2, by_score, options=TWICE),
    "score_of_rank_zero": Setting([HEAD] * 8 + [ONE] * 6 + [TWO] * 2, partial(by_score, True), options=TWICE),
    "loss": Setting([HEAD] * 8 + [ONE] * 4 + [TWO] * 4, by_loss),
}


class Sharded(Toy):  # type: ignore[misc, valid-type]
    """Lightning's own sampler would shuffle; here both ranks together see the global batches of one process."""

    def train_dataloader(self) -> DataLoader:
        dataset = loader().dataset
        return DataLoader(dataset, batch_size=4, sampler=DistributedSampler(dataset, shuffle=False))

    val_dataloader = train_dataloader


def callbacks(name: str) -> list[Any]:
    return [DiscriminativeLR(layer_decay=0.5), *SETTINGS[name].freezing()]


def configure(module: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def main(folder: Path, start: str, names: list[str]) -> None:
    for name in names:
        setting, path = SETTINGS[name], folder / name
        path.mkdir()
        module = Sharded(configure, norm="layer")
        trainer(
            [*callbacks(name), Keep(path)],
            strategy=DDPStrategy(start_method=start, process_group_backend="gloo", **setting.ddp),
            devices=2,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **setting.options,
        ).fit(module)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
