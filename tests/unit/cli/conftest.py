"""Run the toy recipe's commands in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lightning_transfer.cli import Recipe, main

HERE = Path(__file__).parent
CONFIGS = HERE / "toy_recipe" / "configs"
SMALL = str(CONFIGS / "small.yaml")

if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run folder that the command printed."""
        return Path(self.out.rsplit("Run folder: ", 1)[1].splitlines()[0])


def runner(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return what runs words of a recipe, and returns what was printed."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        code = main(recipe, [str(word) for word in words])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run words of the toy recipe in an empty folder."""
    from toy_recipe.cli import RECIPE

    monkeypatch.chdir(tmp_path)
    return runner(RECIPE, capsys)


@pytest.fixture
def small() -> str:
    """Path of the toy's config."""
    return SMALL


@pytest.fixture
def gradual() -> str:
    """Path of the toy's second config, which composes with the first."""
    return str(CONFIGS / "gradual.yaml")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made once."""
    from toy_recipe.cli import RECIPE

    from lightning_transfer.cli import main

    root = tmp_path_factory.mktemp("trained") / "runs"
    assert main(RECIPE, ["fit", "--config", SMALL, "--trainer.default_root_dir", str(root)]) == 0
    [run] = (root / "toy").iterdir()
    return run


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to write into."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "toy" / trained.name))
