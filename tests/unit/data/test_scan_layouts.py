"""Layouts of medical images are told apart, and each gives records with what it knows of patients and splits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data.scan_layouts import find_predict_layout, find_scan_layout, read_scan_folder
from lightning_transfer.errors import DataError

PREAMBLE = b"\0" * 128 + b"DICM"


def put(root: Path, *paths: str, content: bytes = b"x") -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def arrays(path: Path, **more) -> Path:
    values = {}
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        values[f"{split}_images"] = np.zeros((count, 5, 5), dtype=np.uint8)
        values[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez(path, **{**values, **more})
    return path


@pytest.mark.parametrize(
    ("paths", "content", "layout"),
    [
        (["a/1.png", "b/2.jpg"], b"x", "pictures"),
        (["a/1.dcm", "b/2.dcm"], b"x", "dicom"),
        (["a/IM0001", "b/IM0002"], PREAMBLE, "dicom"),
        (["a/1.nii.gz", "b/2.nii"], b"x", "nifti"),
        (["manifest.csv", "a/1.png"], b"path\na/1.png\n", "csv"),
        (["dataset.json", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], b"x", "nnunet"),
    ],
)
def test_layouts_are_told_apart(tmp_path: Path, paths, content: bytes, layout: str) -> None:
    assert find_scan_layout(put(tmp_path, *paths, content=content))[0] == layout


def test_arrays_and_a_named_table_and_a_wanted_layout(tmp_path: Path) -> None:
    file = arrays(tmp_path / "set.npz")
    assert find_scan_layout(file) == ("npz", file)
    assert find_scan_layout(tmp_path) == ("npz", file)
    put(tmp_path, "rows.csv", "a/1.png")
    assert find_scan_layout(tmp_path, "rows.csv") == ("csv", tmp_path / "rows.csv")
    assert find_scan_layout(tmp_path, wanted="pictures") == ("pictures", tmp_path)


@pytest.mark.parametrize(
    ("paths", "options", "error", "message"),
    [
        (["a/1.png", "a/2.dcm"], {}, DataError, r"several kinds \(.*Choose one by `layout`"),
        (["a/1.txt"], {}, DataError, "holds no images that are known"),
        (["a/1.png"], {"table": "rows.csv"}, DataError, "has no table `rows.csv`"),
        (["row.csv"], {"table": "rows.csv"}, DataError, "Did you mean `row.csv`"),
        (["a/1.png"], {"wanted": "nifty"}, ValueError, "Did you mean `nifti`"),
        (["a/1.png"], {"wanted": "dicom", "table": "x.csv"}, ValueError, "Leave one of them out"),
        (["a/1.png"], {"wanted": "npz"}, DataError, "holds 0 files of arrays"),
    ],
)
def test_what_is_no_layout(tmp_path: Path, paths, options, error, message: str) -> None:
    put(tmp_path, *paths)
    with pytest.raises(error, match=message):
        find_scan_layout(tmp_path, **options)


def test_new_images_need_no_table(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    assert find_predict_layout(tmp_path, "rows.csv", "auto")[0] == "pictures"
    assert find_predict_layout(tmp_path, None, "csv")[0] == "pictures"
    put(tmp_path, "rows.csv")
    assert find_predict_layout(tmp_path, "rows.csv", "csv") == ("csv", tmp_path / "rows.csv")


def test_folders_are_classes_or_splits(tmp_path: Path) -> None:
    put(tmp_path, "ill/p1/s1/1.png", "ill/p1/s2/2.png", "well/p2/3.png", "well/.hidden.png", "well/notes.txt")
    found = read_scan_folder(tmp_path, "pictures", patient_pattern="(p[0-9]+)/").records
    assert [(record.id, record.label, record.group) for record in found] == [
        ("ill/p1/s1/1.png", "ill", "p1"),
        ("ill/p1/s2/2.png", "ill", "p1"),
        ("well/p2/3.png", "well", "p2"),
    ]
    assert [record.label for record in read_scan_folder(tmp_path, "pictures", labelled=False).records] == [None] * 3
    with pytest.raises(DataError, match=r"finds nothing in the path of `3\.png`"):
        read_scan_folder(tmp_path, "pictures", study_pattern="(s[0-9])/")
    split = put(tmp_path / "split", "train/ill/1.nii.gz", "Test/well/2.nii")
    assert [(record.split, record.label) for record in read_scan_folder(split, "nifti").records] == [
        ("test", "well"),
        ("train", "ill"),
    ]
    lone = put(tmp_path / "lone", "1.png")
    with pytest.raises(DataError, match=r"`1\.png` lies in no class folder"):
        read_scan_folder(lone, "pictures")


def test_dicom_is_known_by_its_content_too(tmp_path: Path) -> None:
    put(tmp_path, "ill/IM1", "ill/2", content=PREAMBLE)
    put(tmp_path, "ill/README", "ill/3.dcm")
    assert [record.id for record in read_scan_folder(tmp_path, "dicom").records] == ["ill/2", "ill/3.dcm", "ill/IM1"]


def test_pictures_are_read_as_pictures(tmp_path: Path) -> None:
    (tmp_path / "ill").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "ill" / "a.PNG")
    assert find_scan_layout(tmp_path)[0] == "pictures"
    assert len(read_scan_folder(tmp_path, "pictures").records) == 1
