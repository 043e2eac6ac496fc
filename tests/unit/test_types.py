"""Cards and schemas survive a trip through plain values, and through ``torch.save`` with ``weights_only=True``."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_transfer.types import BackboneCard, Calibration, OperatingPoint, Schema

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


POINTS = (
    OperatingPoint(0.05, 0.4, (0.3, 0.5), 0.04, (0.01, 0.09), 50, 20, "at most 0.05"),
    OperatingPoint(0.01, 0.7, None, 0.0, (0.0, 0.07), 50, 1, "at most 0.01", "too few"),
)
CALIBRATION = Calibration(1.5, 0.4, "at most 0.05", 80, POINTS)


def test_a_calibration_survives_a_checkpoint(tmp_path: Path) -> None:
    torch.save(CALIBRATION.to_dict(), tmp_path / "plain.pt")
    assert Calibration.from_dict(torch.load(tmp_path / "plain.pt", weights_only=True)) == CALIBRATION
    point = {**CALIBRATION.to_dict()["points"][0], "from_the_future": 1}
    assert Calibration.from_dict({**CALIBRATION.to_dict(), "points": [point]}).points == POINTS[:1]


def test_a_calibration_of_version_0_1_still_loads() -> None:
    old = {"temperature": 1.5, "threshold": 0.4, "rule": "at most 0.05", "n": 80}
    assert Calibration.from_dict(old) == Calibration(1.5, 0.4, "at most 0.05", 80)


def test_another_fitted_rate_can_decide() -> None:
    other = CALIBRATION.at(0.01)
    assert (other.threshold, other.rule, other.points) == (0.7, "at most 0.01", (POINTS[1], POINTS[0]))
    assert (other.temperature, other.n) == (1.5, 80)
    assert other.at(0.05) == CALIBRATION == CALIBRATION.at(0.05)
    with pytest.raises(ValueError, match=r"false-reject rate 0\.03\. Fitted: 0\.05, 0\.01\. .*fit again"):
        CALIBRATION.at(0.03)
    with pytest.raises(ValueError, match=r"Fitted: none \(no negative class\)"):
        Calibration(rule="no negative class").at(0.05)


def test_types_and_errors_do_not_import_torch() -> None:
    code = "import sys, lightning_transfer.types, lightning_transfer.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_label_thresholds_survive_a_checkpoint(tmp_path: Path) -> None:
    calibration = Calibration(1.5, label_thresholds=(0.25, 0.5), label_rules=("3 of 40 have it", "none of 40"))
    torch.save(calibration.to_dict(), tmp_path / "c.pt")
    assert Calibration.from_dict(torch.load(tmp_path / "c.pt", weights_only=True)) == calibration
    assert Calibration.from_dict({"temperature": 2.0}).label_thresholds == ()
