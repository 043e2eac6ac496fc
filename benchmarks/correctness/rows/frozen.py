"""Is what is frozen really frozen, and does it cost no backward pass?"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from benchmarks.correctness.contestants import BARE, Contestant, Settings
from benchmarks.correctness.outcome import Case, Row
from benchmarks.correctness.toys import Recorder, Toy, backbone_of, copy_of, sgd, trainer

__all__ = ["ROWS"]

EPOCHS = 3


def measure_bn(contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Train the head alone, BatchNorm asked to stay as it is; see what moved in the backbone."""
    drift, trained = _bn_after_training(contestant, folder)
    text = f"drift {drift:.2g}, {trained} norm parameters train"
    if contestant.name == "FTS":
        default, _ = _bn_after_training(contestant.with_options(frozen_bn_track_running_stats=True), folder)
        text += f" (drift {default:.2g} by default)"
    return drift == 0 and trained == 0, text


def _bn_after_training(contestant: Contestant, folder: Path) -> tuple[float, int]:
    module, recorder = Toy(norm="batch"), Recorder()
    before = copy_of(module)
    trainer([*contestant.callbacks(Settings(folder, EPOCHS, None)), recorder], EPOCHS).fit(module)
    after = module.state_dict()
    drift = max(float((after[name] - before[name]).abs().max()) for name in before if "running_mean" in name)
    norms = {name for name, child in module.backbone.named_modules() if isinstance(child, nn.BatchNorm1d)}
    affine = {f"backbone.{name}.{part}" for name in norms for part in ("weight", "bias")}
    return drift, len(affine & set().union(*recorder.trainable))


class _Comparing(Toy):
    """Compares the features of each training step with those of the same weights and statistics in eval mode."""

    def __init__(self, norm: str, dropout: float) -> None:
        super().__init__(sgd, norm, dropout)
        # In a list, so that it is no part of the module and no callback touches it.
        self.reference = [Toy(norm=norm, dropout=dropout).backbone.eval()]
        self.largest = 0.0
        # What pretraining would have left: statistics that are not those of this data.
        for child in self.backbone.modules():
            if isinstance(child, nn.BatchNorm1d) and child.running_mean is not None:
                child.running_mean.fill_(0.3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        self.reference[0].load_state_dict(self.backbone.state_dict())
        features = self.backbone(batch[0])
        self.largest = max(self.largest, float((features - self.reference[0](batch[0])).abs().max()))
        return nn.functional.cross_entropy(self.head(features), batch[1])


class _Restless(Callback):
    """Calls ``.train()`` before each step, on the module and on every part of it, as other code does."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Call it."""
        for module in pl_module.modules():
            module.train()


def measure_features(
    norm: str, dropout: float, restless: bool, contestant: Contestant, folder: Path
) -> tuple[bool, str]:
    """Compare the frozen backbone's features in training with those of eval mode."""
    module = _Comparing(norm, dropout)
    callbacks = contestant.callbacks(Settings(folder, EPOCHS, None))
    trainer([*callbacks, *([_Restless()] if restless else [])], EPOCHS).fit(module)
    return module.largest == 0, f"{module.largest:.2g}"


class _Timed(Callback):
    """Times the backward pass of each step."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self._start = 0.0

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        self.milliseconds.append(1000 * (time.perf_counter() - self._start))


class _Convolutions(Toy):
    """Wide enough that a backward pass through the backbone can be told from one through the head."""

    def __init__(self, detach: bool = False) -> None:
        super().__init__(sgd)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            blocks = [
                nn.Sequential(nn.Conv2d(inputs, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
                for inputs in (3, 24, 24, 24)
            ]
            self.backbone = backbone_of(*blocks)
            self.head = nn.Linear(24, 2)
        self.detach = detach
        self.reached: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores of a batch that is drawn from the shape of ``x`` alone."""
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(x.shape[0], 3, 32, 32, generator=generator)
        taking = 0
        for part in self.backbone.blocks:
            features = part(features)
            taking += features.requires_grad
        self.reached.append(taking)
        scores: Tensor = self.head((features.detach() if self.detach else features).mean((2, 3)))
        return scores


def measure_backward(contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """See whether gradients are computed in the frozen backbone; the time is shown, the graph decides.

    The time is the frozen stage's median backward, with its quartiles, over the median of the same network with
    everything trainable.
    """
    reached, frozen = _backward(_Convolutions(), contestant.callbacks(Settings(folder, EPOCHS, None)))
    _, full = _backward(_Convolutions(), BARE.callbacks(Settings(folder, EPOCHS, None)))
    _, head = _backward(_Convolutions(detach=True), [])
    whole = statistics.median(full)
    low, middle, high = (value / whole for value in statistics.quantiles(frozen, n=4))
    text = (
        f"{reached} of 4 blocks in the graph, {middle:.3f} of a full backward [{low:.3f}, {high:.3f}], "
        f"head alone {statistics.median(head) / whole:.3f}"
    )
    return reached == 0, text


def _backward(module: _Convolutions, callbacks: list[Callback]) -> tuple[int, list[float]]:
    """Return how many blocks the backward pass reached at most, and the milliseconds of each step but the first."""
    timed = _Timed()
    trainer([*callbacks, timed], EPOCHS, limit_val_batches=1).fit(module)
    return max(module.reached), timed.milliseconds[1:]


def _features_case(name: str, norm: str, dropout: float, restless: bool) -> Case:
    return Case(name, lambda contestant, folder: measure_features(norm, dropout, restless, contestant, folder))


ROWS = (
    Row(
        "train-bn",
        "`train_bn=False`",
        "running means of a frozen backbone do not move, and none of its norm parameters trains",
        (Case("", measure_bn),),
    ),
    Row(
        "features",
        "frozen features equal their eval values",
        "largest difference 0",
        (
            _features_case("BN", "batch", 0.0, False),
            _features_case("dropout", "layer", 0.5, False),
            _features_case("both, something calls `.train()`", "batch", 0.5, True),
        ),
    ),
    Row(
        "backward",
        "frozen stage skips the backbone's backward",
        "no output of a frozen block takes gradients (the times are shown only)",
        (Case("", measure_backward),),
    ),
)
