from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.errors import DataError
from recipes.vision import surfaces
from recipes.vision.surfaces import DEFECTS, write_surfaces

SMALL = {"num_lots": 5, "images_per_lot": 8, "size": 32}


def _rows(root: Path) -> list[dict[str, str]]:
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_surfaces(tmp_path_factory.mktemp("surfaces") / "deep" / "set")


def test_the_default_set_is_whole_and_readable(written: Path) -> None:
    rows = _rows(written)
    assert list(rows[0]) == ["path", "label", "group", "surface"]
    # A lot is of one kind, and there are lots of each.
    assert len({(row["group"], row["surface"]) for row in rows}) == len({row["group"] for row in rows})
    assert {row["surface"] for row in rows} == {"brushed", "rolled", "cast"}
    assert len(rows) == len({row["path"] for row in rows}) == 480
    assert {str(path.relative_to(written)) for path in written.rglob("*.png")} == {row["path"] for row in rows}
    for row in rows:
        assert Path(row["path"]).parent.name == row["label"]
        with Image.open(written / row["path"]) as image:
            assert (image.mode, image.size) == ("L", (64, 64))
            assert np.asarray(image).std() > 2


def test_good_is_the_majority_and_defects_are_balanced(written: Path) -> None:
    counts = Counter(row["label"] for row in _rows(written))
    assert counts == {"good": 288, **dict.fromkeys(DEFECTS, 48)}


def test_lots_are_groups_with_both_good_and_bad(written: Path) -> None:
    lots: dict[str, list[str]] = {}
    for row in _rows(written):
        lots.setdefault(row["group"], []).append(row["label"])
    assert len(lots) == 40
    assert {len(labels) for labels in lots.values()} == {12}
    for labels in lots.values():
        assert 4 <= sum(label != "good" for label in labels) <= 5
    # Neither the number in the file's name nor the place in the lot tells the label.
    assert len({tuple(labels) for labels in lots.values()}) > 30


def test_images_of_a_lot_look_alike(written: Path) -> None:
    rows = [row for row in _rows(written) if row["label"] == "good"]
    values = np.array([np.asarray(Image.open(written / row["path"])).mean() for row in rows])
    groups = np.array([row["group"] for row in rows])
    within = np.mean([values[groups == group].var() for group in set(groups)])
    assert within < 0.2 * values.var()


def test_brightness_and_contrast_do_not_tell_a_defect(written: Path) -> None:
    from sklearn.metrics import roc_auc_score

    rows = _rows(written)
    pixels = [np.asarray(Image.open(written / row["path"]), dtype=float) for row in rows]
    defect = [row["label"] != "good" for row in rows]
    for statistic in (np.mean, np.std, np.min, np.max):
        assert 0.35 < roc_auc_score(defect, [statistic(image) for image in pixels]) < 0.65


def test_each_defect_changes_few_pixels_of_the_clean_surface() -> None:
    lot = surfaces._draw_lot(np.random.default_rng(4))._replace(noise=0.0)
    for label in DEFECTS:
        mark = surfaces._DRAW[label](np.random.default_rng(7), lot, 64)
        assert mark.shape == (64, 64)
        assert 0.5 < np.abs(mark).max() < 2
        assert 0.002 < (np.abs(mark) > 0.25).mean() < 0.3


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    first, second = write_surfaces(tmp_path / "a", seed=3, **SMALL), write_surfaces(tmp_path / "b", seed=3, **SMALL)
    assert _files(first) == _files(second)


def test_every_image_and_every_lot_has_a_seed_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    default_rng = np.random.default_rng

    def recorded(seed: tuple[int, ...]) -> np.random.Generator:
        seeds.append(seed)
        return default_rng(seed)

    monkeypatch.setattr(np.random, "default_rng", recorded)
    write_surfaces(tmp_path / "set", seed=2, **SMALL)
    assert len(seeds) == len({default_rng(seed).random() for seed in seeds}) == 5 + 40


def test_another_seed_writes_other_images(tmp_path: Path) -> None:
    first, second = write_surfaces(tmp_path / "a", seed=0, **SMALL), write_surfaces(tmp_path / "b", seed=1, **SMALL)
    pictures = [
        {content for name, content in _files(root).items() if name.endswith(".png")} for root in (first, second)
    ]
    assert not pictures[0] & pictures[1]
    assert len(pictures[0]) == len(pictures[1]) == 40


def test_a_larger_set_begins_with_the_smaller(tmp_path: Path) -> None:
    small = write_surfaces(tmp_path / "a", **SMALL)
    large = write_surfaces(tmp_path / "b", **{**SMALL, "num_lots": 7})
    assert _rows(large)[:40] == _rows(small)


def test_a_whole_set_is_kept(tmp_path: Path) -> None:
    root = write_surfaces(tmp_path / "set", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_surfaces(root, **SMALL) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert len(_rows(write_surfaces(tmp_path / "set", **SMALL))) == 40


def test_another_set_is_never_overwritten(tmp_path: Path) -> None:
    root = write_surfaces(tmp_path / "set", **SMALL)
    before = _files(root)
    with pytest.raises(DataError, match=r"num_lots=5 \(asked: 6\).*Choose another folder"):
        write_surfaces(root, **{**SMALL, "num_lots": 6})
    with pytest.raises(DataError, match=r"seed=0 \(asked: 9\)"):
        write_surfaces(root, seed=9, **SMALL)
    assert _files(root) == before


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=re.escape(str(tmp_path)) + ".*not written by `write_surfaces`"):
        write_surfaces(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("mine")
    with pytest.raises(DataError, match="set` already exists"):
        write_surfaces(tmp_path / "set", **SMALL)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_broken_marker_is_named(tmp_path: Path, content: str) -> None:
    root = write_surfaces(tmp_path / "set", **SMALL)
    (root / "surfaces.json").write_text(content)
    with pytest.raises(DataError, match=r"surfaces\.json"):
        write_surfaces(root, **SMALL)


def test_a_damaged_set_is_named(tmp_path: Path) -> None:
    root = write_surfaces(tmp_path / "set", **SMALL)
    next(root.glob("*/*.png")).unlink()
    with pytest.raises(DataError, match="damaged: 39 of 40 images"):
        write_surfaces(root, **SMALL)


def test_a_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_surfaces(tmp_path / "set", **SMALL)
    assert not list(tmp_path.iterdir())


def test_a_process_that_finished_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_surfaces(tmp_path / "other", **SMALL)
    rename = os.rename

    def overtaken(source: Path, target: Path) -> None:
        rename(other, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    root = write_surfaces(tmp_path / "set", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert json.loads((root / "surfaces.json").read_text())["images"] == 40


@pytest.mark.parametrize(("argument", "value"), [("seed", -1), ("num_lots", 0), ("images_per_lot", 0), ("size", 16)])
def test_wrong_arguments_are_named(tmp_path: Path, argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"`{argument}` of at least .*, got {value}"):
        write_surfaces(tmp_path / "set", **{**SMALL, argument: value})
    assert not list(tmp_path.iterdir())


def test_it_needs_no_torch() -> None:
    code = "import sys, recipes.vision.surfaces; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
