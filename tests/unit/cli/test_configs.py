from collections.abc import Callable
from pathlib import Path
from typing import Any

Toy = Callable[..., Any]


def test_configs_are_listed_with_the_first_line_of_their_header(toy: Toy) -> None:
    done = toy("configs")
    assert done.code == 0
    assert "small    Two clouds of points; runs anywhere in a second." in done.out
    assert "gradual  The backbone opens after the first epoch." in done.out


def test_copy_makes_the_same_file_and_says_how_to_run_it(toy: Toy, small: str, tmp_path: Path) -> None:
    done = toy("copy", "small", "mine.yaml")
    assert done.code == 0
    assert (tmp_path / "mine.yaml").read_bytes() == Path(small).read_bytes()
    assert "fit --config mine.yaml" in done.out


def test_copy_into_a_folder_keeps_the_name(toy: Toy, tmp_path: Path) -> None:
    assert toy("copy", "small.yaml", ".").code == 0
    assert (tmp_path / "small.yaml").is_file()


def test_copy_overwrites_nothing(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("precious")
    done = toy("copy", "small", "mine.yaml")
    assert done.code == 2
    assert "`mine.yaml` exists and is not overwritten" in done.err
    assert (tmp_path / "mine.yaml").read_text() == "precious"


def test_wrong_words_of_copy(toy: Toy) -> None:
    assert "No config `smal`. Did you mean `small`?" in toy("copy", "smal", "x.yaml").err
    assert "got ['small']" in toy("copy", "small").err
    assert "No folder `no`" in toy("copy", "small", "no/x.yaml").err
    assert "does not take `c`" in toy("copy", "a", "b", "c").err
    assert "does not take `more`" in toy("configs", "more").err
