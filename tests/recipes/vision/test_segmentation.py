"""The vision recipe draws masks: fit, test, predict and report as a user runs them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

import lightning_transfer
from benchmarks.kill_and_resume import compare
from lightning_transfer.cli import main
from lightning_transfer.cli.run_checkpoint import RunCheckpoint
from lightning_transfer.data import read_label_map
from recipes.vision.cli import RECIPE
from tests.recipes.verbs import Run, run_folder
from tests.recipes.vision.masks import FIT, write_plates


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plates(tmp_path_factory.mktemp("plates"))


@pytest.fixture(scope="module")
def fitted(plates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was tested."""
    place = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(RECIPE, [*FIT, f"--data.root={plates}", "--trainer.max_epochs=6"]) == 0
        (found,) = (place / "runs" / "vision").iterdir()
        assert main(RECIPE, ["test", str(found)]) == 0
    return found


@pytest.fixture
def finished(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "copied" / fitted.name))


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_fit_learns_masks_and_keeps_the_best(fitted: Path) -> None:
    checkpoint = torch.load(fitted / "model.ckpt", weights_only=True)
    payload = checkpoint["lightning_transfer"]
    assert payload["module"] == "SegmentationModule"
    assert payload["schema"]["task"] == "segmentation"
    assert payload["schema"]["classes"] == ["good", "defect"]
    assert "optimizer_states" not in checkpoint
    assert json.loads((fitted / "metrics.json").read_text())["val_dice"]["value"] > 0.3
    plan = json.loads((fitted / "plan.json").read_text())
    assert plan["groups"][-1]["name"] == "head"


def test_a_test_judges_at_the_pictures_own_size(fitted: Path) -> None:
    metrics = json.loads((fitted / "test" / "metrics.json").read_text())
    assert metrics["dice"]["value"] > metrics["dice_of_majority"]["value"] == 0
    assert {"hd95", "pixel_auroc", "pro", "dice_on_pit", "pro_on_stain", "dice_minus_plain"} <= set(metrics)
    rows = _table(fitted / "test" / "predictions.csv")
    assert len(rows) == metrics["dice"]["n"]
    for row in rows:
        assert read_label_map(fitted / "test" / row["mask"]).shape == (40, 32)
    both = mass = 0
    for row in rows:
        truth = Path(row["path"].replace("images", "masks"))
        drawn, shown = read_label_map(fitted / "test" / row["mask"]) > 0, read_label_map(truth) > 0
        both, mass = both + (drawn & shown).sum(), mass + drawn.sum() + shown.sum()
    assert metrics["dice"]["value"] == pytest.approx(2 * both / mass)


def test_the_report_shows_the_worst_masks(finished: Path, run: Run, plates: Path) -> None:
    code, printed = run("report", str(finished), "--data_root", str(plates))
    assert code == 0, printed
    report = json.loads((finished / "report.json").read_text())
    assert not report["problems"]
    assert not any(section["problem"] for section in report["sections"].values())
    assert list(report["sections"])[3:7] == ["scores", "kinds", "slices", "masks"]
    assert "what was drawn in orange" in (finished / "report.html").read_text()
    assert "Draw where defect is in images" in (finished / "model_card.md").read_text()


def test_a_prediction_has_a_mask_and_a_row_for_each_input(
    finished: Path, run: Run, tmp_path: Path, plates: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for name in ("images/001.png", "images/002.png"):
        shutil.copy(plates / name, new)
    (new / "broken.png").write_bytes(b"no picture")
    code, printed = run("predict", str(finished), f"--data.root={new}", "--data.on_bad_file=skip")
    assert code == 0, printed
    assert "2 pictures" in printed
    assert "1 unreadable" in printed
    folder = run_folder(printed) / "predict"
    rows = {row["id"]: row for row in _table(folder / "predictions.csv")}
    assert set(rows) == {"001.png", "002.png", "broken.png"}
    assert rows["broken.png"]["reason"]
    assert not rows["broken.png"]["mask"]
    predictor = lightning_transfer.load(finished)
    for name in ("001.png", "002.png"):
        [own] = predictor.predict([new / name])
        assert np.array_equal(read_label_map(folder / rows[name]["mask"]), own.labels)


def test_a_resumed_fit_is_the_uninterrupted_one(plates: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffling, flips of pictures and masks, dropout of the decoder and a freezing schedule, resumed mid-epoch."""
    write = RunCheckpoint._write_last

    def keep(self: RunCheckpoint, trainer: Trainer) -> None:
        write(self, trainer)
        last = Path(self.last_model_path)
        shutil.copyfile(last, last.with_name(f"step={trainer.global_step}.ckpt"))

    schedule = {"class_path": "lightning_transfer.BackboneFreezeUnfreeze", "init_args": {"schedule": {0: 0, 1: 2}}}
    rates = {"class_path": "lightning_transfer.DiscriminativeLR", "init_args": {"total_ratio": 0.1}}
    words = [
        f"--trainer.callbacks={json.dumps([schedule, rates])}",
        "--model.head_dropout=0.2",
        "--trainer.max_epochs=2",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "_write_last", keep)
        code, printed = run(*FIT, f"--data.root={plates}", *words, "--checkpoint.every_n_train_steps=2")
    assert code == 0, printed
    whole = run_folder(printed)
    end = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    inside = whole / "checkpoints" / "step=2.ckpt"
    assert end["global_step"] > 4
    code, printed = run("fit", "--config", str(whole / "config.yaml"), "--ckpt_path", str(inside))
    assert code == 0, printed
    again = torch.load(run_folder(printed) / "checkpoints" / "last.ckpt", weights_only=True)
    assert compare(end, again) == (0.0, "equal")


def test_check_data_and_plan_know_masks(plates: Path, run: Run) -> None:
    words = [*FIT[1:], f"--data.root={plates}"]
    code, printed = run("check-data", *words)
    assert code == 0, printed
    code, printed = run("plan", *words)
    assert code == 0, printed
    assert "head" in printed
    assert "good" in printed


def test_what_does_not_fit_is_said(plates: Path, run: Run, fitted: Path) -> None:
    code, printed = run(*FIT, f"--data.root={plates}", "--data.tile_size=16")
    assert code == 2
    assert "masks are drawn on whole images" in printed
    code, printed = run(*FIT, f"--data.root={plates}", "--evaluation.nearest_examples=5")
    assert code == 2
    assert "nearest_examples" in printed
    code, printed = run("export", str(fitted))
    assert code == 2
    assert "masks" in printed
