"""A small network, a deterministic loader and one way to train them, for the tests of the callbacks."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore", ".*does not have many workers.*")
warnings.filterwarnings("ignore", ".*module.s. in eval mode.*")

Configure = Callable[["nn.Module"], Any]


class Block(nn.Module):
    """A block as in every backbone: weights, normalisation, dropout."""

    def __init__(self, width: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(torch.relu(self.norm(self.linear(x))))


class Backbone(nn.Module):
    """Three blocks; groups `stem`, `blocks.0`, `blocks.1`, `blocks.2` or three, as `depth` finds them."""

    def __init__(self, norm: str = "batch", dropout: float = 0.0, width: int = 6) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, norm, dropout) for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)


def _module_class(package: str) -> type:
    base = importlib.import_module(package).LightningModule

    class Toy(base):  # type: ignore[misc, valid-type]
        def __init__(
            self, configure: Configure = sgd, norm: str = "batch", dropout: float = 0.0, seed: int = 0
        ) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.backbone = Backbone(norm, dropout)
                self.head = nn.Linear(6, 2)
            self.configure = configure
            self.seen: list[dict[str, Any]] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.backbone(x))

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

        def configure_optimizers(self) -> Any:
            return self.configure(self)

        def train_dataloader(self) -> DataLoader:
            return loader()

        def val_dataloader(self) -> DataLoader:
            return loader()

    Toy.__qualname__ = Toy.__name__ = f"Toy_{package.replace('.', '_')}"
    return Toy


Toy = _module_class("lightning.pytorch")
# So that it can be pickled by name.
Toy_lightning_pytorch = Toy


def toy_of(package: str, *args: Any, **kwargs: Any) -> Any:
    return _module_class(package)(*args, **kwargs)


def loader(batch_size: int = 8, size: int = 32) -> DataLoader:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(size, 6, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=batch_size)


def trainer(callbacks: list[Any], epochs: int = 4, package: str = "lightning.pytorch", **options: Any) -> Any:
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, **options}
    return importlib.import_module(package).Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def difference(left: nn.Module, right: nn.Module) -> float:
    a, b = left.state_dict(), right.state_dict()
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def moved(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    """Names of the tensors that are not bitwise what they were."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def copy_state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


class Watch(Callback):
    """Writes down, before each step, what trains, what has a gradient, and every rate."""

    def __init__(self) -> None:
        self.trains: list[set[str]] = []
        self.rates: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        names = {id(value): name for name, value in pl_module.named_parameters()}
        self.trains.append({name for name, value in pl_module.named_parameters() if value.grad is not None})
        assert self.trains[-1] == {name for name, value in pl_module.named_parameters() if value.requires_grad}
        self.rates.append({names[id(v)]: group["lr"] for group in optimizer.param_groups for v in group["params"]})
