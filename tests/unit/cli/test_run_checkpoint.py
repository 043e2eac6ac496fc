import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

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
