import os
from pathlib import Path

import pytest

from lightning_transfer.data.paths import check_folder, resolve_inside
from lightning_transfer.errors import DataError


def test_a_folder_comes_back_with_links_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert check_folder(tmp_path / "link") == (tmp_path / "real").resolve()


def test_a_wrong_root_names_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "magnetic_tile").mkdir()
    with pytest.raises(DataError, match=r"magnetic_tiles` does not exist.*Did you mean `magnetic_tile`"):
        check_folder(tmp_path / "magnetic_tiles")


def test_a_root_whose_parent_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither does .*nowhere`"):
        check_folder(tmp_path / "nowhere" / "images")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("path\n")
    with pytest.raises(DataError, match=r"data.csv` is a file"):
        check_folder(tmp_path / "data.csv")


def test_a_path_inside_need_not_exist(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    assert resolve_inside(root, "a/../b.png", "row 2") == root / "b.png"


@pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "/etc/passwd"])
def test_a_path_that_leaves_the_root(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match=f"row 7: `{path}` leaves the root"):
        resolve_inside(tmp_path.resolve(), path, "row 7")


def test_a_sibling_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data2/x.png` leaves the root"):
        resolve_inside((tmp_path / "data").resolve(), "../data2/x.png", "row 2")


def test_a_link_that_leaves_the_root(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    os.symlink(tmp_path / "secret.png", tmp_path / "data" / "a.png")
    with pytest.raises(DataError, match=r"`a.png` leaves the root"):
        resolve_inside((tmp_path / "data").resolve(), "a.png", "row 2")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3: .*is not a usable path"):
        resolve_inside(tmp_path.resolve(), "a\0b.png", "row 3")
