"""Every config parses against the real signatures, and its header says what a user must know."""

from pathlib import Path

import pytest
import yaml

from lightning_transfer.cli import main
from recipes.nlp.cli import RECIPE

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "recipes" / "nlp" / "configs").glob("*.yaml"))


def test_the_folder_is_seen() -> None:
    names = {path.stem for path in CONFIGS}
    banking = {f"banking77_minilm_{kind}" for kind in ("probe", "gradual", "lora", "fewshot")}
    assert {"demo", "tickets_modernbert_gradual", "tickets_xlmr_lora", *banking} <= names


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RECIPE, ["fit", "--config", str(path), "--print_config"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["model"]["backbone"] == yaml.safe_load(path.read_text())["model"]["backbone"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_header_says_what_it_needs_and_measured(path: Path) -> None:
    header = path.read_text().split("\nseed_everything", maxsplit=1)[0]
    for word in ("Needs:", "Run:", "Override:", "Measured:"):
        assert word in header, f"the header of {path.name} lacks `{word}`"
    assert f"configs/{path.name}" in header
    assert "@" not in header
