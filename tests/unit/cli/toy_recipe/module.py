"""The least that the command line asks of a module."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_transfer.types import BackboneCard, Batch, Calibration, ModelOutput, Schema

__all__ = ["ToyModule"]

READ: list[str | None] = []
"""Which weights were asked for, by each module made."""


class ToyModule(LightningModule):
    """A linear backbone and head.

    Args:
        backbone: Any name.
        weights: ``random``, or what stands for pretrained weights.
        card: Values of a card.
        width: Features.
        size: A choice, to get wrong.
        fail_at_epoch: Raise there, to see what a broken run leaves.
        interrupt_at_epoch: Send Ctrl-C there.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer.
    """

    monitor = "val_loss"
    monitor_mode = "min"

    def __init__(
        self,
        backbone: str = "toy/linear",
        weights: str | None = None,
        card: str | dict[str, Any] | None = None,
        width: int = 4,
        size: Literal["small", "large"] = "small",
        fail_at_epoch: int | None = None,
        interrupt_at_epoch: int | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=0.05),
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        READ.append(weights)
        self.card = BackboneCard.from_dict(card) if isinstance(card, Mapping) else _card(backbone, width)
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.Tanh())
        self.head: nn.Module | None = None
        self.schema: Schema | None = None
        self.calibration = Calibration()
        self.run_config: dict[str, Any] = {}
        self.fail_at_epoch = fail_at_epoch
        self.interrupt_at_epoch = interrupt_at_epoch
        self._optimizer = optimizer
        self._scheduler = scheduler
        self.test_outputs: list[ModelOutput] = []

    def configure_model(self) -> None:
        if self.head is None:
            self.schema = self.trainer.datamodule.schema
            assert self.schema is not None
            self.head = nn.Linear(self.card.num_features, self.schema.num_logits)

    def forward(self, input: Tensor) -> Tensor:
        assert self.head is not None
        logits: Tensor = self.head(self.backbone(input))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.current_epoch == self.fail_at_epoch:
            raise RuntimeError("the toy broke")
        if self.current_epoch == self.interrupt_at_epoch:
            os.kill(os.getpid(), signal.SIGINT)
        return nn.functional.cross_entropy(self(batch.input), batch.target)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = nn.functional.cross_entropy(self(batch.input), batch.target)
        self.log("val_loss", loss, batch_size=len(batch.index), sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> ModelOutput:
        return ModelOutput(self(batch.input), self.backbone(batch.input), batch.target, batch.index)

    def on_test_epoch_start(self) -> None:
        self.test_outputs = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.test_outputs.append(self.predict_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.parameters())
        return optimizer if self._scheduler is None else ([optimizer], [self._scheduler(optimizer)])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.schema is not None
        checkpoint["lightning_transfer"] = {
            "format": 1,
            "version": "0",
            "module": "ToyModule",
            "arguments": {},
            "source_head": None,
            "card": self.card.to_dict(),
            "schema": self.schema.to_dict(),
            "calibration": self.calibration.to_dict(),
            "config": self.run_config,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.calibration = Calibration.from_dict(checkpoint["lightning_transfer"]["calibration"])


def _card(backbone: str, width: int) -> BackboneCard:
    return BackboneCard(name=backbone, architecture=backbone, num_features=width, licence="CC0", pretraining="nothing")
