"""A PNG for each picture and a row for each input, unreadable ones at their places."""

import csv
from pathlib import Path

import numpy as np

from lightning_transfer.data import Skipped, read_label_map
from lightning_transfer.evaluation.segmentation_file import MaskWriter, mask_columns, mask_name, write_masks_table
from lightning_transfer.evaluation.segmentation_judge import DrawnMask
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record
from tests.unit.evaluation.mask_toys import judged, pictures

RECORDS, TARGETS = pictures(3)
CLASSES = ("good", "defect")


def _write(folder: Path, save: bool = True) -> MaskWriter:
    writer = MaskWriter(folder, RECORDS, CLASSES, save=save)
    for place, target in enumerate(TARGETS):
        area = np.bincount(target.ravel(), minlength=2).astype(float)
        writer(DrawnMask(place, target, 0.25 * place, area))
    return writer


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_says_what_was_drawn_and_where(tmp_path: Path) -> None:
    writer = _write(tmp_path)
    rows = {place: item for place, item in enumerate(judged(TARGETS, 0.0))}
    gone = Skipped(Record("x.png", "x.png"), "the file is empty", 1)
    path = write_masks_table(tmp_path / "predictions.csv", RECORDS, writer.rows, CLASSES, rows, [gone])
    found = _rows(path)
    assert list(found[0]) == mask_columns(CLASSES)
    assert [row["id"] for row in found] == ["good/0.png", "x.png", "pit/1.png", "crack/2.png"]
    assert found[1]["reason"] == "the file is empty"
    assert found[1]["mask"] == ""
    assert [row["predicted"] for row in found] == ["good", "", "defect", "defect"]
    assert [row["dice"] for row in found] == ["", "", "1.0", "1.0"]
    assert float(found[2]["share_defect"]) == TARGETS[1].mean().round(6)
    for row, target in zip([found[0], *found[2:]], TARGETS, strict=True):
        assert np.array_equal(read_label_map(tmp_path / row["mask"]), target)


def test_without_saving_no_file_is_named(tmp_path: Path) -> None:
    writer = _write(tmp_path, save=False)
    assert not (tmp_path / "masks").exists()
    path = write_masks_table(tmp_path / "predictions.csv", RECORDS, writer.rows, CLASSES)
    assert {row["mask"] for row in _rows(path)} == {""}


def test_a_slice_is_named_by_its_volume_and_number(tmp_path: Path) -> None:
    record = Record("head.nii.gz#3", ImagePart("head.nii.gz", 3), group="p")
    writer = MaskWriter(tmp_path, [record], CLASSES)
    writer(DrawnMask(0, TARGETS[0], 0.5, np.array([1.0, 0.0])))
    [row] = _rows(write_masks_table(tmp_path / "predictions.csv", [record], writer.rows, CLASSES))
    assert (row["path"], row["mask"]) == ("head.nii.gz#3", "masks/00000_head.nii_3.png")


def test_names_stay_apart_and_short() -> None:
    assert mask_name(1, "a/b.png") != mask_name(2, "a/b.png")
    assert "/" not in mask_name(1, "../../etc/x")
    assert len(mask_name(1, "x" * 500)) < 100
