import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_transfer.data.folders import records_from_files, records_from_folder
from lightning_transfer.errors import DataError


def test_each_folder_is_a_class(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("good", "bad"), count=3)
    records = records_from_folder(root)
    expected = sorted(f"{name}/lot{i // 2}_{i}.png" for name in ("bad", "good") for i in range(3))
    assert [record.id for record in records] == expected
    assert [record.label for record in records] == ["bad"] * 3 + ["good"] * 3
    assert all(record.input == root.resolve() / record.id and record.split is None for record in records)


def test_files_count_at_any_depth(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("a", "b"), count=1)
    (root / "a" / "lot" / "deep").mkdir(parents=True)
    (root / "a" / "lot0_0.png").rename(root / "a" / "lot" / "deep" / "x.PNG")
    assert [record.id for record in records_from_folder(root)] == ["a/lot/deep/x.PNG", "b/lot0_0.png"]


def test_split_folders_give_the_split(make_folder: Callable[..., Path]) -> None:
    for split in ("train", "validation", "test"):
        root = make_folder((f"{split}/a", f"{split}/b"), count=1)
    records = records_from_folder(root)
    assert {(r.split, r.label) for r in records} == {(s, c) for s in ("train", "val", "test") for c in "ab"}


def test_split_folders_beside_others_are_an_error(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("train/good", "test/good", "ground_truth/bad"), count=1)
    with pytest.raises(DataError, match=r"mixes split folders \(test, train\) with others: ground_truth"):
        records_from_folder(root)


def test_a_class_may_be_called_train(make_folder: Callable[..., Path]) -> None:
    assert {r.label for r in records_from_folder(make_folder(("bus", "train"), count=1))} == {"bus", "train"}


def test_hidden_and_other_files_are_listed(make_folder: Callable[..., Path], caplog) -> None:
    root = make_folder(("a", "b"), count=2)
    for name in (".DS_Store", "readme.md", "a/Thumbs.db", "a/.hidden.png"):
        (root / name).write_bytes(b"x")
    (root / "a" / ".cache").mkdir()
    (root / ".git").mkdir()
    os.symlink(root / "b", root / "a" / "loop")
    ignored: list[str] = []
    assert len(records_from_folder(root, ignored=ignored)) == 4
    assert sorted(ignored) == [".DS_Store", ".git", "a/.cache", "a/.hidden.png", "a/Thumbs.db", "a/loop", "readme.md"]
    with caplog.at_level(logging.INFO):
        records_from_folder(root)
    assert "7 files are ignored" in caplog.text


def test_groups_from_the_path(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("a", "b"), count=3)
    assert [r.group for r in records_from_folder(root, group_pattern=r"/(lot\d+)_")] == ["lot0", "lot0", "lot1"] * 2
    with pytest.raises(DataError, match=r"`tile\(\\d\)` finds no group in `a/lot0_0.png`"):
        records_from_folder(root, group_pattern=r"tile(\d)")
    with pytest.raises(DataError, match="parentheses"):
        records_from_folder(root, group_pattern="lot")


def test_an_empty_class_folder(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("a", "b"), count=1)
    (root / "c").mkdir()
    (root / "c" / "note.txt").write_text("")
    with pytest.raises(DataError, match=r"class folder `.*/c` holds no file"):
        records_from_folder(root)


def test_an_empty_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders, and no such files"):
        records_from_folder(tmp_path)


def test_images_without_class_folders(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("a",), count=1)
    with pytest.raises(DataError, match=r"no class folders, only files: lot0_0.png"):
        records_from_folder(root / "a")


def test_a_link_to_a_file_outside(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(("a", "b"), count=1)
    (tmp_path / "outside.png").write_bytes(b"x")
    os.symlink(tmp_path / "outside.png", root / "b" / "link.png")
    with pytest.raises(DataError, match=r"b/link.png` leaves the root"):
        records_from_folder(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("a", "b"), count=1)
    (root / "b").chmod(0)
    try:
        with pytest.raises(DataError, match=r"Cannot list the folder `.*/b`"):
            records_from_folder(root)
    finally:
        (root / "b").chmod(0o755)


def test_files_for_prediction_have_no_label(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("a", "b"), count=1)
    records = records_from_files(root)
    assert [(r.id, r.label, r.split) for r in records] == [("a/lot0_0.png", None, None), ("b/lot0_0.png", None, None)]


def test_no_files_for_prediction(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(DataError, match=r"holds no file that ends in .*png"):
        records_from_files(tmp_path)
