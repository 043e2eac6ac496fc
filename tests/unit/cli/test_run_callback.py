import json
from pathlib import Path

import yaml

from lightning_transfer.types import Schema


def test_the_folder_says_what_ran_where_and_on_what(trained: Path) -> None:
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["command"].startswith("fit --config")
    data = json.loads((trained / "data.json").read_text())
    assert data["num_records"] == {"train": 48, "val": 8, "calibration": 8, "test": 16}
    schema = Schema.from_dict(data)
    assert schema.classes == ("bad", "good")
    assert len(schema.fingerprint) > 20
    assert yaml.safe_load((trained / "config.yaml").read_text())["data"]["batch_size"] == 16


def test_a_fit_leaves_its_plan(trained: Path) -> None:
    plan = json.loads((trained / "plan.json").read_text())
    assert [group["name"] for group in plan["groups"]][-1] == "head"
    assert plan["learning_rates"][0]["lr"] == 0.05
    assert plan["stages"][0]["share"] == 1.0
    assert plan["max_epochs"] == 2
