"""The same verbs for a model that learns from good parts alone: fit, test, predict, plan, a checkpoint on its own."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import lightning_transfer
from lightning_transfer.cli import main
from recipes.vision.cli import RECIPE
from tests.recipes.verbs import run_folder

Run = Callable[..., tuple[int, str]]

WORDS = ["--model.head=normal_only", "--model.backbone=timm/test_resnet", "--model.weights=random",
         "--model.coreset_share=0.05", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
         "--trainer.enable_progress_bar=false", "--data.negative_class=good", "--data.val_fraction=0",
         "--evaluation.baselines=[majority]"]  # fmt: skip


def _fit(root: Path, *more: str) -> list[str]:
    return ["fit", *WORDS, f"--data.root={root}", "--data.manifest=manifest.csv", *more]


@pytest.fixture(scope="module")
def normal(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in a folder of its own."""
    place = tmp_path_factory.mktemp("normal")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(RECIPE, _fit(drawn)) == 0
    (found,) = (place / "runs" / "vision").iterdir()
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_fit_holds_the_false_reject_rate_and_two_classes(normal: Path) -> None:
    checkpoint = torch.load(normal / "model.ckpt", weights_only=True)
    payload = checkpoint["lightning_transfer"]
    assert payload["module"] == "NormalOnlyModule"
    assert payload["schema"]["classes"] == ["good", "defect"]
    assert payload["calibration"]["threshold"] is not None
    assert len(checkpoint["state_dict"]["head.patches"]) > 100
    assert "optimizer_states" not in checkpoint


def test_test_reports_kinds_and_writes_maps_if_asked(normal: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(normal, tmp_path / "run"))
    code, printed = run("test", str(folder), "--evaluation.save_maps=true")
    assert code == 0, printed
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    assert {f"recall_at_threshold_{kind}" for kind in ("scratch", "pit", "stain", "crack")} <= set(metrics)
    assert metrics["auroc"]["low"] <= metrics["auroc"]["value"] <= metrics["auroc"]["high"]
    assert metrics["pro"]["value"] is None
    assert metrics["pro"]["reason"]
    rows = _rows(folder / "test" / "predictions.csv")
    assert len(list((folder / "test" / "maps").glob("*.png"))) == len(rows)
    assert {row["label"] for row in rows} == {"good", "defect"}


def test_predict_equals_python_and_writes_no_maps_unasked(normal: Path, drawn: Path, tmp_path: Path, run: Run) -> None:
    moved = tmp_path / "moved.ckpt"
    shutil.copy(normal / "model.ckpt", moved)
    code, printed = run("predict", str(moved), f"--data.root={drawn}")
    assert code == 0, printed
    rows = _rows(run_folder(printed) / "predict" / "predictions.csv")
    assert not (run_folder(printed) / "predict" / "maps").exists()
    predictor = lightning_transfer.load(moved)
    for row, found in zip(rows[:4], predictor.predict([drawn / row["id"] for row in rows[:4]]), strict=True):
        assert found.score == pytest.approx(float(row["score"]), abs=1e-5)
        assert found.decision == row["decision"]
    code, printed = run("predict", str(moved), f"--data.root={drawn}", "--evaluation.save_maps=true")
    assert code == 0, printed
    assert len(list((run_folder(printed) / "predict" / "maps").glob("*.png"))) == len(rows)


def test_good_parts_alone_are_enough(
    surfaces: Path, tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """No defect anywhere: fit, then a test on data with a kind that nobody knew."""
    rows = _rows(surfaces / "manifest.csv")
    good = [row for row in rows if row["label"] == "good"]
    with (surfaces / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(good)
    code, printed = run(*_fit(surfaces))
    assert code == 0, printed
    assert "the temperature is not" in caplog.text
    model = run_folder(printed) / "model.ckpt"
    calibration = torch.load(model, weights_only=True)["lightning_transfer"]["calibration"]
    assert calibration["temperature"] == 1.0
    assert calibration["threshold"] is not None
    code, printed = run("test", str(run_folder(printed)))
    assert code == 0, printed
    assert "n/a (every record is `good`)" in printed
    new = tmp_path / "new"
    for label in ("good", "dent"):
        (new / label).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (32, 32), 40 * number).save(new / label / f"{number}.png")
    code, printed = run("test", str(model), f"--data.root={new}", "--data.manifest=null", "--data.test_fraction=0.5",
                        "--data.calibration_fraction=0")  # fmt: skip
    assert code == 0, printed
    assert "recall_at_threshold_dent" in printed


def test_plan_says_that_nothing_trains_by_gradients(drawn: Path, run: Run) -> None:
    words = _fit(drawn)
    words[0] = "plan"
    code, printed = run(*words)
    assert code == 0, printed
    assert "layer2, layer3" in printed
    assert "What trains when" not in printed
    assert not list(Path.cwd().rglob("*.ckpt"))


def test_masks_give_pixel_metrics(surfaces: Path, run: Run) -> None:
    """Masks in the manifest, where the data read them."""
    pytest.importorskip("lightning_transfer.data.masks")
    rows = _rows(surfaces / "manifest.csv")
    (surfaces / "masks").mkdir()
    for place, row in enumerate(rows):
        row["mask"] = ""
        if row["label"] != "good":
            mask = Image.new("L", (32, 32))
            mask.paste(255, (8, 8, 24, 24))
            mask.save(surfaces / "masks" / f"{place}.png")
            row["mask"] = f"masks/{place}.png"
    with (surfaces / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, printed = run(*_fit(surfaces))
    assert code == 0, printed
    code, printed = run("test", str(run_folder(printed)))
    assert code == 0, printed
    metrics = json.loads((run_folder(printed) / "test" / "metrics.json").read_text())
    for name in ("pixel_auroc", "pro"):
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.head=normal"], "No head `normal`"),
        (["--model.optimizer=SGD"], "optimizer"),
        (["--data.sampler=weighted"], "sampler: weighted"),
        (["--data.negative_class=null"], "set `data.negative_class`. Classes: crack, good, pit"),
        (["--data.negative_class=goood"], "No class is `goood`.*Did you mean `good`"),
        (["--model.layers=[layer9]"], "no layer `layer9`"),
    ],
)
def test_wrong_settings_are_named(drawn: Path, run: Run, words: list[str], message: str) -> None:
    import re

    code, printed = run(*_fit(drawn), *words)
    assert code == 2, printed
    assert re.search(message, printed), printed
