"""When `test` probes for shortcuts, on which records, and what it leaves; the numbers are tested in evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy_recipe.data import ToyData

import lightning_transfer.backbones
import lightning_transfer.cli.shortcuts
from lightning_transfer.types import BackboneCard, Record

Toy = Callable[..., Any]
PLAIN = ("--evaluation.latency_batch_sizes", "[]", "--baselines", "majority")


def _evaluation(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "test" / "evaluation.json").read_text())
    return found


@pytest.fixture
def confounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that is the label but for every tenth pair, moves the points, and a frozen backbone that sees them."""
    read = ToyData.read_records

    def records(data: ToyData) -> list[Record]:
        found = []
        for place, record in enumerate(read(data)):
            swapped = place // 2 % 10 == 0
            site = "north" if (record.label == "bad") != swapped else "south"
            point = record.input + torch.tensor([0.0, 0.0, 8.0 if site == "north" else -8.0])
            group, meta = f"g{place // 2}-{record.label}", {**record.meta, "site": site}
            found.append(replace(record, input=point, group=group, meta=meta))
        return found

    torch.manual_seed(5)
    card = BackboneCard(name="toy", architecture="toy")
    monkeypatch.setattr(lightning_transfer.backbones, "load_backbone", lambda *a, **b: (nn.Identity(), card))
    monkeypatch.setattr(ToyData, "read_records", records)


@pytest.mark.usefixtures("confounded")
def test_both_features_are_probed_and_all_that_follows_says_it(toy: Toy, small: str) -> None:
    fitted = toy("fit", "--config", small, "--data.test_fraction", 0.4, "--data.num_records", 160)
    assert fitted.code == 0, fitted.err
    done = toy("test", fitted.run, *PLAIN)
    assert done.code == 0, done.err
    found = _evaluation(fitted.run)["shortcuts"]
    rows = {item["features"]: item for item in found["shortcuts"]}
    assert set(rows) == {"frozen", "adapted"}
    # Frozen features: of all splits; adapted ones of the test alone.
    assert rows["frozen"]["told"]["n"] == 160
    assert rows["adapted"]["told"]["n"] == _evaluation(fitted.run)["n"] < 100
    assert rows["frozen"]["explains"]
    assert "may explain the label" in done.out
    metrics = json.loads((fitted.run / "test" / "metrics.json").read_text())
    assert metrics["shortcut_site_alone_on_frozen"] == rows["frozen"]["alone"]
    page = json.loads((fitted.run / "report.json").read_text())
    assert page["verdict"]["notes"][0].startswith("A shortcut may explain the score: the ")
    assert "shortcuts" in page["sections"]


@pytest.mark.usefixtures("confounded")
def test_a_probe_that_fails_loses_no_result(toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise RuntimeError("gone")

    monkeypatch.setattr(lightning_transfer.cli.shortcuts, "evaluate_shortcuts", fails)
    with pytest.warns(UserWarning, match="shortcut probe is left out; all else of this test is kept: RuntimeError: go"):
        done = toy("test", finished, *PLAIN)
    assert done.code == 0, done.err
    assert _evaluation(finished)["shortcuts"] is None


def test_without_such_a_column_nothing_is_loaded_or_said(
    toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lightning_transfer.backbones, "load_backbone", None)
    done = toy("test", finished, *PLAIN)
    assert done.code == 0, done.err
    assert _evaluation(finished)["shortcuts"] is None
    assert "hortcut" not in done.out


def test_a_wrong_name_is_answered(toy: Toy, finished: Path) -> None:
    with pytest.warns(UserWarning, match="frozen backbone are left out"):
        done = toy("test", finished, *PLAIN, "--evaluation.shortcut_columns", "[lin]")
    assert done.code == 0, done.err
    assert "Not probed: lin: there is no such column. Did you mean `line`?" in done.out
