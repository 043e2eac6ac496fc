import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

from lightning_transfer.cli.run_checkpoint import RunCheckpoint

Toy = Callable[..., Any]


def _state(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    best = folder / "best-epoch=3.ckpt"
    best.write_bytes(b"best")
    return {
        "monitor": "val_loss",
        "best_model_score": torch.tensor(0.25),
        "best_model_path": str(best),
        "current_score": torch.tensor(0.5),
        "dirpath": str(folder),
        "best_k_models": {str(best): torch.tensor(0.25)},
        "kth_best_model_path": str(best),
        "kth_value": torch.tensor(0.25),
        "last_model_path": str(folder / "last.ckpt"),
    }


def test_the_best_of_the_run_before_comes_along(tmp_path: Path) -> None:
    state = _state(tmp_path / "old")
    callback = RunCheckpoint(tmp_path / "new", "val_loss")
    callback.load_state_dict(state)
    copied = tmp_path / "new" / "best-epoch=3.ckpt"
    assert copied.read_bytes() == b"best"
    assert (tmp_path / "old" / "best-epoch=3.ckpt").read_bytes() == b"best"
    assert callback.best_model_path == str(copied)
    assert callback.best_k_models == {str(copied): torch.tensor(0.25)}
    assert callback.best_model_score == 0.25


def test_a_run_before_that_is_gone_is_no_error(tmp_path: Path) -> None:
    state = _state(tmp_path / "old")
    shutil.rmtree(tmp_path / "old")
    callback = RunCheckpoint(tmp_path / "new", "val_loss")
    callback.load_state_dict(state)
    assert callback.best_model_path == ""
    assert callback.best_k_models == {}


def test_a_worse_epoch_after_a_resume_does_not_become_the_model(toy: Toy, small: str, finished: Path) -> None:
    broken = ["--trainer.max_epochs", 4, "--trainer.gradient_clip_val", 0, "--data.batch_size", 16]
    good = torch.load(finished / "model.ckpt", weights_only=True)
    # Higher is "better" now: each later epoch, with its smaller loss, is worse than what the run before had.
    from toy_recipe.module import ToyModule

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyModule, "monitor_mode", "max")
        first = toy("fit", "--config", small).run
        resumed = toy("fit", "--ckpt_path", first, *broken).run
    before, after = (torch.load(run / "model.ckpt", weights_only=True) for run in (first, resumed))
    assert before["epoch"] == after["epoch"] == 0
    assert good["epoch"] == 1


class Monitored(BoringModel):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.step(batch))


class Written(RunCheckpoint):
    """Remembers after which batch of which epoch `last.ckpt` was written."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.moments: list[tuple[int, int]] = []

    def _write_last(self, trainer: Trainer) -> None:
        super()._write_last(trainer)
        if not trainer.sanity_checking:
            self.moments.append((trainer.current_epoch, trainer.fit_loop.batch_idx + 1))


def _moments(folder: Path, every: int | None, epochs: int = 2, **options: Any) -> list[tuple[int, int]]:
    """Fit eight batches an epoch."""
    callback = Written(folder / "checkpoints", "val_loss", every_n_steps=every)
    fit = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    points = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    fit.fit(Monitored(), DataLoader(points, batch_size=4), DataLoader(points, batch_size=8))
    return callback.moments


@pytest.mark.parametrize(
    ("every", "options", "expected"),
    [
        (None, {}, [8]),
        (3, {}, [3, 6, 8]),
        # Not after batch 8 itself: the end of the epoch would be skipped by a fit that resumes there.
        (4, {}, [4, 8]),
        (None, {"val_check_interval": 3}, [3, 6, 8]),
        (2, {"val_check_interval": 3}, [2, 3, 4, 6, 8]),
        (2, {"check_val_every_n_epoch": 2}, [2, 4, 6, 8]),
        # Four steps of two batches.
        (1, {"accumulate_grad_batches": 2}, [2, 4, 6, 8]),
        (1, {"limit_train_batches": 3, "limit_val_batches": 0}, [1, 2, 3]),
    ],
)
def test_when_the_last_checkpoint_is_written(
    every: int | None, options: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    found = _moments(tmp_path, every, epochs=1, **options)
    assert [batch for _, batch in found] == expected


def test_steps_count_over_epochs_and_validation_over_epochs_too(tmp_path: Path) -> None:
    found = _moments(tmp_path, 5, check_val_every_n_epoch=None, val_check_interval=5, limit_train_batches=8)
    # Steps 5, 10 and 15 are followed by validation, which writes it itself.
    assert found == [(0, 5), (0, 8), (1, 2), (1, 7), (1, 8)]


def test_the_last_checkpoint_is_the_last_even_when_no_epoch_is_better(toy: Toy, small: str) -> None:
    run = toy("fit", "--config", small, "--trainer.max_epochs", 3, "--model.optimizer.lr", 0.0).run
    names = ("last.ckpt", "best-epoch=0.ckpt")
    last, best = (torch.load(run / "checkpoints" / name, weights_only=True) for name in names)
    assert (best["epoch"], last["epoch"]) == (0, 2)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best-epoch=0.ckpt", "last.ckpt"]


def test_a_trial_run_writes_no_checkpoint(tmp_path: Path) -> None:
    _moments(tmp_path, 1, fast_dev_run=3)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_steps_must_be_positive(toy: Toy, small: str, tmp_path: Path) -> None:
    done = toy("fit", "--config", small, "--checkpoint.every_n_train_steps", 0)
    assert done.code == 2
    assert "`checkpoint.every_n_train_steps` of at least 1, got 0" in done.err
