"""Pictures, texts and runs for the tests of `FeatureCache`: what is loaded, and every loss, is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, ExactResume, FeatureCache
from lightning_transfer.data import Augmentations, BaseDataModule
from lightning_transfer.modules import ClassificationModule
from lightning_transfer.types import BackboneCard, Record

CLASSES = ("good", "pit", "crack")


class Pictures(BaseDataModule):
    """Noise around a picture of each class, of unequal size; `loads` counts what is read."""

    def __init__(self, count: int = 10, flips: bool = False, size: int = 32, **kwargs: Any) -> None:
        super().__init__(**{"batch_size": 8, "check_data": False, "calibration_fraction": 0.0, **kwargs})
        self.count, self.size = count, size
        self.augmentations = Augmentations(["horizontal_flip", "brightness"] if flips else [])
        self.loads: list[str] = []

    def read_records(self) -> list[Record]:
        generator = torch.Generator().manual_seed(1)
        return [
            Record(
                f"{name} {place}",
                torch.randn(3, self.size, self.size, generator=torch.Generator().manual_seed(number))
                + torch.randn(3, self.size, self.size, generator=generator),
                name,
            )
            for number, name in enumerate(CLASSES)
            for place in range(self.count * (number + 1))
        ]

    def make_preprocessing(self, card: BackboneCard) -> Pictures:
        return self

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "none", "size": [self.size, self.size]}

    def load_input(self, record: Record) -> Tensor | Mapping[str, Tensor]:
        self.loads.append(record.id)
        picture: Tensor = record.input
        return picture

    def augment_input(self, value: Tensor, generator: torch.Generator) -> Tensor:
        return self.augmentations(value, generator)

    @property
    def varies_inputs(self) -> bool:
        return bool(self.augmentations.names)


class Losses(pl.Callback):
    """Keeps the loss of every training batch, and of every validation batch by the module's own metric."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.val: list[float] = []
        self.index: list[list[int]] = []
        self.cached: list[bool] = []
        self.loads: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.train.append(float(outputs["loss"]))
        self.index.append(batch.index.tolist())
        self.cached.append(type(batch.input).__name__ == "Activations")

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.val.append(float(trainer.callback_metrics.get("val_loss", float("nan"))))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.val.append(float(trainer.callback_metrics["val_loss"]))
        self.loads.append(len(getattr(trainer.datamodule, "loads", ())))


def make_module(backbone: str = "timm/test_resnet", **kwargs: Any) -> ClassificationModule:
    """A network with norms that have seen data, and a head that draws random numbers."""
    torch.manual_seed(0)
    options = {"weights": "random", "head_dropout": 0.3, "head_norm": "batchnorm", **kwargs}
    module = ClassificationModule(backbone, optimizer=lambda params: torch.optim.SGD(params, lr=0.02), **options)
    stir(module.backbone)
    return module


def stir(network: nn.Module) -> None:
    """Give every norm statistics and weights that are not those of the start."""
    generator = torch.Generator().manual_seed(5)
    for part in network.modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            part.running_mean.copy_(0.3 * torch.randn(part.running_mean.shape, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=generator))
            if part.affine:
                part.weight.data.copy_(0.7 + 0.6 * torch.rand(part.weight.shape, generator=generator))
                part.bias.data.copy_(0.2 * torch.randn(part.bias.shape, generator=generator))


def run(
    folder: Path,
    cache: FeatureCache | None,
    *,
    schedule: Any = "feature_extraction",
    epochs: int = 4,
    data: BaseDataModule | None = None,
    module: pl.LightningModule | None = None,
    ckpt_path: Any = None,
    more: Sequence[pl.Callback] = (),
    freeze: Mapping[str, Any] | None = None,
    **trainer: Any,
) -> tuple[Any, Losses, Any]:
    """Fit, and return the module, the losses and the data."""
    torch.manual_seed(7)
    losses, chosen = Losses(), data if data is not None else Pictures()
    network = module if module is not None else make_module()
    callbacks: list[Any] = [
        *([] if schedule is None else [BackboneFreezeUnfreeze(schedule, verbose=False, **(freeze or {}))]),
        *([] if cache is None else [cache]),
        losses,
        *more,
        ExactResume(),
    ]
    options: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **trainer,
    }
    made = pl.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder, callbacks=callbacks, **options)
    made.fit(network, datamodule=chosen, ckpt_path=ckpt_path)
    return network, losses, chosen
