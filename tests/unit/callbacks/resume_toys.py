"""A fit in which everything is random, checkpoints at every moment, and a comparison of two fits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.kill_and_resume import same
from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR, ExactResume, ForgettingMonitor
from lightning_transfer.data.loading import Collate, EpochSampler, RecordDataset, ResumableLoader, class_weights
from lightning_transfer.types import Record
from tests.unit.callbacks.callback_toys import Toy, trainer

EPOCHS = 4
BATCHES = 5


def one_cycle(module: Any) -> Any:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=EPOCHS * BATCHES + 1)
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def plateau(module: Any, frequency: int = 1) -> Any:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
    # Every epoch that is not twice as good as the best cuts the rate: a step that is left out shows at once.
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=0.5)
    return [optimizer], [{"scheduler": scheduler, "monitor": "val_loss", "frequency": frequency}]


class RandomToy(Toy):  # type: ignore[misc, valid-type]
    """Shuffles, augments, drops out, and draws from Python's and NumPy's states in each step."""

    def __init__(self, configure: Any = one_cycle, workers: int = 0, weighted: bool = False, **options: Any) -> None:
        super().__init__(configure, dropout=0.3, **options)
        self.workers, self.weighted = workers, weighted

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (0.5 + random.random() + float(np.random.rand()))

    def train_dataloader(self) -> DataLoader:
        weights = class_weights(_RECORDS) if self.weighted else None
        return ResumableLoader(
            RecordDataset(_RECORDS, _load, ("a", "b"), "multiclass", _augment),
            batch_size=8,
            sampler=EpochSampler(len(_RECORDS), 3, weights),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=Collate(),
            generator=torch.Generator().manual_seed(0),
        )


def _load(record: Record) -> Tensor:
    value: Tensor = record.input
    return value


def _augment(value: Tensor, generator: torch.Generator) -> Tensor:
    return value + 0.3 * torch.randn(value.shape, generator=generator)


def _records() -> list[Record]:
    inputs = torch.randn(37, 6, generator=torch.Generator().manual_seed(7))
    return [Record(str(place), x, "a" if x.sum() > 0 else "b") for place, x in enumerate(inputs)]


_RECORDS = _records()


class SaveEverywhere(Checkpoint):
    """A checkpoint after each batch but those that validation or the epoch's end follow, and after each of these."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved: list[Path] = []

    def _save(self, trainer: Any, moment: str) -> None:
        path = self.folder / f"{trainer.current_epoch}-{trainer.fit_loop.batch_idx + 1}-{moment}.ckpt"
        trainer.save_checkpoint(path)
        self.saved.append(path)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.val_check_batch and batch_idx + 1 < trainer.num_training_batches:
            self._save(trainer, "batch")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._save(trainer, "epoch")


def callbacks(*more: Any) -> list[Any]:
    return [
        BackboneFreezeUnfreeze("gradual", verbose=False),
        DiscriminativeLR(layer_decay=0.5),
        ForgettingMonitor("noise", metrics=("cosine",), n_probe=8),
        *more,
        ExactResume(),
    ]


def run(
    folder: Path,
    module: Any,
    checkpoint: Path | None = None,
    make: Callable[..., list[Any]] = callbacks,
    save: bool = False,
    **options: Any,
) -> tuple[dict[str, Any], list[Path]]:
    """Fit; return what a checkpoint of the end holds, and the checkpoints on the way."""
    saver = SaveEverywhere(folder)
    # What a resumed process starts with is not what the uninterrupted one had.
    torch.manual_seed(1 if checkpoint is None else 99)
    random.seed(2 if checkpoint is None else 98)
    np.random.seed(3 if checkpoint is None else 97)
    options = {"enable_checkpointing": save, "default_root_dir": folder, **options}
    fit = trainer([*make(), *([saver] if save else [])], EPOCHS, **options)
    fit.fit(module, ckpt_path=checkpoint, weights_only=None if checkpoint is None else True)
    fit.save_checkpoint(folder / "end.ckpt")
    end: dict[str, Any] = torch.load(folder / "end.ckpt", weights_only=True)
    return end, saver.saved


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Name what differs between two ends: weights, optimizer, scheduler, random states."""
    found = [key for key in ("state_dict", "optimizer_states", "lr_schedulers") if not same(left[key], right[key])]
    states = [end["callbacks"]["ExactResume"]["random"] for end in (left, right)]
    return found if same(*states) else [*found, "random"]
