"""The configs whose weights come from a hub: one step each, with random weights, on images in their layout."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from recipes.vision.surfaces import write_surfaces
from tests.data.mvtec.make import write_mvtec
from tests.recipes.verbs import run_folder

CONFIGS = Path(__file__).parents[3] / "recipes" / "vision" / "configs"


def _folder_per_class(root: Path) -> Path:
    write_surfaces(root, num_lots=16, images_per_lot=5, size=32)
    for extra in ("manifest.csv", "surfaces.json"):
        (root / extra).unlink()
    return root


def _manifest(root: Path) -> Path:
    return write_surfaces(root, num_lots=16, images_per_lot=5, size=32)


CASES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "folder_convnext_tiny_gradual": (_folder_per_class, ["--data.group_pattern=(lot[0-9]+)_"]),
    "csv_dinov2_small_lp_ft": (_manifest, []),
    "mvtec_resnet18_gradual": (write_mvtec, ["--data.image_size=64"]),
}


def test_every_config_that_was_not_measured_is_tried_here() -> None:
    unmeasured = {path.stem for path in CONFIGS.glob("*.yaml") if "Measured: not measured" in path.read_text()}
    assert set(CASES) == {
        name for name in unmeasured if "a test runs one step" in (CONFIGS / f"{name}.yaml").read_text()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_step_runs_and_the_schedule_is_as_the_config_says(name: str, tmp_path: Path, run: Callable) -> None:
    write, words = CASES[name]
    root = write(tmp_path / "images")
    config = CONFIGS / f"{name}.yaml"
    code, printed = run(
        "fit", "--config", str(config), f"--data.root={root}", "--model.weights=random", "--data.batch_size=4",
        "--trainer.max_steps=1", "--trainer.limit_val_batches=2", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", *words,
    )  # fmt: skip
    assert code == 0, printed
    folder = run_folder(printed)
    assert (folder / "model.ckpt").is_file()
    stages = yaml.safe_load((folder / "plan.json").read_text())["stages"]
    values = yaml.safe_load(config.read_text())
    epochs = values["trainer"]["max_epochs"]
    assert stages[-1]["epoch"] < epochs, "the last stage never comes"
    assert values["model"]["scheduler"]["init_args"]["T_max"] == epochs
