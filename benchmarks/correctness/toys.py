"""A small network, a loader that never shuffles, one way to train them, and what is written down in each step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = [
    "STEPS",
    "Recorder",
    "Toy",
    "backbone_of",
    "block",
    "copy_of",
    "largest_difference",
    "loader",
    "moved",
    "sgd",
    "trainer",
]

WIDTH = 8
BATCH = 8
STEPS = 4
"""Optimizer steps in an epoch of one process."""

Configure = Callable[["Toy"], Any]


def block(norm: str = "layer", dropout: float = 0.0) -> nn.Sequential:
    """Return linear weights, a normalisation, a non-linearity and dropout."""
    layers: dict[str, nn.Module] = {"layer": nn.LayerNorm(WIDTH), "batch": nn.BatchNorm1d(WIDTH), "none": nn.Identity()}
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), layers[norm], nn.Tanh(), nn.Dropout(dropout))


def backbone_of(*blocks: nn.Module) -> nn.Sequential:
    """Return a backbone that runs its ``blocks`` one after the other."""
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))


def sgd(module: Toy) -> torch.optim.Optimizer:
    """Make the optimizer as the documentation of the peers has it."""
    return torch.optim.SGD((value for value in module.parameters() if value.requires_grad), lr=0.1, momentum=0.9)


class Toy(LightningModule):
    """A backbone of three blocks and a linear head, made from a seed.

    Args:
        configure: Makes what ``configure_optimizers`` returns.
        norm: ``layer``, ``batch`` or ``none``.
        dropout: Probability, in each block.
        seed: Of the weights.
    """

    # What finetuning-scheduler reads to leave weight decay out.
    no_decay: list[str] | None = None

    def __init__(self, configure: Configure = sgd, norm: str = "layer", dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.backbone: nn.Module = backbone_of(*(block(norm, dropout) for _ in range(3)))
            self.head: nn.Module = nn.Linear(WIDTH, 2)
        self.configure = configure

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores of shape ``(N, 2)``."""
        scores: Tensor = self.head(self.backbone(x))
        return scores

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log ``val_loss``."""
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Run the network."""
        self(batch[0])

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return class scores."""
        scores: Tensor = self(batch[0])
        return scores

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - as Lightning has it
        """Do what the experiment asks."""
        return self.configure(self)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader, for every verb."""
        return loader()

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def loader(batch_size: int = BATCH, size: int = BATCH * STEPS) -> DataLoader[Any]:
    """Return batches in the same order every time; the inputs' mean is far from zero, so that BatchNorm would drift."""
    generator = torch.Generator().manual_seed(7)
    x = 2 * torch.randn(size, WIDTH, generator=generator) + 1
    return DataLoader(TensorDataset(x, (x.sum(1) > WIDTH).long()), batch_size=batch_size)


def trainer(callbacks: list[Callback], epochs: int, **options: Any) -> Trainer:  # noqa: ANN401 - of the Trainer
    """Return a Trainer on one CPU process that writes nothing but what its callbacks write."""
    saves = any("Checkpoint" in type(callback).__name__ for callback in callbacks)
    defaults = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": saves}
    return Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{**defaults, **options},
    )


class Recorder(Callback):
    """Writes down, before each step, rate, decay and trainability of every parameter, and what moved in each epoch.

    Attributes:
        rates: One dictionary a step, from parameter name to learning rate.
        decays: The same for weight decay.
        trainable: One set a step: names of the parameters that take gradients and are in the optimizer.
        moved: One set an epoch: names of the tensors of the state that are not bitwise what they were.
    """

    def __init__(self) -> None:
        self.rates: list[dict[str, float]] = []
        self.decays: list[dict[str, float]] = []
        self.trainable: list[set[str]] = []
        self.moved: list[set[str]] = []
        self._before: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the weights."""
        self._before = copy_of(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:  # noqa: ANN401
        """Write down what this step will do."""
        names = {id(value): name for name, value in pl_module.named_parameters()}
        held = [(names[id(value)], group, value) for group in optimizer.param_groups for value in group["params"]]
        self.rates.append({name: float(group["lr"]) for name, group, _ in held})
        self.decays.append({name: float(group["weight_decay"]) for name, group, _ in held})
        self.trainable.append({name for name, _, value in held if value.requires_grad})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the weights."""
        self.moved.append(moved(self._before, pl_module))


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def moved(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    """Return the names of the tensors that changed, bitwise."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def largest_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Return the largest absolute difference of two states.

    Raises:
        ValueError: If the states have other names.
    """
    if left.keys() != right.keys():
        raise ValueError(f"Expected states of the same names, got {sorted(left.keys() ^ right.keys())} in one alone.")
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)
