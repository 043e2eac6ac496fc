import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_transfer.cli.run_folder import RUN_DIR_VARIABLE

Toy = Callable[..., Any]
HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def test_a_fit_leaves_a_whole_run(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    expected = {
        "config.yaml",
        "environment.json",
        "data.json",
        "plan.json",
        "model.ckpt",
        "checkpoints",
        "logs",
        "check.json",
    }
    assert names == expected | {"metrics.json"}
    assert RUN_DIR_VARIABLE not in os.environ


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_each_verb_ends_with_the_run_folder(toy: Toy, finished: Path, verb: str) -> None:
    done = toy(verb, finished)
    assert done.code == 0, done.err
    assert done.out.endswith(f"Run folder: {finished}\n")
    assert (finished / verb / "environment.json").is_file()


def test_a_bare_checkpoint_gets_a_run_folder_of_its_own(toy: Toy, finished: Path, tmp_path: Path) -> None:
    moved = (finished / "model.ckpt").rename(tmp_path / "moved.ckpt")
    done = toy("test", moved)
    assert done.code == 0, done.err
    assert done.run.name.startswith("moved-")
    assert (done.run / "test" / "predictions.csv").is_file()


def test_a_fit_that_breaks_leaves_no_model_and_no_part(toy: Toy, small: str) -> None:
    done = toy("fit", "--config", small, "--model.fail_at_epoch", 1)
    assert done.code == 1
    assert "the toy broke" in done.err
    assert not (done.run / "model.ckpt").exists()
    assert not [path for path in done.run.rglob("*") if "part" in path.name]
    torch.load(done.run / "checkpoints" / "last.ckpt", weights_only=True)


def test_ctrl_c_says_how_to_go_on(toy: Toy, small: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        done = toy("fit", "--config", small, "--model.interrupt_at_epoch", 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert not (done.run / "model.ckpt").exists()
    assert f"--ckpt_path {done.run}/checkpoints/last.ckpt" in done.out
    assert toy("fit", "--ckpt_path", done.run, "--model.interrupt_at_epoch", "null").code == 0


def test_a_resumed_fit_ends_where_the_whole_one_does(toy: Toy, small: str, finished: Path) -> None:
    whole = toy("fit", "--config", small, "--trainer.max_epochs", 4).run
    resumed = toy("fit", "--ckpt_path", finished, "--trainer.max_epochs", 4).run
    first, second = (torch.load(run / "model.ckpt", weights_only=True) for run in (whole, resumed))
    assert all(torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"])


def test_rates_on_the_command_line_of_a_resumed_fit_are_not_ignored_in_silence(toy: Toy, finished: Path) -> None:
    with pytest.warns(UserWarning, match=r"`--model\.optimizer\.lr=9` changes a resumed fit only"):
        toy("fit", "--ckpt_path", finished, "--model.optimizer.lr=9", "--trainer.max_epochs", 3)


def test_data_that_cannot_be_used_are_a_message(toy: Toy, small: str) -> None:
    done = toy("fit", "--config", small, "--data.num_records", 0)
    assert done.code == 2
    assert "`train` is empty" in done.err


@pytest.mark.slow
def test_two_processes_share_one_run_folder(tmp_path: Path, small: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(ROOT))), "OMP_NUM_THREADS": "1"}
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run(
        [sys.executable, "-m", "toy_recipe", "fit", "--config", small, *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "runs" / "toy").iterdir()
    assert (run / "model.ckpt").is_file()
    assert "2 processes" in (run / "environment.json").read_text()
    assert done.stdout.count("Run folder: ") == 1
