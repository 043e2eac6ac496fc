"""Cards and schemas survive a trip through plain values, and through ``torch.save`` with ``weights_only=True``."""

import subprocess
import sys
from pathlib import Path

import torch

from lightning_transfer.types import BackboneCard, Calibration, Schema

CARD = BackboneCard(
    name="timm/resnet18",
    architecture="timm/resnet18",
    input_size=(3, 64, 64),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    architecture_config={"block": "basic", "layers": (1, 2)},
)
SCHEMA = Schema(
    task="multiclass",
    classes=("a", "b"),
    counts={"train": {"a": 1, "b": 2}},
    columns=("shift",),
    preprocessing={"kind": "image", "size": [64, 64]},
)


def test_plain_values_load_with_weights_only(tmp_path: Path) -> None:
    torch.save({"card": CARD.to_dict(), "schema": SCHEMA.to_dict()}, tmp_path / "plain.pt")
    loaded = torch.load(tmp_path / "plain.pt", weights_only=True)
    assert Schema.from_dict(loaded["schema"]) == SCHEMA
    card = BackboneCard.from_dict(loaded["card"])
    assert (card.mean, card.input_size) == (CARD.mean, CARD.input_size)
    assert card.to_dict() == CARD.to_dict()


def test_keys_of_a_later_version_are_ignored() -> None:
    assert Schema.from_dict({**SCHEMA.to_dict(), "from_the_future": 1}) == SCHEMA
    assert Calibration.from_dict({"temperature": 2.0, "from_the_future": 1}).temperature == 2.0


def test_types_and_errors_do_not_import_torch() -> None:
    code = "import sys, lightning_transfer.types, lightning_transfer.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
