"""The layouts of image data through the command line: found, printed, and fit for a classifier or not."""

import csv
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.types import BackboneCard
from recipes.vision.data import VisionDataModule
from tests.data.mvtec.make import write_mvtec
from tests.recipes.verbs import run_folder
from tests.recipes.vision.conftest import SMALL

Run = Callable[..., tuple[int, str]]
CARD = BackboneCard(name="t", architecture="t", input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
MODEL = ["--model.backbone=timm/test_resnet", "--model.weights=random"]


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    return write_mvtec(tmp_path / "screw")


def _data(root: Path, **options) -> VisionDataModule:
    data = VisionDataModule(str(root), **options)
    data.use_card(CARD)
    return data


def test_the_layout_is_said_once_by_plan_and_fit(mvtec: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    words = [*MODEL, f"--data.root={mvtec}", "--data.given_splits=ignore", *SMALL]
    for verb in ("plan", "fit"):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
            code, printed = run(verb, *words)
        assert code == 0, printed
        (line,) = (text for text in caplog.messages if text.startswith("Data: "))
        assert "MVTec AD layout" in line
        assert line.endswith(f"in `{mvtec.resolve()}`, 48 images, 16 masks")
    assert '"negative_class": "good"' in (run_folder(printed) / "data.json").read_text()
    code, printed = run("test", str(run_folder(printed)))
    assert code == 0, printed


def test_a_classifier_cannot_learn_from_the_official_split(mvtec: Path, run: Run) -> None:
    code, printed = run("fit", *MODEL, f"--data.root={mvtec}", *SMALL)
    assert code != 0
    for text in ("Labels in `test` that `train` lacks: `cut`, `dent`", "`given_splits: ignore` divides"):
        assert text in printed
    assert "Traceback" not in printed


def test_the_splits_of_mvtec(mvtec: Path) -> None:
    kept = _data(mvtec).read_records()
    assert Counter((r.split, r.label) for r in kept) == {
        ("train", "good"): 24, ("test", "good"): 8, ("test", "cut"): 8, ("test", "dent"): 8,
    }  # fmt: skip
    data = _data(mvtec, given_splits="ignore")
    data.setup("fit")
    assert all(count for split in ("train", "test") for count in data.schema.counts[split].values())
    assert data.schema.classes[0] == data.schema.negative_class == "good"


def test_new_images_in_a_training_folder_are_predicted_without_the_masks(mvtec: Path) -> None:
    data = _data(mvtec, given_splits="ignore")
    data.setup("fit")
    data.setup("predict")
    assert len(data.predict_records) == 48
    assert not any("ground_truth" in record.id for record in data.predict_records)


@pytest.mark.parametrize("options", [{"format": "mvtec"}, {"format": "csv"}, {"manifest": "gone.csv"}, {}])
def test_new_images_need_no_layout(tmp_path: Path, options: dict[str, str]) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "new.png")
    records = _data(tmp_path, **options).read_predict_records()
    assert [record.id for record in records] == ["new.png"]


def test_masks_of_a_table_and_further_columns(mvtec: Path) -> None:
    rows = [(f"train/good/{i:03d}.png", "good", "", f"line {i % 2}") for i in range(24)]
    rows += [(f"test/cut/{i:03d}.png", "cut", f"ground_truth/cut/{i:03d}_mask.png", "line 0") for i in range(8)]
    with (mvtec / "parts.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "kind", "where", "line"), *rows])
    data = _data(mvtec, manifest="parts.csv", path_column="image", label_column="kind", mask_column="where")
    data.setup("fit")
    assert sum(record.mask is not None for record in data.records) == 8
    assert data.schema.columns == ("line",)
    (mvtec / "ground_truth" / "cut" / "000_mask.png").unlink()
    data.setup("predict")  # a mask plays no part in it
    assert len(data.predict_records) == 32


@pytest.mark.parametrize("damage", ["size", "missing"])
def test_a_bad_mask(damage: str, mvtec: Path, run: Run) -> None:
    with (mvtec / "manifest.csv").open("w", newline="") as stream:
        rows = [(f"test/cut/{i:03d}.png", "cut", f"ground_truth/cut/{i:03d}_mask.png") for i in range(8)]
        rows += [(f"train/good/{i:03d}.png", "good", "") for i in range(24)]
        csv.writer(stream).writerows([("path", "label", "mask"), *rows])
    victim = mvtec / "ground_truth" / "cut" / "003_mask.png"
    if damage == "size":
        Image.open(victim).resize((32, 24)).save(victim)
    else:
        victim.unlink()
    words = ["fit", *MODEL, f"--data.root={mvtec}", "--data.format=csv", "--data.negative_class=good", *SMALL]
    code, printed = run(*words)
    assert code != 0
    expected = ("24 x 32", "48 x 64") if damage == "size" else ("no such file",)
    for text in ("1 of 8 masks cannot be used", "test/cut/003.png", "003_mask.png", "on_bad_file: skip", *expected):
        assert text in printed, printed
    assert "Traceback" not in printed
    with pytest.warns(UserWarning, match="1 of 8 masks cannot be used"):
        assert run(*words, "--data.on_bad_file=skip", "--trainer.max_epochs=1")[0] == 0


def test_an_image_above_the_limit(mvtec: Path, run: Run) -> None:
    words = ["fit", *MODEL, f"--data.root={mvtec}", "--data.given_splits=ignore", *SMALL, "--trainer.max_epochs=1"]
    Image.new("L", (300, 200)).save(mvtec / "train" / "good" / "000.png")
    code, printed = run(*words, "--data.max_megapixels=0.05")
    assert code != 0
    for text in ("1 of 48", "000.png", "300 x 200", "the limit is 0.05", "`max_megapixels`"):
        assert text in printed, printed
    assert run(*words, "--data.max_megapixels=0.06")[0] == 0


def test_a_twelve_bit_camera_is_asked_after(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
        for index in range(20):
            Image.fromarray(rng.integers(0, 4096, (8, 8), dtype=np.uint16)).save(tmp_path / name / f"{index}.png")
    with pytest.warns(UserWarning, match=r"highest value of 40 16-bit images is 40\d\d.*`bit_depth: 12`"):
        _data(tmp_path).setup("fit")
    data = _data(tmp_path, bit_depth=12)
    data.setup("fit")
    values = next(iter(data.test_dataloader())).input * 0.25 + 0.5
    assert values.max() > 0.9
    with pytest.raises(Exception, match="11 bits"):
        _data(tmp_path, bit_depth=11).setup("fit")


def test_a_class_of_one_lot(mvtec: Path, run: Run) -> None:
    shutil.rmtree(mvtec / "test" / "dent")
    pattern = r"--data.group_pattern=(good/\d+|cut)"
    code, printed = run("fit", *MODEL, f"--data.root={mvtec}", "--data.given_splits=ignore", pattern, *SMALL)
    assert code != 0
    assert "The class `cut` has one group only (`cut`)" in printed, printed
