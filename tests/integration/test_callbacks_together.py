"""All three callbacks in one run, beside what else people put into a Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import TensorDataset

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR, ForgettingMonitor
from tests.unit.callbacks.callback_toys import Toy, copy_state, loader, moved, trainer
from tests.unit.callbacks.test_discriminative_lr import Rates

EPOCHS = 3
FACTORS = {"blocks.0": 0.125, "blocks.1": 0.25, "blocks.2": 0.5, "head": 1.0}


class Epochs(Callback):
    """Writes down what moved in each epoch, of the parameters that may train."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = copy_state(pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        parameters = {name for name, _ in pl_module.named_parameters()}
        self.moved.append(moved(self.before, pl_module) & parameters)


class Tunable(Toy):  # type: ignore[misc, valid-type]
    """Has what the finders look for."""

    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.1
        self.batch_size = 8
        with torch.random.fork_rng():
            torch.manual_seed(1)
            # Without BatchNorm's statistics, so that only parameters move.
            self.backbone.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3)))
            self.source_head = nn.Linear(6, 4).requires_grad_(False)

    def train_dataloader(self) -> Any:
        return loader(self.batch_size)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def ours(watch: bool) -> list[Any]:
    probe = TensorDataset(torch.randn(16, 6, generator=torch.Generator().manual_seed(3)))
    monitor = ForgettingMonitor(probe, head="source_head", backbone="backbone", max_overhead=None, every_n_steps=1)
    freeze = BackboneFreezeUnfreeze("lp_ft", backbone="backbone", head=["head", "source_head"], verbose=False)
    rates = DiscriminativeLR(layer_decay=0.5, backbone="backbone", head=["head", "source_head"])
    return [freeze, rates, *([monitor] if watch else [])]


def fit(folder: Path, watch: bool, others: Any, options: dict[str, Any], change: Any) -> tuple[Any, Any, Any, Any]:
    module, rates, epochs, callbacks = Tunable(), Rates(), Epochs(), ours(watch)
    fitted = change(module) if change else module
    added = [item(folder) for item in others]
    run = trainer([*callbacks, *added, rates, epochs], EPOCHS, default_root_dir=folder, **options(folder))
    run.fit(fitted)
    return module, rates, epochs, callbacks[-1]


def nothing(folder: Path) -> dict[str, Any]:
    return {}


def submodule(module: Any) -> Any:
    module.backbone = torch.compile(module.backbone, backend="aot_eager")
    return module


def whole(module: Any) -> Any:
    return torch.compile(module, backend="aot_eager")


def lora(module: Any) -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=[f"blocks.{index}.0" for index in range(3)], r=2)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module.backbone = peft.get_peft_model(module.backbone, config)
    return module


SETTINGS: dict[str, tuple[Any, Any, Any]] = {
    "plain": ([], nothing, None),
    "bf16": ([], lambda folder: {"precision": "bf16-mixed"}, None),
    "accumulation": ([], lambda folder: {"accumulate_grad_batches": 2}, None),
    "clipping": ([], lambda folder: {"gradient_clip_val": 0.01}, None),
    "averaging": ([lambda folder: WeightAveraging()], nothing, None),
    "summary": ([lambda folder: ModelSummary(2)], nothing, None),
    "checkpoint": ([lambda folder: ModelCheckpoint(folder / "saved")], lambda f: {"enable_checkpointing": True}, None),
    "monitor": ([lambda folder: LearningRateMonitor()], lambda folder: {"logger": CSVLogger(folder)}, None),
    "rate finder": ([lambda folder: LearningRateFinder(1e-4, 1.0, 20)], nothing, None),
    "batch size finder": ([lambda folder: BatchSizeFinder(max_trials=2, steps_per_trial=2)], nothing, None),
    "peft": ([], nothing, lora),
    "compiled submodule": ([], nothing, submodule),
    "compiled module": ([], nothing, whole),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "compiled module" else ()) for name in SETTINGS],
)
def test_all_three_beside(name: str, tmp_path: Path) -> None:
    """Frozen epochs move the head alone and read 0, open ones move everything, rates are the factors', and the
    monitor changes not one bit.
    """
    module, rates, epochs, monitor = fit(tmp_path / "watched", True, *SETTINGS[name])
    unwatched, _, _, _ = fit(tmp_path / "plain", False, *SETTINGS[name])
    trainable = {key for key, value in module.named_parameters() if value.requires_grad}
    assert epochs.moved[0] == {key for key in trainable if key.startswith("head")}
    assert epochs.moved[-1] == trainable
    for key, rate in rates.history[-1].items():
        if "source_head" not in key:
            factor = next(value for layer, value in FACTORS.items() if layer in key)
            assert rate == pytest.approx(module.lr * factor), key
    steps = len(rates.history)
    frozen = [report for report in monitor.history if report.step <= steps // EPOCHS]
    assert len(frozen) >= 2
    assert {reading.value for report in frozen for reading in report.readings.values()} == {0.0}
    assert monitor.history[-1].readings["forgetting_cosine"].value > 0
    after = unwatched.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in module.state_dict().items())


class Keep(Callback):
    """Writes this rank's weights and readings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        monitor = next(item for item in trainer.callbacks if isinstance(item, ForgettingMonitor))
        readings = [reading.value for report in monitor.history for reading in report.readings.values()]
        state = {"weights": pl_module.state_dict(), "readings": readings}
        torch.save(state, self.folder / f"rank{trainer.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_all_three_on_two_processes(strategy: str, tmp_path: Path) -> None:
    options = {"strategy": strategy, "devices": 2, "default_root_dir": tmp_path, "num_sanity_val_steps": 0}
    trainer([*ours(True), Keep(tmp_path)], EPOCHS, **options).fit(Tunable())
    left, right = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    start = Tunable().state_dict()
    assert left["readings"] == right["readings"]
    assert any(left["readings"])
    for name, value in left["weights"].items():
        assert torch.equal(value, right["weights"][name]), name
        assert torch.equal(value, start[name]) == name.startswith("source_head"), name
