"""Pictures of a few classes in memory, and a finished model of some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_transfer.data import BaseDataModule
from lightning_transfer.modules import ClassificationModule
from lightning_transfer.types import BackboneCard, Record, Schema

OLD = ("good", "pit", "crack")
NEW = ("stain", "dent")


class Shades(BaseDataModule):
    """Noise around a picture of each class; the same pictures in every run."""

    def __init__(self, classes: Sequence[str], count: int = 12, size: int = 32, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(batch_size=8, check_data=False, **kwargs)
        self.names, self.count, self.size, self.seed = tuple(classes), count, size, seed

    def read_records(self) -> list[Record]:
        generator = torch.Generator().manual_seed(self.seed)
        records = []
        for name in self.names:
            own = torch.Generator().manual_seed((*OLD, *NEW, "burr").index(name))
            picture = torch.randn(3, 32, 32, generator=own)
            for place in range(self.count):
                noise = 0.3 * torch.randn(3, 32, 32, generator=generator)
                records.append(Record(f"{name} {self.seed} {place}", picture + noise, name))
        return records

    def make_preprocessing(self, card: BackboneCard) -> Shades:
        return self

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "none", "size": self.size}

    def load_input(self, record: Record) -> Tensor | Mapping[str, Tensor]:
        picture: Tensor = record.input
        return picture


def make_trainer(folder: Path, epochs: int = 1, **arguments: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, enable_checkpointing=False,
        num_sanity_val_steps=0, **{**quiet, **arguments},
    )  # fmt: skip


def finished(folder: Path, classes: Sequence[str] = OLD, **arguments: Any) -> Path:
    """Train a model, and return its checkpoint as a run would write it."""
    torch.manual_seed(0)
    module = ClassificationModule("timm/test_resnet", weights="random", **arguments)
    trainer = make_trainer(folder, epochs=2)
    trainer.fit(module, datamodule=Shades(classes, negative_class="good" if "good" in classes else None))
    path = folder / "model.ckpt"
    trainer.save_checkpoint(path)
    return path


def expanding(path: Path, **arguments: Any) -> ClassificationModule:
    torch.manual_seed(1)
    return ClassificationModule("timm/test_resnet", expand_from=str(path), **arguments)


def schema_of(module: ClassificationModule) -> Schema:
    assert module.schema is not None
    return module.schema
