"""A network with all that a mixture must treat in its own way, and mixtures of it that are made by hand."""

from __future__ import annotations

import copy

import lightning.pytorch
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from lightning_transfer.callbacks import ForgettingMonitor
from tests.unit.callbacks.forgetting_toys import PROBE, dataset, make_trainer, source_head

TRAIN, VAL = dataset(24, 1), dataset(30, 5)


class Backbone(nn.Module):
    """Everything that a mixture must treat in its own way."""

    def __init__(self, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.register_buffer("calls", torch.zeros(1, dtype=torch.long))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.last = nn.Linear(8, 8)

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.last(self.norm(self.conv(x)).relu().mean((2, 3)))


def _module_class(lib):
    class Module(lib.LightningModule):
        def __init__(self, norm=True):
            super().__init__()
            self.backbone = Backbone(norm)
            self.head = nn.Sequential(nn.BatchNorm1d(8, affine=False) if norm else nn.Identity(), nn.Linear(8, 3))

        def forward(self, x):
            return self.head(self.backbone(x))

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]), batch_size=len(logits))
            accuracy = (logits.argmax(1) == batch[1]).float().mean()
            self.log("val_acc", accuracy, batch_size=len(logits))

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    Module.__qualname__ = Module.__name__ = f"Module_{lib.__name__.replace('.', '_')}"
    return Module


# So that it can be pickled by name.
Module_lightning_pytorch = _module_class(lightning.pytorch)


def make(lib=lightning.pytorch, norm=True):
    torch.manual_seed(0)
    return (Module_lightning_pytorch if lib is lightning.pytorch else _module_class(lib))(norm)


def train(tmp_path, *callbacks, module=None, lib=lightning.pytorch, ckpt_path=None, epochs=3, **options):
    module = make(lib) if module is None else module
    trainer = make_trainer(tmp_path, callbacks, lib, max_epochs=epochs, **options)
    torch.manual_seed(3)
    loaders = DataLoader(TRAIN, batch_size=8), DataLoader(VAL, batch_size=7)
    trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    return trainer, module


def monitor(**options):
    given = {
        "head": source_head(),
        "metrics": ("agreement", "cosine"),
        "tolerance": {"cosine": 0.3},
        "max_overhead": None,
        "on_alarm": "interpolate",
        "monitor": "val_loss",
        "backbone": "backbone",
    }
    return ForgettingMonitor(PROBE, **{**given, **options})


def by_hand(start, end, alpha):
    """Mix, compute BatchNorm again, and measure, all without the code under test."""
    mixed = copy.deepcopy(end)
    first, last = start.state_dict(), end.state_dict()
    state = dict(last)
    for name, value in last.items():
        if name.startswith("backbone.") and value.is_floating_point():
            blend = (1 - alpha) * first[name] + alpha * value
            state[name] = torch.where(first[name] == value, value, blend)
    mixed.load_state_dict(state)
    update_bn(DataLoader(TRAIN, batch_size=8), mixed)
    for name, value in mixed.state_dict().items():
        if not value.is_floating_point():
            value.copy_(last[name])
    mixed.eval()
    inputs, (x, target) = PROBE.tensors[0], VAL.tensors
    with torch.no_grad():
        features = [module.eval().backbone(inputs).double() for module in (start, mixed)]
        logits = mixed(x)
        return mixed, {
            "cosine": 1 - nn.functional.cosine_similarity(*features).mean().item(),
            "val_loss": nn.functional.cross_entropy(logits, target).item(),
            "val_acc": (logits.argmax(1) == target).double().mean().item(),
        }


def tolerance_between(expected, low, high):
    """A tolerance that the mixture at `low` keeps and that at `high` does not."""
    first, second = expected[low][1]["cosine"], expected[high][1]["cosine"]
    assert first < second
    return (first + second) / 2
