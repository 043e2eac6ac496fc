import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.cli import label_suspects, main
from recipes.vision.cli import RECIPE

Toy = Callable[..., Any]
Vision = Callable[..., tuple[int, str]]

WORDS = ["--model.backbone=embedded/formula_resnet_tiny", "--trainer.accelerator=cpu", "--data.image_size=32"]
WORDS += ["--data.group_column=patient", "--trainer.enable_progress_bar=false"]
TILES = ["--data.tile_size=24", "--data.tile_overlap=8", "--data.image_size=24", "--data.negative_class=good"]
TILES += ["--data.unmasked_tiles=image_label"]
WRONG = (6, 40)


@pytest.fixture
def vision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vision:
    """Run ``check-data`` of the vision recipe in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(root: Path, *words: str) -> tuple[int, str]:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        code = main(RECIPE, ["check-data", f"--data.root={root}", *WORDS, *words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Coarse and fine textures, with a class name and file names that a spreadsheet would run; two labels are wrong."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    root.mkdir()
    lines = ["path,label,patient"]
    for place in range(90):
        fine = place % 2
        grain = rng.integers(0, 256, (32, 32) if fine else (4, 4), dtype=np.uint8)
        Image.fromarray(grain).resize((32, 32), Image.Resampling.BICUBIC).save(root / f"=x{place}.png")
        label = "=1+1" if fine != (place in WRONG) else "good"
        lines.append(f"=x{place}.png,{label},p{place // 2}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def _results(tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    [folder] = tmp_path.glob("runs/vision/*/check-data")
    rows = list(csv.DictReader((folder / "suspects.csv").open(newline="")))
    return json.loads((folder / "check.json").read_text()), rows


def test_planted_errors_are_the_first_in_list_table_and_json(vision: Vision, images: Path, tmp_path: Path) -> None:
    code, said = vision(images, "--suspects")
    assert code == 0, said
    values, rows = _results(tmp_path)
    names = {f"=x{place}.png" for place in WRONG}
    assert {row["id"] for row in values["suspects"][:2]} == names
    assert {row["id"] for row in rows[:2]} == {f"'{name}" for name in names}
    assert set(values["suspects"][0]) == {"id", "path", "label", "suggested", "score", "likely"}
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    [finding] = [item for item in values["findings"] if item["code"] == "label-suspects"]
    assert (finding["severity"], finding["count"]) == ("note", 2)
    assert "Suspected label errors: 2 of 90 labels likely" in said
    assert all(name in said for name in names)
    assert "Recommendation: " in said
    assert "This config does something else: all layers from the start (`full`)." in said
    assert values["recommendation"]["basis"] == "probe"
    assert values["recommendation"]["strategy"] == "feature_extraction"
    assert values["probe"]["macro_f1"]["n"] == values["num_records"]["train"] < 90


def test_without_the_option_no_model_runs(
    vision: Vision, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_suspects, "check_suspects", lambda *_: pytest.fail("ran"))
    code, said = vision(images)
    assert code == 0, said
    [path] = tmp_path.glob("runs/vision/*/check-data/check.json")
    assert not {"suspects", "probe", "recommendation"} & set(json.loads(path.read_text()))
    assert "Suspected" not in said


def test_an_image_in_tiles_has_one_row(vision: Vision, images: Path, tmp_path: Path) -> None:
    code, said = vision(images, "--suspects", *TILES)
    assert code == 0, said
    assert "of 90 labels likely" in said
    assert {row["id"] for row in _results(tmp_path)[0]["suspects"][:2]} == {f"=x{place}.png" for place in WRONG}


def test_a_head_for_good_parts_alone_gets_no_recommendation(vision: Vision, images: Path, tmp_path: Path) -> None:
    code, said = vision(images, "--suspects", "--model.head=normal_only", "--data.negative_class=good")
    assert code == 0, said
    assert "of 90 labels likely" in said
    assert "Recommendation" not in said
    assert "recommendation" not in _results(tmp_path)[0]


def test_data_that_cannot_be_set_up_are_not_searched(vision: Vision, images: Path) -> None:
    lines = (images / "manifest.csv").read_text().splitlines()
    (images / "manifest.csv").write_text("\n".join([lines[0], *(f"{line.split(',')[0]},," for line in lines[1:])]))
    code, said = vision(images, "--suspects")
    assert code == 2, said
    assert "Label errors were not searched: the data could not be set up; mend the errors first" in " ".join(
        said.split()
    )


def test_a_backbone_that_cannot_be_loaded_is_a_warning(toy: Toy, small: str) -> None:
    done = toy("check-data", "--config", small, "--suspects", "--model.weights", "nowhere.pt")
    assert done.code == 0, done.err
    values = json.loads((done.run / "check-data" / "check.json").read_text())
    [finding] = [item for item in values["findings"] if item["code"] == "label-suspects-skipped"]
    assert finding["severity"] == "warning"
    assert "toy/linear" in finding["message"]
    assert "suspects" not in values
    assert toy("check-data", "--config", small, "--suspects", "--strict").code == 1
