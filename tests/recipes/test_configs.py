"""Every config of every recipe parses against the real signatures, and its header says what a user must know."""

from importlib import import_module
from pathlib import Path

import pytest
import yaml

from lightning_transfer.cli import Recipe, main

ROOT = Path(__file__).parents[2]
RECIPES = {
    file.parent.name: import_module(f"recipes.{file.parent.name}.cli").RECIPE
    for file in sorted((ROOT / "recipes").glob("*/cli.py"))
}
CONFIGS = [
    pytest.param(recipe, path, id=f"{name}-{path.stem}")
    for name, recipe in RECIPES.items()
    for path in sorted((ROOT / "recipes" / name / "configs").glob("*.yaml"))
]
NAMES = {
    "medical": {
        "chestxray_mobilenetv2_lp_ft",
        "chestxray_mobilenetv2_probe",
        "chexpert_csv_densenet121_gradual",
        "dicom_folder_convnext_gradual",
        "medmnist_npz_resnet18_lp_ft",
        "nifti_slices_resnet34_unet",
    },
    "nlp": {
        "demo",
        "tickets_modernbert_gradual",
        "tickets_xlmr_lora",
        *(f"banking77_minilm_{kind}" for kind in ("probe", "gradual", "lora", "fewshot")),
    },
    "speech": {
        "demo",
        "calls_embedded_classification",
        "commonvoice_wavlm_gradual",
        "nemo_manifest_wav2vec2_lp_ft",
        "whisper_small_lora",
        *(f"fsdd_embedded_{kind}" for kind in ("probe", "gradual", "full")),
    },
    "vision": {"demo", *(f"magnetic_tile_mobilenetv2_{kind}" for kind in ("probe", "lp_ft", "gradual"))},
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_folder_is_seen(name: str) -> None:
    found = {path.stem for path in RECIPES[name].configs.glob("*.yaml")}
    assert NAMES[name] <= found


@pytest.mark.parametrize(("recipe", "path"), CONFIGS)
def test_every_config_parses(recipe: Recipe, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(recipe, ["fit", "--config", str(path), "--print_config"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["model"]["backbone"] == yaml.safe_load(path.read_text())["model"]["backbone"]


@pytest.mark.parametrize(("recipe", "path"), CONFIGS)
def test_every_header_says_what_it_needs_and_measured(recipe: Recipe, path: Path) -> None:
    header = path.read_text().split("\nseed_everything", maxsplit=1)[0]
    for word in ("Needs:", "Run:", "Override:", "Measured:"):
        assert word in header, f"the header of {path.name} lacks `{word}`"
    assert f"{recipe.package.replace('.', '/')}/configs/{path.name}" in header
    assert "@" not in header
