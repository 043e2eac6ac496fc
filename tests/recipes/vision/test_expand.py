"""A run of the vision recipe gets more classes from the command line."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from lightning_transfer import load
from lightning_transfer.modules import TransferModule
from recipes.vision.surfaces import write_surfaces
from tests.recipes.verbs import run_folder
from tests.recipes.vision.conftest import small_fit

Run = Callable[..., tuple[int, str]]

OLD = ("good", "pit", "scratch")


def _keep(folder: Path, names: Sequence[str]) -> Path:
    """Leave the pictures of some classes only."""
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["label"] in names)
    return folder


def test_a_run_gets_more_classes_and_stands_alone(surfaces: Path, drawn: Path, tmp_path: Path, run: Run) -> None:
    old_data = _keep(surfaces, OLD)
    code, printed = run(*small_fit(old_data), "--data.classes=[good,pit,scratch]", "--data.batch_size=8")
    assert code == 0, printed
    old = run_folder(printed)
    data = write_surfaces(tmp_path / "more", num_lots=24, images_per_lot=8, size=32, seed=1)
    probe = {"class_path": "recipes.vision.data.VisionDataModule",
             "init_args": {"root": str(old_data), "manifest": "manifest.csv", "negative_class": "good"}}  # fmt: skip
    monitor = {"class_path": "lightning_transfer.ForgettingMonitor",
               "init_args": {"probe": probe, "head": "head", "metrics": ["accuracy", "agreement"],
                             "max_overhead": None}}  # fmt: skip
    config = tmp_path / "more.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": [monitor], "max_epochs": 1}}))
    words = [f"--model.expand_from={old}", f"--data.root={data}", "--trainer.accelerator=cpu"]
    code, printed = run("fit", "--config", str(config), *words)
    assert code == 0, printed
    found = run_folder(printed)
    assert found.name.startswith("more-")

    before, after = (TransferModule.from_checkpoint(folder / "model.ckpt") for folder in (old, found))
    assert after.schema.classes == ("good", "pit", "scratch", "crack", "stain")
    assert after.head.sizes == (3, 2)
    assert after.head_norm == before.head_norm == "batchnorm"  # from the run, as the config does not say
    facts = json.loads((found / "metrics.json").read_text())
    with (found / "logs" / "csv" / "metrics.csv").open() as file:
        first = next(row for row in csv.DictReader(file) if row.get("forgetting_accuracy"))
    assert float(first["forgetting_accuracy"]) == float(first["forgetting_agreement"]) == 0.0
    assert 0.0 <= facts["source_accuracy_after"]["value"] <= 1.0

    shutil.rmtree(old)
    code, printed = run("test", str(found), "--evaluation.baselines=[majority]")
    assert code == 0, printed
    assert "source accuracy" in (found / "report.html").read_text().lower()
    code, printed = run(
        "fit", "--config", str(found / "config.yaml"), "--ckpt_path", str(found), "--trainer.max_epochs=2"
    )
    assert code == 0, printed
    resumed = torch.load(run_folder(printed) / "model.ckpt", weights_only=True)
    assert resumed["lightning_transfer"]["head_sizes"] == [3, 2]
    [prediction] = load(found).predict([next((data / "crack").glob("*.png"))])
    assert set(prediction.probabilities) == set(after.schema.classes)


def test_without_a_config_the_runs_own_one_counts(fitted: Path, surfaces: Path, run: Run) -> None:
    _rename(surfaces, "stain", "burr")
    code, printed = run("plan", f"--model.expand_from={fitted}", f"--data.root={surfaces}", "--data.batch_size=8")
    assert code == 0, printed
    config = yaml.safe_load((run_folder(printed) / "config.yaml").read_text())
    own = yaml.safe_load((fitted / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == own["trainer"]["max_epochs"] == 2
    assert (config["data"]["batch_size"], own["data"]["batch_size"]) == (8, 16)
    assert config["model"]["expand_from"] == str(fitted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "no class that is new"),
        (("stain", "Stain"), "`Stain` (`stain`?)"),
        (("stain", "stian"), "`stian` (`stain`?)"),
    ],
)
def test_what_cannot_be_added_is_said(
    fitted: Path, surfaces: Path, run: Run, change: tuple[str, str] | None, said: str
) -> None:
    if change is not None:
        _rename(surfaces, *change)
    code, printed = run("fit", f"--model.expand_from={fitted}", f"--data.root={surfaces}")
    assert code == 2
    assert said in printed


def test_another_network_than_the_runs_is_refused(fitted: Path, surfaces: Path, run: Run) -> None:
    code, printed = run(
        "fit",
        f"--model.expand_from={fitted}",
        f"--data.root={surfaces}",
        "--model.backbone=embedded/formula_resnet_tiny",
    )
    assert code == 2
    assert "whose `backbone` is 'timm/test_resnet'" in printed


def test_a_run_that_is_not_there_is_said(run: Run) -> None:
    code, printed = run("fit", "--model.expand_from=runs/none", "--data.root=here")
    assert code == 2
    assert "No checkpoint `runs/none`" in printed


def _rename(folder: Path, old: str, new: str) -> None:
    manifest = folder / "manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace(f",{old},", f",{new},"), encoding="utf-8")
