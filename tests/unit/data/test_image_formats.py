from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_transfer.data.folders import is_mask_folder, records_from_files, records_from_folder
from lightning_transfer.data.image_formats import describe_format, find_format, find_mask_folder
from lightning_transfer.errors import DataError
from tests.data.mvtec.make import write_mvtec


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    return write_mvtec(tmp_path / "screw", good=4, test_good=2, defects={"cut": 2, "dent": 1})


def test_the_mvtec_layout(mvtec: Path) -> None:
    assert find_format(mvtec) == ("mvtec", mvtec)
    assert find_mask_folder(mvtec, "mvtec") == "ground_truth"
    records = records_from_folder(mvtec, mask_folder="ground_truth")
    found = {(r.id, r.label, r.split, r.mask and r.mask.relative_to(mvtec).as_posix()) for r in records}
    assert found == {
        *((f"train/good/{i:03d}.png", "good", "train", None) for i in range(4)),
        *((f"test/good/{i:03d}.png", "good", "test", None) for i in range(2)),
        *((f"test/cut/{i:03d}.png", "cut", "test", f"ground_truth/cut/{i:03d}_mask.png") for i in range(2)),
        ("test/dent/000.png", "dent", "test", "ground_truth/dent/000_mask.png"),
    }
    assert describe_format("mvtec", mvtec, records) == (
        f"Data: MVTec AD layout (train/good, test/DEFECT, ground_truth/DEFECT) in `{mvtec}`, 9 images, 3 masks"
    )


def test_masks_are_no_images_to_predict(mvtec: Path) -> None:
    assert len(records_from_files(mvtec, mask_folder="ground_truth")) == 9
    assert len(records_from_files(mvtec)) == 12


def test_a_root_of_several_categories(mvtec: Path) -> None:
    write_mvtec(mvtec.parent / "bottle", good=1, test_good=1, defects={})
    with pytest.raises(DataError, match=r"2 categories in MVTec AD layout: bottle, screw.*--data.root .*/bottle"):
        find_format(mvtec.parent)


def test_training_defects_are_no_mvtec_layout(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("train/good", "train/bad", "test/good", "test/bad"), count=1)
    assert find_format(root) == ("folder", root)
    with pytest.raises(DataError, match=r"not in MVTec AD layout: it needs `train/good`.*test, train"):
        find_format(root, wanted="mvtec")


def test_a_table_comes_before_folders_but_not_before_mvtec(make_folder: Callable[..., Path], mvtec: Path) -> None:
    root = make_folder(count=1)
    assert find_format(root) == ("folder", root)
    for place in (root, mvtec):
        (place / "manifest.csv").write_text("path,label\n")
    assert find_format(root) == ("csv", root / "manifest.csv")
    assert find_format(root, wanted="folder") == ("folder", root)
    assert find_format(mvtec) == ("mvtec", mvtec)
    assert find_format(mvtec, wanted="csv") == ("csv", mvtec / "manifest.csv")
    assert find_format(mvtec, "other.csv") == ("csv", mvtec / "other.csv")


def test_contradictions_and_missing_tables(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=1)
    (root / "parts.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"no `manifest.csv`. Tables in it: parts.csv. Name one as `manifest`"):
        find_format(root, wanted="csv")
    with pytest.raises(ValueError, match=r"`format` is `folder`, and `manifest` is `parts.csv`"):
        find_format(root, "parts.csv", "folder")
    with pytest.raises(ValueError, match=r"Unknown `format` `mvtek`. Did you mean `mvtec`\?"):
        find_format(root, wanted="mvtek")


def test_a_folder_of_masks_beside_the_classes(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("bad", "good", "masks/bad"), count=2)
    assert is_mask_folder(root, "masks")
    assert find_mask_folder(root, "folder") == "masks"
    records = records_from_folder(root, mask_folder="masks")
    assert {record.label for record in records} == {"bad", "good"}
    assert [r.mask and r.mask.relative_to(root).as_posix() for r in records] == [
        "masks/bad/lot0_0.png", "masks/bad/lot0_1.png", None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("folders", [("bad", "masks"), ("bad", "masks/other"), ("bad", "good")])
def test_a_class_may_be_called_masks(make_folder: Callable[..., Path], folders: tuple[str, ...]) -> None:
    assert find_mask_folder(make_folder(folders, count=1), "folder") is None


def test_masks_of_split_folders(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("train/bad", "train/good", "test/bad", "test/good", "masks/train/bad", "masks/test/bad"), 1)
    records = records_from_folder(root, mask_folder=find_mask_folder(root, "folder"))
    assert {r.id: r.mask and r.mask.relative_to(root).as_posix() for r in records} == {
        "train/bad/lot0_0.png": "masks/train/bad/lot0_0.png",
        "test/bad/lot0_0.png": "masks/test/bad/lot0_0.png",
        "train/good/lot0_0.png": None,
        "test/good/lot0_0.png": None,
    }


def test_masks_without_an_image_are_said(mvtec: Path) -> None:
    (mvtec / "ground_truth" / "cut" / "000_mask.png").rename(mvtec / "ground_truth" / "cut" / "zero_mask.png")
    with pytest.warns(UserWarning, match=r"1 of 3 masks have no image: ground_truth/cut/zero_mask.png"):
        records = records_from_folder(mvtec, mask_folder="ground_truth")
    assert [r.id for r in records if r.split == "test" and r.label != "good" and r.mask is None] == ["test/cut/000.png"]


def test_two_masks_of_one_image(mvtec: Path) -> None:
    (mvtec / "ground_truth" / "cut" / "000.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"000.png` and `.*000_mask.png` are masks of the same image|same image"):
        records_from_folder(mvtec, mask_folder="ground_truth")
