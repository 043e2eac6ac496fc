"""A small network with all that a monitor could disturb, and one way to train it, for the tests of the monitor."""

from __future__ import annotations

import random
import warnings

import lightning.pytorch
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_transfer.callbacks.forgetting_monitor import ForgettingMonitor

warnings.filterwarnings("ignore", message=".*does not have many workers.*")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return self.drop(self.norm(self.conv(x)).relu()).mean((2, 3))


def make_module(lib=lightning.pytorch, lr=0.05, frozen=False, optimizer=torch.optim.AdamW):
    class Module(lib.LightningModule):
        def __init__(self):
            super().__init__()
            self.lr = lr
            self.backbone = Network()
            self.head = nn.Linear(8, 3)
            if frozen:
                self.backbone.requires_grad_(False)

        def training_step(self, batch, batch_idx):
            if frozen:
                self.backbone.eval()
            loss = nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1]))

        def configure_optimizers(self):
            return optimizer(self.parameters(), lr=self.lr)

    torch.manual_seed(0)
    return Module()


def dataset(n=24, seed=1, classes=3):
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % classes
    return TensorDataset(torch.randn(n, 3, 6, 6, generator=generator) + target[:, None, None, None], target)


def source_head(classes=4):
    torch.manual_seed(7)
    return nn.Linear(8, classes).requires_grad_(False)


PROBE = dataset(n=20, seed=2)


def make_trainer(tmp_path, callbacks, lib=lightning.pytorch, **options):
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path),
    }
    return lib.Trainer(callbacks=list(callbacks), **{**quiet, **options})


def train(tmp_path, *callbacks, module=None, lib=lightning.pytorch, ckpt_path=None, max_epochs=3, **options):
    module = make_module(lib) if module is None else module
    trainer = make_trainer(tmp_path, callbacks, lib, max_epochs=max_epochs, **options)
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    train_loader = DataLoader(dataset(), batch_size=8, shuffle=True)
    trainer.fit(module, train_loader, DataLoader(dataset(12, 5), batch_size=6), ckpt_path=ckpt_path)
    return trainer, module


def monitor(probe=PROBE, **options):
    return ForgettingMonitor(probe, **{"max_overhead": None, "backbone": "backbone", **options})


class Crash(lightning.pytorch.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt("crash")
