"""The row `scratch` through the command line; the maths is tested in tests/unit/evaluation/test_scratch.py."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

import lightning_transfer.cli.scratch
from lightning_transfer.cli import main
from recipes.vision.cli import RECIPE
from recipes.vision.surfaces import write_surfaces

Toy = Callable[..., Any]
SCRATCH = ("--evaluation.baselines", "[majority, scratch]")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fitted")
    write_surfaces(place / "surfaces", num_lots=24, images_per_lot=5, size=32)
    words = ["fit", "--model.backbone=timm/test_resnet", "--model.weights=random", "--model.head_norm=batchnorm",
             f"--data.root={place / 'surfaces'}", "--data.manifest=manifest.csv", "--data.negative_class=good",
             "--data.batch_size=16", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
             "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={place / 'runs'}"]  # fmt: skip
    assert main(RECIPE, words) == 0
    [run] = (place / "runs" / "vision").iterdir()
    return run


def _test(run: Path, tmp_path: Path, *words: str) -> tuple[int, Path]:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    code = main(RECIPE, ["test", str(copy), *SCRATCH, *words])
    return code, copy


def test_the_row_stands_beside_the_model_with_a_paired_difference(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in fitted.rglob("*") if path.is_file()}
    code, run = _test(fitted, tmp_path, "--evaluation.scratch", "{learning_rates: [0.001, 0.003], patience: 1}",
                      "--evaluation.scratch.max_epochs", "2")  # fmt: skip
    printed = capsys.readouterr().out
    assert code == 0, printed
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    for name in ("macro_f1_of_scratch", "auroc_of_scratch", "macro_f1_minus_scratch", "auroc_minus_scratch"):
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"], name
    own = metrics["auroc"]["value"] - metrics["auroc_of_scratch"]["value"]
    assert metrics["auroc_minus_scratch"]["value"] == pytest.approx(own)
    assert "of 0.001, 0.003 (by val_macro_f1)" in printed
    with (run / "test" / "predictions_scratch.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (run / "test" / "predictions.csv").open(newline="") as stream:
        assert [(row["id"], row["label"]) for row in csv.DictReader(stream)] == [
            (row["id"], row["label"]) for row in rows
        ]
    area = roc_auc_score([row["label"] != "good" for row in rows], [float(row["score"]) for row in rows])
    assert metrics["auroc_of_scratch"]["value"] == pytest.approx(area), "the file holds another model's scores"
    [row] = [line for line in printed.splitlines() if line.startswith("from scratch  ")]
    assert float(row.split()[-1]) > 0
    new = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    old = {path.relative_to(fitted) for path in before}
    assert {path.parts[0] for path in new - old} == {"test", "report.html", "report.json"}, "scratch left something"
    same = {path: content for path, content in before.items() if path.name != "model_card.md"}  # completed by the test
    assert all((run / path.relative_to(fitted)).read_bytes() == content for path, content in same.items())


def test_a_module_without_a_random_twin_loses_no_result(toy: Toy, finished: Path) -> None:
    with pytest.warns(UserWarning, match="`scratch` is left out; all else of this test is kept: TransferError: `Toy"):
        done = toy("test", finished, *SCRATCH)
    assert done.code == 0, done.err
    metrics = json.loads((finished / "test" / "metrics.json").read_text())
    assert "accuracy_of_majority" in metrics
    assert "accuracy_of_scratch" not in metrics


def test_an_interrupt_keeps_the_results_and_says_so(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        assert (tmp_path / "run" / "test" / "predictions.csv").is_file(), "the predictions had to be safe by now"
        raise KeyboardInterrupt

    monkeypatch.setattr(lightning_transfer.cli.scratch, "fit_scratch", interrupted)
    with pytest.warns(UserWarning, match="its training was interrupted"):
        code, run = _test(fitted, tmp_path)
    assert code == 130
    assert "macro_f1_of_majority" in json.loads((run / "test" / "metrics.json").read_text())
    assert "this model" in capsys.readouterr().out


def test_part_of_the_test_split_is_compared_with_the_same_part(fitted: Path, tmp_path: Path) -> None:
    words = ["--data.batch_size=5", "--trainer.limit_test_batches=2", "--evaluation.scratch.max_epochs=1"]
    code, run = _test(fitted, tmp_path, *words, "--evaluation.scratch.learning_rates=[0.001]")
    assert code == 0
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["accuracy_of_scratch"]["n"] == metrics["accuracy"]["n"] == 10
