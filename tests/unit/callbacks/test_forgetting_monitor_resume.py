"""The monitor in checkpoints: a resumed run reads what the uninterrupted one would have read; processes agree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_transfer.errors import CheckpointError
from tests.unit.callbacks.forgetting_ddp_run import ACTIONS
from tests.unit.callbacks.forgetting_toys import (
    PROBE,
    Crash,
    dataset,
    make_module,
    monitor,
    source_head,
    train,
)

ROOT = Path(__file__).parents[3]


def interrupted(tmp_path, **options):
    folder = tmp_path / "first"
    callback = monitor(head=source_head(), **options)
    saver = ModelCheckpoint(folder, save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, callback, saver, Crash(2), enable_checkpointing=True, max_epochs=4)
    return folder / "last.ckpt"


def test_crash_and_resume_read_the_same_as_the_uninterrupted_run(tmp_path):
    ckpt = interrupted(tmp_path)
    resumed = monitor(head=source_head())
    train(
        tmp_path, resumed, ModelCheckpoint(tmp_path / "second"), enable_checkpointing=True, ckpt_path=ckpt, max_epochs=4
    )
    # The same data order as after the resume, but without a resume of the monitor: the reference is the first one.
    start, (_, module) = make_module(), train(tmp_path, ckpt_path=ckpt, max_epochs=4)
    inputs = PROBE.tensors[0]
    with torch.no_grad():
        before, after = start.eval().backbone(inputs), module.eval().backbone(inputs)
    expected = 1 - nn.functional.cosine_similarity(before.double(), after.double()).mean().item()
    assert [report.step for report in resumed.history] == [0, 3, 6, 9, 12]
    assert resumed.history[-1].readings["forgetting_cosine"].value == pytest.approx(expected, abs=1e-9)
    names = [{path.name for path in (tmp_path / item).glob("*.safetensors")} for item in ("first", "second")]
    assert names[0] == names[1]
    assert len(names[0]) == 1


def test_a_moved_run_folder_still_resumes(tmp_path):
    ckpt = interrupted(tmp_path)
    moved = tmp_path / "elsewhere"
    ckpt.parent.rename(moved)
    resumed = monitor(head=source_head())
    train(tmp_path, resumed, ckpt_path=moved / "last.ckpt", max_epochs=3)
    assert len(resumed.history) == 4


def test_state_is_plain(tmp_path):
    ckpt = interrupted(tmp_path)
    state = torch.load(ckpt, weights_only=True)["callbacks"]["ForgettingMonitor"]
    assert state["reference"] == f"forgetting_reference-{state['sha256'][:12]}.safetensors"
    assert (ckpt.parent / state["reference"]).is_file()


def test_missing_changed_or_other_reference_is_an_error(tmp_path):
    ckpt = interrupted(tmp_path)
    reference = next(ckpt.parent.glob("*.safetensors"))
    with pytest.raises(CheckpointError, match="not those that the reference"):
        train(tmp_path, monitor(dataset(20, 99), head=source_head()), ckpt_path=ckpt)
    with pytest.raises(CheckpointError, match="no probe `photos`"):
        train(tmp_path, monitor({"photos": PROBE}, head=source_head()), ckpt_path=ckpt)
    content = reference.read_bytes()
    reference.write_bytes(content[:-1] + b"\0")
    with pytest.raises(CheckpointError, match="has changed"):
        train(tmp_path, monitor(head=source_head()), ckpt_path=ckpt)
    reference.unlink()
    with pytest.raises(CheckpointError, match=f"{reference.name}.*is missing"):
        train(tmp_path, monitor(head=source_head()), ckpt_path=ckpt)


def test_a_run_that_was_not_watched_is_not_resumed(tmp_path):
    saver = ModelCheckpoint(tmp_path / "plain", save_last=True)
    train(tmp_path, saver, enable_checkpointing=True, max_epochs=1)
    with pytest.raises(CheckpointError, match=r"last\.ckpt holds no state of ForgettingMonitor"):
        train(tmp_path, monitor(), ckpt_path=tmp_path / "plain" / "last.ckpt")


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_rollback_after_resume(tmp_path):
    options = {"tolerance": {"cosine": 0.0}, "confirm": 3, "on_alarm": "rollback"}
    ckpt = interrupted(tmp_path, **options)
    start = make_module()
    resumed = monitor(head=source_head(), **options)
    # Two strikes were saved, the third is the alarm; the good weights are those from before training.
    _, module = train(tmp_path, resumed, ckpt_path=ckpt, max_epochs=3)
    assert [bool(report.alarms) for report in resumed.history[:4]] == [False, False, False, True]
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in start.state_dict().items())
    next(ckpt.parent.glob("forgetting_last_good*")).unlink()
    with pytest.raises(CheckpointError, match=r"last good weights, `forgetting_last_good.*are missing"):
        train(tmp_path, monitor(head=source_head(), **options), ckpt_path=ckpt, max_epochs=3)


# ---- two processes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank ended with, for each action; in the spawned run the callback travels by pickle."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for start, names in (("spawn", ["interpolate"]), ("fork", [name for name in ACTIONS if name != "interpolate"])):
        command = [sys.executable, "-m", "tests.unit.callbacks.forgetting_ddp_run", str(folder), start, *names]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return {
        name: (folder / name, [torch.load(folder / name / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)])
        for name in ACTIONS
    }


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_two_processes_agree_and_do_not_hang(ranks, action):
    folder, (first, second) = ranks[action]
    assert first["history"] == second["history"]
    assert first["interpolation"] == second["interpolation"]
    assert set(first["history"][0].values()) == {0.0}
    assert len(first["history"][0]) == 6
    for name, value in first["state"].items():
        # DDP leaves each rank its own BatchNorm statistics; rank 0's are saved.
        if action == "interpolate" or "running" not in name:
            assert torch.equal(value, second["state"][name]), name
    assert len(list((folder / "saved").glob("forgetting_reference*"))) == 1


@pytest.mark.slow
def test_two_processes_act_alike(ranks):
    lengths = {name: len(found[0]["history"]) for name, (_, found) in ranks.items()}
    # Stopped after the first epoch; rolled back twice, with one more check of the weights that were put back.
    assert lengths == {"log": 5, "stop": 2, "rollback": 4, "refreeze": 5, "interpolate": 6}
    folder, (first, _) = ranks["interpolate"]
    alpha = first["interpolation"]["alpha"]
    assert 0 < alpha < 1
    saved = torch.load(folder / "saved" / f"interpolated-alpha={alpha:.2f}.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in first["state"].items())
    _, (first, _) = ranks["rollback"]
    assert set(first["history"][-1].values()) == {0.0}
