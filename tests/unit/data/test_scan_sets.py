"""Every layout gives records of one kind."""

from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data.scan_sets import SetOptions, add_test, choose_views, describe_set, read_scan_set
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record


def read(layout, place: Path, **options):
    how = {"labelled": True, "on_bad_file": "error"}
    root = place if place.is_dir() else place.parent
    return read_scan_set(layout, place, root, SetOptions(**options), **how)


def table(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def test_one_finding_is_two_classes(tmp_path: Path) -> None:
    path = table(tmp_path, "path,patient,edema\na.png,1,1\nb.png,2,0\nc.png,3,-1\nd.png,4,\n")
    found = read("csv", path, findings=("edema",))
    assert [record.label for record in found.records] == ["edema", "no edema", None, None]
    assert found.uncertain == {"c.png": (0,)}
    assert found.columns == ("path", "patient", "edema")


def test_several_findings_stay_labels(tmp_path: Path) -> None:
    path = table(tmp_path, "path,edema,mass\na.png,1,0\n")
    assert read("csv", path, findings=("edema", "mass")).records[0].label == (1.0, 0.0)


def test_folders_and_arrays(tmp_path: Path) -> None:
    (tmp_path / "ill" / "p1").mkdir(parents=True)
    (tmp_path / "ill" / "p1" / "a.png").write_bytes(b"x")
    [record] = read("pictures", tmp_path, patient_pattern="(p[0-9]+)").records
    assert (record.label, record.group) == ("ill", "p1")
    file = tmp_path / "set.npz"
    np.savez(file, train_images=np.zeros((2, 4, 4)), train_labels=np.array([[0], [1]]))
    assert [row.label for row in read("npz", file, classes=("a", "b")).records] == ["a", "b"]


def test_views_are_compared_without_case() -> None:
    rows = [Record("a", None, meta={"view": "PA"}), Record("b", None, meta={"view": "AP"}), Record("c", None)]
    assert [row.id for row in choose_views(rows, ["ap", " PA"])] == ["a", "b"]
    with pytest.raises(DataError, match=r"No image is of the view `ll` .*`\(none\)` 1"):
        choose_views(rows, ["ll"])


def test_a_second_table_may_not_repeat_the_first() -> None:
    with pytest.raises(DataError, match=r"1 images are in the table and in the `test_table`: 1\.png"):
        add_test([Record("DOE/1.png", None)], [Record("DOE/1.png", None)])
    with pytest.raises(DataError, match="names a split `test`"):
        add_test([Record("a", None, split="test")], [Record("b", None)])


def test_the_line_says_how_many() -> None:
    rows = [Record("a", None, group="p"), Record("b", None, group="q")]
    assert describe_set("dicom", Path("d"), rows) == "Data: a folder of DICOM files (`d`), 2 images of 2 patients"
    assert describe_set("dicom", Path("d"), [Record("a", None)]).endswith("1 image, patients unknown")
