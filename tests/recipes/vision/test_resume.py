"""A recipe's fit that is interrupted and resumed ends as the uninterrupted one, bit for bit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from benchmarks.kill_and_resume import CONFIG, compare, measure
from lightning_transfer.cli.run_checkpoint import RunCheckpoint

Run = Callable[..., tuple[int, str]]


def _folder(printed: str) -> Path:
    return Path(printed.rsplit("Run folder: ", 1)[1].splitlines()[0])


def test_a_fit_goes_on_from_within_an_epoch(
    drawn: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is random or has a state is in this config; each checkpoint on the way is kept and resumed from."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(data=drawn, runs=tmp_path / "runs", epochs=2))
    write = RunCheckpoint._write_last

    def keep(self: RunCheckpoint, trainer: Trainer) -> None:
        write(self, trainer)
        last = Path(self.last_model_path)
        shutil.copyfile(last, last.with_name(f"step={trainer.global_step}.ckpt"))

    words = ["--model.backbone=timm/test_resnet", "--model.weights=random", "--checkpoint.every_n_train_steps=5"]
    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "_write_last", keep)
        code, printed = run("fit", "--config", str(config), *words)
    assert code == 0, printed
    whole = _folder(printed)
    end = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    epoch = end["global_step"] // 2
    steps = sorted(int(path.stem.split("=")[1]) for path in (whole / "checkpoints").glob("step=*.ckpt"))
    assert steps == sorted({*range(5, 2 * epoch, 5), epoch, 2 * epoch})
    for step in (5, epoch, steps[-2]):
        path = whole / "checkpoints" / f"step={step}.ckpt"
        code, printed = run("fit", "--config", str(whole / "config.yaml"), "--ckpt_path", str(path))
        assert code == 0, printed
        resumed = _folder(printed)
        assert resumed != whole
        again = torch.load(resumed / "checkpoints" / "last.ckpt", weights_only=True)
        assert compare(end, again) == (0.0, "equal"), step
        models = [torch.load(folder / "model.ckpt", weights_only=True) for folder in (whole, resumed)]
        assert models[0]["epoch"] == models[1]["epoch"]
        assert all(map(torch.equal, models[0]["state_dict"].values(), models[1]["state_dict"].values()))
        assert models[0]["lightning_transfer"]["calibration"] == models[1]["lightning_transfer"]["calibration"]


@pytest.mark.slow
def test_a_killed_fit_goes_on_from_its_last_whole_checkpoint(tmp_path: Path) -> None:
    """The first run is killed twice, once while it writes a checkpoint."""
    rows = list(measure(tmp_path, runs=1, kills=2, writing=1, seed=1))
    assert len(rows) == 2
    assert sum(row.moment.startswith("while writing") for row in rows) == 1
    assert all(row.difference == 0 and row.states == "equal" for row in rows), rows
