"""The benchmark of chest X-rays: its sums, its tables, and that each part runs once."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import chestxray
from benchmarks.chestxray import collect, pooled, print_differences, read_rows, said, statistics, warned
from benchmarks.recipe_runs import Ran

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LT_DATA_DIR", ROOT.parent / "shared" / "data")) / "chestxray"
WEIGHTS = Path(os.environ.get("LT_WEIGHTS_DIR", ROOT.parent / "shared" / "weights")) / "mobilenet_v2_qat"
NOTE = "A shortcut may explain the score: the frozen features tell `site` (AUROC 0.9 [0.8, 1.0]), and more."


def rows(seed: int, *, fold: int = 0, patients: int = 10, skill: float = 1.0) -> dict[str, dict[str, Any]]:
    """Three images of each patient, whose scores are the better the higher the skill."""
    draw = np.random.default_rng(seed)
    found = {}
    for patient in range(patients):
        label = "covid" if patient % 2 else "other"
        for image in range(3):
            score = float(draw.normal() + skill * (label == "covid"))
            found[f"{fold}-{patient}-{image}"] = {"label": label, "patient": f"{fold}-{patient}", "score": score}
    return found


def test_the_scores_are_those_of_scikit_learn() -> None:
    items = list(rows(0).values())
    label, score = [row["label"] == "covid" for row in items], [row["score"] for row in items]
    area, precision = (float(each(np.ones((1, len(items))))[0]) for each in statistics(items))
    assert area == pytest.approx(roc_auc_score(label, score))
    assert precision == pytest.approx(average_precision_score(label, score))


def test_two_ways_are_pooled_in_one_order() -> None:
    first = {1: {"rows": rows(1, fold=1)}, 0: {"rows": rows(0)}}
    turned = {fold: {"rows": dict(reversed(item["rows"].items()))} for fold, item in first.items()}
    assert pooled(first) == pooled(turned)
    assert len(pooled(first)) == 60
    assert len(pooled(first, [1])) == 30


def test_differences_are_of_the_folds_that_both_have(capsys: pytest.CaptureFixture[str]) -> None:
    good, poor = ({fold: {"rows": rows(fold, fold=fold, skill=skill)} for fold in range(3)} for skill in (9.0, 0.0))
    del poor[1]
    print_differences({"lp_ft": good, "scratch": poor})
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| lp_ft - scratch")]
    label = [row["label"] == "covid" for row in pooled(poor)]
    expected = 1.0 - roc_auc_score(label, [row["score"] for row in pooled(poor)])
    assert line.startswith(f"| lp_ft - scratch | 2 | {expected:.3f} [")


def test_a_warning_is_counted_by_its_column_and_features() -> None:
    row = {"features": "frozen", "column": "site", "explains": True}
    found: dict[int, dict[str, Any]] = {
        0: {"shortcuts": [row], "verdict": [NOTE]},
        1: {"shortcuts": [{**row, "column": "view"}], "verdict": [NOTE.replace("site", "view")]},
        2: {"shortcuts": [{**row, "explains": False}], "verdict": []},
        3: {"shortcuts": [{**row, "features": "adapted"}], "verdict": [NOTE.replace("frozen", "adapted")]},
    }
    assert (warned(found, "frozen"), warned(found, "adapted"), said(found)) == ([0], [3], [0, 3])


class Recipe:
    """Stands for the recipe: each verb writes what it would find."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[list[str]] = []

    def __call__(self, recipe: str, words: list[str]) -> Ran:
        assert recipe == "medical"
        self.calls.append(list(words))
        if words[0] == "fit":
            way = next(word for word in words if word.endswith(".yaml")).partition("v2_")[2].removesuffix(".yaml")
            fold = next(word for word in words if word.startswith("--data.fold=")).partition("=")[2]
            folder = f"runs/{way}-{fold}"
            (self.root / folder).mkdir(parents=True)
            return Ran(f"Run folder: {folder}\n", 100.0, 900.0, 180.0)
        run = Path(words[1])
        fold = int(run.name.rpartition("-")[2])
        number = len(list((self.root / run).glob("test*")))
        place = self.root / run / (f"test-{number}" if number else "test")
        place.mkdir()
        judged = {"shortcuts": {"shortcuts": [{"features": "frozen", "column": "site", "explains": fold == 0}]}}
        report = {"verdict": {"notes": [NOTE, "Few data."] if fold == 0 else ["Few data."], "tone": "open"}}
        (place / "evaluation.json").write_text(json.dumps({**judged, "descriptions": {"scratch": "rate 0.001"}}))
        (self.root / run / "report.json").write_text(json.dumps(report))
        write_rows(place / "predictions.csv", rows(fold, fold=fold, skill=2.0))
        if "--evaluation.baselines=[scratch]" in words:
            write_rows(place / "predictions_scratch.csv", rows(fold + 9, fold=fold, skill=0.0))
        return Ran(f"Written: {place.relative_to(self.root)}/confusion.csv\nRun folder: {run}\n", 50.0, 800.0, 70.0)


def write_rows(path: Path, found: dict[str, dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "label", "group", "score"))
        writer.writerows((name, row["label"], row["patient"], row["score"]) for name, row in found.items())


def test_all_parts_are_run_once_and_the_tables_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(tmp_path)
    monkeypatch.setattr(chestxray, "run_recipe", recipe)
    monkeypatch.setattr(chestxray, "ROOT", tmp_path)
    command = ["chestxray", "--out", str(tmp_path / "out"), "--folds", "0", "1", "--image_size", "64"]
    command += ["--ways", "scratch", "lp_ft", "--rates", "0.001", "--", "--trainer.max_epochs=1"]
    monkeypatch.setattr(sys, "argv", command)
    chestxray.main()
    first = capsys.readouterr().out
    assert [call[0] for call in recipe.calls] == ["fit", "test", "test"] * 2
    assert all("--data.image_size=64" in call for call in recipe.calls if call[0] == "fit")
    assert all("--trainer.max_epochs=1" in call for call in recipe.calls if call[0] == "fit")
    assert "--evaluation.scratch.learning_rates=[0.001]" in recipe.calls[2]
    # The row from scratch is another model's than that of the run whose test it stands in.
    found = collect(tmp_path / "out" / "64px")
    assert found["scratch"][1]["rows"] == rows(10, fold=1, skill=0.0)
    assert found["lp_ft"][1]["rows"] == rows(1, fold=1, skill=2.0)
    last = first.splitlines()
    assert "| lp_ft | 2 | 1 | 1 | 0 |" in last
    assert f"lp_ft, fold 0: {NOTE}" in last
    assert "scratch, fold 1: rate 0.001" in last
    assert sum(line.startswith("| scratch | 2 | 60 | 20 |") for line in last) == 2
    chestxray.main()
    assert len(recipe.calls) == 6
    again = capsys.readouterr().out.splitlines()
    assert again == last[-len(again) :]
    assert f"lp_ft, fold 0: {NOTE}" in again


def test_from_scratch_needs_a_run_of_its_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["chestxray", "--out", str(tmp_path), "--folds", "3", "--ways", "scratch"])
    with pytest.raises(SystemExit, match="fold 3 has no run: add `lp_ft`"):
        chestxray.main()
    assert collect(tmp_path / "own_size") == {}


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(1800)
def test_a_tiny_run_on_the_real_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (DATA, WEIGHTS):
        if not folder.is_dir():
            pytest.skip(f"no {folder}: set LT_DATA_DIR and LT_WEIGHTS_DIR")
    [weights] = WEIGHTS.glob("*.pth")
    command = ["chestxray", "--data", str(DATA), "--weights", str(weights), "--out", str(tmp_path), "--folds", "0"]
    command += ["--image_size", "32", "--ways", "probe", "scratch", "--rates", "0.001", "--max_epochs", "1", "--"]
    words = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", [*command, *words])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    chestxray.main()
    printed = capsys.readouterr().out
    assert "| probe - scratch | 1 |" in printed
    assert "| scratch | 1 | 55 | 31 |" in printed
    stored = json.loads((tmp_path / "32px" / "probe-0.json").read_text())
    assert stored["cost"]["cpu_seconds"] > 1
    assert {row["column"] for row in stored["shortcuts"]} >= {"site"}
    assert len(read_rows(next(tmp_path.rglob("predictions_scratch.csv")))) == 55
