import json
from pathlib import Path

import pytest

from lightning_transfer.files import atomic, write_folder, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model.ckpt"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError, match="surrogates"), atomic(target) as part:
        part.write_text("half" * 100_000 + "\ud800", encoding="utf-8")
    assert target.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["model.ckpt"]


def test_the_new_file_replaces_the_old_one_and_is_ordinary(tmp_path: Path) -> None:
    write_text(tmp_path / "sub" / "a.txt", "one")
    write_text(tmp_path / "sub" / "a.txt", "zwölf")
    assert (tmp_path / "sub" / "a.txt").read_text(encoding="utf-8") == "zwölf"
    (tmp_path / "plain").touch()
    assert (tmp_path / "sub" / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": [1.5, float("inf")], "z": (1, "ü")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"x": None, "y": [1.5, None], "z": [1, "ü"]}


def test_a_folder_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    def write(part: Path) -> None:
        part.mkdir()
        (part / "half").touch()
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        write_folder(tmp_path / "deep" / "set", write, lambda: False)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    def write(part: Path) -> None:
        part.mkdir()
        (part / "a").write_text("new")

    target = tmp_path / "set"
    target.mkdir()  # empty: replaced
    write_folder(target, write, (target / "a").is_file)
    (target / "a").write_text("old")
    write_folder(target, write, (target / "a").is_file)
    assert (target / "a").read_text() == "old"
    with pytest.raises(OSError, match=r"not empty|exist"):
        write_folder(target, write, lambda: False)
    assert [item.name for item in tmp_path.iterdir()] == ["set"]
