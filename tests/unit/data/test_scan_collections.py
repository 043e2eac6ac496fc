"""MedMNIST's arrays and nnU-Net's folders, in the forms that they are published in."""

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data.scan_collections import read_medmnist, read_nnunet
from lightning_transfer.errors import DataError
from lightning_transfer.scans import ImagePart


def put(root: Path, *paths: str, content: bytes = b"x") -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def describe(root: Path, labels=None, ending: str = ".nii.gz", channels=None) -> Path:
    content = {"labels": labels or {"background": 0, "liver": 1, "tumour": 2}, "file_ending": ending,
               "channel_names": channels or {"0": "CT"}}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def arrays(path: Path, **more) -> Path:
    values = {}
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        values[f"{split}_images"] = np.zeros((count, 5, 5), dtype=np.uint8)
        values[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez(path, **{**values, **more})
    return path


def test_rows_of_arrays_keep_their_splits(tmp_path: Path) -> None:
    found = read_medmnist(arrays(tmp_path / "set.npz"), ["normal", "ill"])
    assert [record.split for record in found.records] == ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    assert found.records[1].input == ImagePart(str(tmp_path / "set.npz"), 1, "train_images")
    assert [record.label for record in found.records[:2]] == ["normal", "ill"]
    assert len({record.id for record in found.records}) == 9
    assert read_medmnist(tmp_path / "set.npz").classes == ("0", "1")


def test_arrays_of_several_labels(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=np.uint8)
    found = read_medmnist(
        arrays(tmp_path / "set.npz", train_labels=labels, val_labels=labels[:2], test_labels=labels[:3]),
        ["a", "b", "c"],
    )
    assert found.records[0].label == (0.0, 1.0, 1.0)
    assert found.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        ({"val_labels": np.zeros((1, 1))}, None, "2 `val_images` and 1 `val_labels`"),
        ({"train_labels": np.full((4, 1), 3)}, ["a", "b"], "has 4 classes, and `classes` names 2"),
        ({"more_images": np.zeros((1, 5, 5))}, None, "has `more_images` and no `more_labels`"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, change, classes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_medmnist(arrays(tmp_path / "set.npz", **change), classes)


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read the arrays of `set\.npz`"):
        read_medmnist(put(tmp_path, "set.npz") / "set.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"no array such as `train_images`\. Arrays in it: x"):
        read_medmnist(tmp_path / "other.npz")


def test_slices_of_cases_have_their_masks(tmp_path: Path) -> None:
    root = describe(put(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz",
                        "labelsTr/b.nii.gz"))  # fmt: skip
    found = read_nnunet(root, lambda path: (8, 8, 3))
    assert found.classes == ("background", "liver", "tumour")
    assert [(record.id, record.group) for record in found.records[:3]] == [("a#0", "a"), ("a#1", "a"), ("a#2", "a")]
    assert found.records[4].input == ImagePart(str(root / "imagesTr/b_0000.nii.gz"), 1)
    assert found.records[4].mask == ImagePart(str(root / "labelsTr/b.nii.gz"), 1)
    assert [record.id for record in read_nnunet(root, lambda path: (8, 8, 5), step=2).records[:3]] == [
        "a#0",
        "a#2",
        "a#4",
    ]
    with pytest.raises(DataError, match=r"`a` has an image of \(8, 8, 3\) and a mask of \(9, 8, 3\)"):
        read_nnunet(root, lambda path: (9 if "labels" in str(path) else 8, 8, 3))


def test_two_dimensional_cases_and_the_decathlon(tmp_path: Path) -> None:
    flat = describe(put(tmp_path / "flat", "imagesTr/a_0000.png", "labelsTr/a.png"), ending=".png")
    [record] = read_nnunet(flat, lambda path: (0, 0, 0)).records
    assert (record.id, record.input, record.mask) == ("a", flat / "imagesTr/a_0000.png", flat / "labelsTr/a.png")
    old = describe(put(tmp_path / "old", "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTr/._a.nii.gz"),
                   labels={"0": "background", "1": "heart"})  # fmt: skip
    found = read_nnunet(old, lambda path: (4, 4, 1))
    assert found.classes == ("background", "heart")
    assert [record.id for record in found.records] == ["a#0"]


def test_a_case_without_mask_can_be_skipped(tmp_path: Path) -> None:
    root = describe(put(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz"))
    with pytest.raises(DataError, match=r"The case `b` has no mask `labelsTr/b\.nii\.gz`"):
        read_nnunet(root, lambda path: (4, 4, 1))
    found = read_nnunet(root, lambda path: (4, 4, 1), on_bad_file="skip")
    assert [(skip.record.id, skip.position) for skip in found.skipped] == [("b", 1)]


@pytest.mark.parametrize(
    ("labels", "channels", "channel", "message"),
    [
        ({"background": 0, "whole": [1, 2]}, None, 0, "`whole` is a region"),
        ({"background": 0, "tumour": 2}, None, 0, r"labels are \[0, 2\]"),
        ({"background": "x"}, None, 0, "is `x`. Expected a whole number"),
        (None, {"0": "T1", "1": "T2"}, 2, "`channel` is 2"),
    ],
)
def test_descriptions_that_are_not_read(tmp_path: Path, labels, channels, channel: int, message: str) -> None:
    root = describe(put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"), labels, channels=channels)
    with pytest.raises(DataError, match=message):
        read_nnunet(root, lambda path: (4, 4, 1), channel=channel)
    (root / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="Cannot read nnU-Net's description"):
        read_nnunet(root, lambda path: (4, 4, 1))
