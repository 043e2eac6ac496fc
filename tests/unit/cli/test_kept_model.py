"""Tests of what a fit keeps, through the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_transfer.cli.kept_model import _interpolated_checkpoint

Toy = Callable[..., Any]


def test_the_worse_last_epoch_is_not_the_model(toy: Toy, small: str) -> None:
    # With a rate that explodes after the first epochs the last weights are not the best ones.
    run = toy("fit", "--config", small, "--model.optimizer", "SGD", "--model.optimizer.lr", 60.0).run
    [best] = (run / "checkpoints").glob("best-*")
    model, best_state = (torch.load(path, weights_only=True) for path in (run / "model.ckpt", best))
    assert model["epoch"] == best_state["epoch"]


def test_interpolated_weights_become_the_model_and_its_score_is_theirs(
    toy: Toy, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "watch.yaml"
    config.write_text(
        """
        trainer:
          max_epochs: 4
          callbacks:
          - class_path: lightning_transfer.ForgettingMonitor
            init_args:
              probe: {class_path: toy_recipe.data.ToyProbe}
              metrics: [cosine]
              tolerance: {cosine: 0.2}
              max_overhead: null
              on_alarm: interpolate
              monitor: val_loss
        """
    )
    done = toy("fit", "--config", small, "--config", config, "--model.optimizer.init_args.lr", 0.3)
    assert done.code == 0, done.err
    [path] = (done.run / "checkpoints").glob("interpolated-alpha=*.ckpt")
    assert 0 < float(path.stem.partition("=")[2]) < 1
    model, mixed = (torch.load(item, weights_only=True) for item in (done.run / "model.ckpt", path))
    assert model["state_dict"].keys() == mixed["state_dict"].keys()
    assert all(torch.equal(value, model["state_dict"][name]) for name, value in mixed["state_dict"].items())
    assert f"{path}\nBest val_loss: " in done.out
    score = json.loads((done.run / "metrics.json").read_text())["val_loss"]["value"]
    assert f"Best val_loss: {score:.4f}" in done.out
    toy("validate", done.run)
    again = json.loads((done.run / "validate" / "metrics.json").read_text())["val_loss"]["value"]
    assert again == pytest.approx(score, rel=1e-5)


def test_interpolated_weights_are_found_where_another_process_wrote_them(tmp_path: Path) -> None:
    def found(**callback: Any) -> Path | None:
        trainer = SimpleNamespace(callbacks=[object(), SimpleNamespace(**callback)])
        return _interpolated_checkpoint(SimpleNamespace(trainer=trainer, output=tmp_path))

    assert found(interpolated_path="") is None
    assert found(interpolated_path="elsewhere/interpolated-alpha=0.30.ckpt") == Path(
        "elsewhere/interpolated-alpha=0.30.ckpt"
    )
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best-epoch=1.ckpt").touch()
    assert found(interpolated_path="") is None
    (tmp_path / "checkpoints" / "interpolated-alpha=0.60.ckpt").touch()
    assert found(interpolated_path="") == tmp_path / "checkpoints" / "interpolated-alpha=0.60.ckpt"


def test_validate_gives_the_score_of_the_fit_again(toy: Toy, finished: Path) -> None:
    toy("validate", finished)
    again = json.loads((finished / "validate" / "metrics.json").read_text())
    before = json.loads((finished / "metrics.json").read_text())
    assert again["val_loss"]["value"] == pytest.approx(before["val_loss"]["value"], rel=1e-5)


@pytest.mark.parametrize("options", [["--trainer.fast_dev_run", "true"]])
def test_a_dry_run_writes_no_model(toy: Toy, small: str, options: list[str]) -> None:
    done = toy("fit", "--config", small, *options)
    assert done.code == 0
    assert not (done.run / "model.ckpt").exists()


def test_without_checkpoints_the_weights_as_they_are_become_the_model(toy: Toy, small: str) -> None:
    done = toy("fit", "--config", small, "--trainer.enable_checkpointing", "false")
    assert done.code == 0, done.err
    assert (done.run / "model.ckpt").is_file()
    assert toy("test", done.run).code == 0
