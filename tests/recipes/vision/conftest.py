"""Small surfaces in the real folder format, and one fitted run that many tests read."""

import shutil
from pathlib import Path

import pytest

from lightning_transfer.cli import main
from recipes.vision.cli import RECIPE
from recipes.vision.surfaces import write_surfaces
from tests.recipes.verbs import Run, runner

SMALL = ["--model.head_norm=batchnorm", "--trainer.max_epochs=2", "--trainer.accelerator=cpu",
         "--trainer.enable_progress_bar=false", "--data.batch_size=16", "--seed_everything=0"]  # fmt: skip


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_surfaces(tmp_path_factory.mktemp("drawn") / "surfaces", num_lots=24, images_per_lot=8, size=32)


@pytest.fixture
def surfaces(drawn: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(drawn, tmp_path / "surfaces"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb in an empty folder; return its exit code and all that it printed."""
    return runner(RECIPE, tmp_path, monkeypatch, capsys)


def small_fit(root: Path, backbone: str = "timm/test_resnet", weights: str | None = "random") -> list[str]:
    words = ["fit", f"--model.backbone={backbone}", f"--data.root={root}", "--data.manifest=manifest.csv"]
    if weights is not None:
        words.append(f"--model.weights={weights}")
    return [*words, "--data.negative_class=good", *SMALL]


@pytest.fixture(scope="session")
def fitted(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in a folder of its own."""
    place = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(RECIPE, small_fit(drawn)) == 0
    (found,) = (place / "runs" / "vision").iterdir()
    return found
