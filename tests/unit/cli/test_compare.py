from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Toy = Callable[..., Any]


@pytest.fixture
def two(toy: Toy, finished: Path) -> tuple[Path, Path]:
    """Two tested runs; the second is the first with other decisions of its model."""
    options = ("--baselines", "majority", "--evaluation.latency_batch_sizes", "[]")
    assert toy("test", finished, *options).code == 0
    other = Path(shutil.copytree(finished, finished.with_name("other")))
    return finished, other


def test_two_runs_are_compared_and_written_where_asked(toy: Toy, two: tuple[Path, Path]) -> None:
    done = toy("compare", *two)
    assert done.code == 0, done.err
    assert f"minus {two[0].name}" in done.out
    assert "+0.000 [+0.000, +0.000]" in done.out
    assert sorted(path.name for path in Path.cwd().glob("*.json")) == []
    for words in ((*two, "--json", "found.json"), ("--json=again.json", *two)):
        done = toy("compare", *words)
        assert done.code == 0, done.err
    found, again = (json.loads(Path(name).read_text()) for name in ("found.json", "again.json"))
    assert found == again
    metrics = json.loads((two[0] / "test" / "metrics.json").read_text())
    assert found["runs"][1]["metrics"]["accuracy"] == metrics["accuracy"]
    assert found["runs"][1]["paired"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Expected two runs or more, got 0: `python -m toy_recipe compare RUN RUN"),
        (["a"], "got 1"),
        (["a", "b", "--json"], "`--json` needs a file behind it"),
        (["a", "b", "--jsn", "x"], "`compare` does not take `--jsn`"),
        (["a", "b", "--config", "x.yaml"], "takes no config and no checkpoint"),
        (["a", "b"], "There is no folder `a`"),
    ],
)
def test_what_cannot_be_compared_says_so(toy: Toy, words: list[str], message: str) -> None:
    done = toy("compare", *words)
    assert done.code == 2, done.out
    assert message in done.err


def test_a_file_is_not_written_over(toy: Toy, two: tuple[Path, Path]) -> None:
    Path("found.json").write_text("mine")
    done = toy("compare", *two, "--json", "found.json")
    assert done.code == 2
    assert "`found.json` exists and is not written over" in done.err
    assert Path("found.json").read_text() == "mine"


def test_help_answers_at_once(toy: Toy) -> None:
    done = toy("compare", "--help")
    assert done.code == 0
    assert "compare RUN RUN ... [--json FILE]" in done.out
