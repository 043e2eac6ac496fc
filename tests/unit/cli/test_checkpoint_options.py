from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    assert yaml.safe_load((run / "config.yaml").read_text())["checkpoint"] == {"every_n_train_steps": 2}


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
