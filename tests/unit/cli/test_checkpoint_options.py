import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_transfer.cli.checkpoint_options import CheckpointOptions

Toy = Callable[..., Any]


def test_by_default_nothing_is_saved_within_an_epoch() -> None:
    assert CheckpointOptions().every_n_train_steps is None


def test_the_option_saves_within_the_epoch_and_stands_in_the_run_s_config(
    toy: Toy, small: str, monkeypatch: Any
) -> None:
    from lightning_transfer.cli.run_checkpoint import RunCheckpoint

    steps: list[int] = []
    write = RunCheckpoint._write_last
    monkeypatch.setattr(
        RunCheckpoint, "_write_last", lambda self, trainer: (steps.append(trainer.global_step), write(self, trainer))
    )
    run: Path = toy("fit", "--config", small, "--checkpoint.every_n_train_steps", 2, "--trainer.max_epochs", 1).run
    length = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert steps == [*range(2, length, 2), length]
    assert yaml.safe_load((run / "config.yaml").read_text())["checkpoint"] == {
        "every_n_train_steps": 2,
        "max_degradation": None,
    }


def test_beside_a_checkpoint_of_the_user_s_own_the_option_is_refused(toy: Toy, small: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: lightning.pytorch.callbacks.ModelCheckpoint\n"
    )
    words = ["fit", "--config", small, "--config", "own.yaml", "--checkpoint.every_n_train_steps", 2]
    done = toy(*words)
    assert done.code == 2
    assert "`checkpoint.every_n_train_steps: 2`" in done.err
    assert "`ModelCheckpoint`" in done.err
    assert not (tmp_path / "runs").exists()


BUDGET = """
trainer:
  callbacks:
    - class_path: lightning_transfer.ForgettingMonitor
      init_args: {probe: general, metrics: [cosine], backbone: backbone, max_overhead: null}
"""


def _budgeted(monkeypatch: Any, tmp_path: Path) -> None:
    """Let the toy log an error under the name of what its monitor reads, and its data have a general set."""
    from toy_recipe.data import ToyData
    from toy_recipe.module import ToyModule

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        loss = torch.nn.functional.cross_entropy(self(batch.input), batch.target)
        self.log("val_cosine", loss, batch_size=len(batch.index))

    monkeypatch.setattr(ToyModule, "monitor", "val_cosine")
    monkeypatch.setattr(ToyModule, "validation_step", validation_step)
    monkeypatch.setattr(ToyData, "general_dataloader", ToyData.val_dataloader, raising=False)
    (tmp_path / "budget.yaml").write_text(BUDGET)


def test_one_line_lets_a_budget_choose_the_epoch(toy: Toy, small: str, tmp_path: Path, monkeypatch: Any) -> None:
    _budgeted(monkeypatch, tmp_path)
    words = ["fit", "--config", small, "--config", "budget.yaml", "--trainer.max_epochs", 5]
    free = toy(*words)
    assert (free.run / "checkpoints" / "best-epoch=4.ckpt").is_file()
    story = json.loads((free.run / "forgetting.json").read_text())
    assert story["retention"] is None
    losses = [point["forgetting"]["forgetting_cosine"] for point in story["monitors"][0]["curve"][1:]]
    limit = (losses[1] + losses[2]) / 2
    assert losses == sorted(losses)

    done = toy(*words, "--checkpoint.max_degradation", limit)
    found = json.loads((done.run / "forgetting.json").read_text())["retention"]
    assert [row["within"] for row in found["rows"]] == [True, True, False, False, False]
    best = found["best"]["epoch"]
    assert best in (0, 1)
    assert [path.name for path in (done.run / "checkpoints").glob("best-*")] == [f"best-epoch={best}.ckpt"]
    assert torch.load(done.run / "model.ckpt", weights_only=True)["epoch"] == best
    kept = json.loads((done.run / "metrics.json").read_text())
    assert kept["val_cosine"]["value"] == found["rows"][best]["new"]
    # Lightning logs single precision.
    assert kept["val_retention_score"]["value"] == pytest.approx(found["rows"][best]["score"], rel=1e-6)
    assert f"Best val_retention_score: {found['rows'][best]['score']:.4f}" in done.out
    assert yaml.safe_load((done.run / "config.yaml").read_text())["checkpoint"]["max_degradation"] == limit
    # The saved config is a config, and a resumed run goes on with the budget.
    again = toy("fit", "--config", done.run / "config.yaml", "--ckpt_path", done.run, "--trainer.max_epochs", 6)
    assert again.code == 0, again.err
    rows = json.loads((again.run / "forgetting.json").read_text())["retention"]["rows"]
    assert rows[:5] == found["rows"]
    assert len(rows) == 6


def test_a_budget_needs_an_error_that_falls_and_a_monitor(
    toy: Toy, small: str, tmp_path: Path, monkeypatch: Any
) -> None:
    from toy_recipe.module import ToyModule

    done = toy("fit", "--config", small, "--checkpoint.max_degradation", 0.1)
    assert done.code != 0
    assert "add `ForgettingMonitor" in done.err
    (tmp_path / "own.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: lightning.pytorch.callbacks.ModelCheckpoint\n"
    )
    done = toy("fit", "--config", small, "--config", "own.yaml", "--checkpoint.max_degradation", 0.1)
    assert "`checkpoint.max_degradation: 0.1` belongs to the default checkpoint" in done.err
    assert "RetentionBudget" in done.err
    monkeypatch.setattr(ToyModule, "monitor_mode", "max")
    done = toy("fit", "--config", small, "--checkpoint.max_degradation", 0.1)
    assert "here it is `val_loss` (max)" in done.err
