"""The monitor in checkpoints: a resumed run reads what the uninterrupted one would have read; processes agree."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lightning_transfer.callbacks.forgetting_monitor import ForgettingMonitor
from lightning_transfer.errors import CheckpointError
from tests.unit.callbacks.forgetting_toys import (
    PROBE,
    Crash,
    Network,
    dataset,
    make_module,
    monitor,
    source_head,
    train,
)


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


@pytest.mark.slow
def test_two_processes_agree_and_do_not_hang(tmp_path):
    callback = Collect(
        {"photos": PROBE, "own": "target"},
        head=source_head(),
        backbone="backbone",
        max_overhead=None,
        tolerance={"cosine": 0.0},
        confirm=2,
        on_alarm="stop",
    )
    callback.folder = str(tmp_path)
    trainer, module = make_ddp_trainer(tmp_path, callback)
    trainer.fit(module, DataLoader(dataset(48), batch_size=8), DataLoader(dataset(12, 5), batch_size=6))
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert found[0] == found[1]
    assert found[0][0]["step"] == 0
    assert {row["value"] for row in found[0][0]["readings"].values()} == {0.0}
    assert found[0][-1]["step"] == 6  # stopped on both ranks after the second check
    assert len(list(Path(tmp_path, "saved").glob("forgetting_reference*"))) == 1


class Collect(ForgettingMonitor):
    folder = ""

    def on_train_end(self, trainer, pl_module):
        super().on_train_end(trainer, pl_module)
        history = [{**report.to_dict(), "seconds": 0.0, "scores": {}} for report in self.history]
        torch.save(history, Path(self.folder, f"rank{trainer.global_rank}.pt"))


class DdpModule(lightning.pytorch.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.head = Network(), nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def make_ddp_trainer(tmp_path, callback):
    trainer = lightning.pytorch.Trainer(
        max_epochs=4,
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        logger=False,
        callbacks=[callback, ModelCheckpoint(tmp_path / "saved")],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
    )
    return trainer, DdpModule()
