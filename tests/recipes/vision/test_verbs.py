"""The whole path on small data: fit, test, predict, plan, and a checkpoint that travels alone."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import lightning_transfer
from recipes.vision.surfaces import write_surfaces
from tests.recipes.verbs import run_folder
from tests.recipes.vision.conftest import small_fit

Run = Callable[..., tuple[int, str]]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_fit_leaves_a_whole_run_folder(fitted: Path) -> None:
    for name in ("config.yaml", "environment.json", "data.json", "model.ckpt", "checkpoints/last.ckpt"):
        assert (fitted / name).is_file(), name
    assert not list(fitted.rglob("*.part"))
    data = json.loads((fitted / "data.json").read_text())
    assert data["classes"][0] == "good"
    checkpoint = torch.load(fitted / "model.ckpt", weights_only=True)["lightning_transfer"]
    assert checkpoint["calibration"]["n"] > 0
    assert checkpoint["calibration"]["threshold"] is not None
    assert checkpoint["schema"]["preprocessing"]["kind"] == "image"


def test_test_reports_intervals_and_baselines(fitted: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(fitted, tmp_path / "run"))
    code, printed = run("test", str(folder))
    assert code == 0, printed
    assert run_folder(printed) == folder
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    for name in ("macro_f1", "auroc", "average_precision"):
        entry = next(value for key, value in metrics.items() if key.split("_", 1)[-1] == name or key == name)
        assert entry["low"] <= entry["value"] <= entry["high"], (name, entry)
    assert any("majority" in key for key in metrics)
    rows = _rows(folder / "test" / "predictions.csv")
    assert len(rows) == sum(json.loads((folder / "data.json").read_text())["counts"]["test"].values())
    assert {row["decision"] for row in rows} <= {row["label"] for row in rows} | {
        "good",
        "crack",
        "pit",
        "scratch",
        "stain",
    }


def test_a_second_test_does_not_overwrite_the_first(fitted: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(fitted, tmp_path / "run"))
    assert run("test", str(folder))[0] == 0
    first = (folder / "test" / "metrics.json").read_bytes()
    assert run("test", str(folder))[0] == 0
    assert (folder / "test" / "metrics.json").read_bytes() == first
    assert (folder / "test-2" / "metrics.json").is_file()


def test_a_moved_checkpoint_loads_and_predicts_the_same(tmp_path: Path, drawn: Path, run: Run) -> None:
    """Weights from a file that is gone afterwards: the checkpoint alone is enough."""
    from lightning_transfer import load_backbone

    torch.manual_seed(0)
    backbone, _ = load_backbone("timm/test_resnet", weights="random")
    weights = tmp_path / "weights.pth"
    torch.save(backbone.state_dict(), weights)
    code, printed = run(*small_fit(drawn, weights=str(weights)))
    assert code == 0, printed
    folder = run_folder(printed)
    code, printed = run("predict", str(folder))
    assert code == 0, printed
    before = _rows(folder / "predict" / "predictions.csv")
    weights.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(folder / "model.ckpt", elsewhere / "moved.ckpt")
    shutil.rmtree(tmp_path / "runs")
    code, printed = run("predict", str(elsewhere / "moved.ckpt"))
    assert code == 0, printed
    after = _rows(run_folder(printed) / "predict" / "predictions.csv")
    assert after == before
    predictor = lightning_transfer.load(elsewhere / "moved.ckpt")
    for row, prediction in zip(before[:5], predictor.predict([drawn / row["id"] for row in before[:5]]), strict=True):
        assert prediction.decision == row["decision"]
        assert prediction.score == pytest.approx(float(row["score"]), abs=1e-5)


def test_predict_reads_a_folder_without_labels_and_loses_no_row(fitted: Path, tmp_path: Path, run: Run) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for index, mode in enumerate(["L", "RGB", "RGBA"]):
        Image.new(mode, (40, 25 + index)).save(new / f"{index}.png")
    (new / "3.png").write_bytes(b"no image")
    code, printed = run("predict", str(fitted), f"--data.root={new}", "--data.on_bad_file=skip")
    assert code == 0, printed
    rows = _rows(sorted(fitted.glob("predict*"))[-1] / "predictions.csv")
    assert [row["id"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    assert rows[3]["decision"] == "unreadable"
    assert rows[3]["reason"]


def test_plan_says_everything_before_training(drawn: Path, run: Run) -> None:
    words = small_fit(drawn)
    words[0] = "plan"
    code, printed = run(
        *words,
        "--trainer.callbacks+=lightning_transfer.BackboneFreezeUnfreeze",
        "--trainer.callbacks.schedule=gradual",
        "--trainer.callbacks+=lightning_transfer.DiscriminativeLR",
    )
    assert code == 0, printed
    for word in ("stem", "head", "licence", "MB"):
        assert word.lower() in printed.lower(), word
    assert not list(Path.cwd().rglob("*.ckpt"))


def test_the_same_seed_gives_the_same_model(tmp_path: Path, drawn: Path, run: Run, fitted: Path) -> None:
    code, printed = run(*small_fit(drawn))
    assert code == 0, printed
    first = torch.load(fitted / "model.ckpt", weights_only=True)["state_dict"]
    second = torch.load(run_folder(printed) / "model.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_beats_its_baselines_and_says_what_it_cost(tmp_path: Path, run: Run) -> None:
    config = Path(__file__).parents[3] / "recipes" / "vision" / "configs" / "demo.yaml"
    code, printed = run("fit", "--config", str(config), "--trainer.enable_progress_bar=false")
    assert code == 0, printed
    folder = run_folder(printed)
    fitted = json.loads((folder / "metrics.json").read_text())
    before, after, chance = (fitted[f"source_accuracy_{part}"]["value"] for part in ("before", "after", "chance"))
    assert before >= 5 * chance
    assert 0 <= after <= 1, "the kept epoch was not measured"
    code, printed = run("test", str(folder))
    assert code == 0, printed
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    assert metrics["macro_f1"]["low"] > metrics["macro_f1_of_majority"]["value"]
    assert metrics["auroc_minus_scratch"]["low"] > 0
    for row in ("majority class", "from scratch", "linear probe, frozen backbone", "this model"):
        assert f"\n{row} " in printed
    assert "until validation stalled" in printed, "from scratch, training ended before its plateau"
    assert f"chance {chance:.3f}" in printed
    values = yaml.safe_load(config.read_text())["data"]["surfaces"]
    assert write_surfaces(tmp_path / "runs/data/surfaces", **values).is_dir(), "another set than the config asks for"
