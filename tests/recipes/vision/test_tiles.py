"""Large images in tiles, through the command line: the network sees tiles, every table has one row an image."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_transfer.errors import DataError
from lightning_transfer.evaluation import load
from recipes.vision.data import VisionDataModule
from tests.data.mvtec.make import write_mvtec
from tests.recipes.verbs import run_folder
from tests.recipes.vision.conftest import SMALL
from tests.recipes.vision.test_formats import CARD, MODEL

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    return write_mvtec(tmp_path / "screw")  # 48 x 64 pixels, defects of 8


def _data(root: Path, **options) -> VisionDataModule:
    options = {"tile_size": 32, "tile_overlap": 8, "given_splits": "ignore", **options}
    data = VisionDataModule(str(root), **options)
    data.use_card(CARD)
    return data


def test_fit_test_and_predict(mvtec: Path, run: Run) -> None:
    words = [*MODEL, f"--data.root={mvtec}", "--data.given_splits=ignore", "--data.tile_size=32"]
    words += ["--data.tile_overlap=8", "--model.class_weights=balanced", "--evaluation.baselines=[knn]"]
    code, printed = run("fit", *words, *SMALL, "--trainer.max_epochs=1")
    assert code == 0, printed
    folder = run_folder(printed)
    code, printed = run("test", str(folder))
    assert code == 0, printed
    with next((folder / "test").rglob("predictions.csv")).open(newline="") as stream:
        tested = list(csv.DictReader(stream))
    assert len({row["id"] for row in tested}) == len(tested)
    assert all("#" not in row["id"] for row in tested)
    code, printed = run("predict", str(folder), f"--data.root={mvtec}")
    assert code == 0, printed
    with next((folder / "predict").rglob("predictions.csv")).open(newline="") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 48
    found = load(folder).predict([mvtec / key for key in rows])  # another way, tile by tile
    for row, item in zip(rows.values(), found, strict=True):
        assert float(row["score"]) == pytest.approx(item.score, abs=1e-4)
        assert row["decision"] == item.decision


def test_tiles_beside_a_defect_are_good(mvtec: Path) -> None:
    data = _data(mvtec)
    data.setup("fit")
    train = data.records_for("train")
    expected: Counter[str] = Counter()
    corners = [(top, left) for top in (0, 16) for left in (0, 16, 32)]
    for record in train:
        for top, left in corners:
            box = (left, top, left + 32, top + 32)
            shown = record.mask is not None and Image.open(record.mask).crop(box).getbbox() is not None
            expected[record.label if shown else "good"] += 1
    assert data.schema.piece_counts == expected
    assert sum(expected.values()) == 6 * len(train)


def test_a_tile_is_that_part_of_the_image(mvtec: Path) -> None:
    data = _data(mvtec)
    data.setup("fit")
    batch = next(iter(data.test_dataloader()))
    records = data.records_for("test")
    for value, (place, number, count) in zip(batch.input, batch.index.tolist(), strict=True):
        top, left = 16 * (number // 3), 16 * (number % 3)
        part = Image.open(records[place].input).crop((left, top, left + 32, top + 32))
        torch.testing.assert_close(value, data.preprocessing(part))
        assert count == 6


def test_a_defect_without_mask_teaches_nothing_unless_asked(mvtec: Path) -> None:
    for path in (mvtec / "ground_truth" / "cut").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"No training tile is known to be of the class `cut`.*`unmasked_tiles"):
        _data(mvtec).setup("fit")
    for index in range(8):
        Image.new("L", (64, 48), 255 * (index == 0)).save(mvtec / "ground_truth" / "cut" / f"{index:03d}_mask.png")
    data = _data(mvtec, split_seed=1, test_fraction=0.0, val_fraction=0.0, calibration_fraction=0.0)
    with pytest.warns(UserWarning, match=r"7 of 48 training images show a defect and have no mask.*test/cut/001"):
        data.setup("fit")
    assert data.schema.piece_counts["cut"] == 6
    assert len(data.ordered_dataloader("train").dataset) == 6 * 48  # they are evaluated all the same
    data = _data(mvtec, unmasked_tiles="image_label", test_fraction=0.0, val_fraction=0.0, calibration_fraction=0.0)
    data.setup("fit")
    assert data.schema.piece_counts["cut"] == 6 * 8


def test_tiles_need_a_negative_class(mvtec: Path, tmp_path: Path) -> None:
    (mvtec / "test").rename(tmp_path / "parts")
    with pytest.raises(DataError, match=r"Tiles need a `negative_class`.*cut, dent, good.*`tile_top_k: null`"):
        _data(tmp_path / "parts").setup("fit")
    data = _data(tmp_path / "parts", unmasked_tiles="image_label", tile_top_k=None)
    data.setup("fit")
    assert data.schema.piece_counts == {name: 6 * n for name, n in data.schema.counts["train"].items()}


def test_a_tile_larger_than_an_image(mvtec: Path, run: Run) -> None:
    Image.new("L", (30, 60)).save(mvtec / "train" / "good" / "003.png")
    words = ["fit", *MODEL, f"--data.root={mvtec}", "--data.given_splits=ignore", "--data.tile_size=32", *SMALL]
    code, printed = run(*words)
    assert code != 0
    for text in ("1 of 48", "train/good/003.png", "60 x 30", "32 x 32", "`tile_size` to 30 or less", "on_bad_file"):
        assert text in printed, printed
    with pytest.warns(UserWarning, match=r"1 of 48 records are left out: train/good/003.png"):
        code, printed = run(*words, "--data.on_bad_file=skip", "--trainer.max_epochs=1")
    assert code == 0, printed
