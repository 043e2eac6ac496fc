import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_transfer.cli import cost
from lightning_transfer.cli.cost import CostCallback

Toy = Callable[..., Any]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    return now


def run(callback: CostCallback, clock: list[float], folder: Path, epochs: dict[int, float]) -> dict[str, Any]:
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(is_global_zero=True, default_root_dir=str(folder))
    callback.on_train_start(trainer, module)
    for epoch, took in epochs.items():
        clock[0] += took
        trainer.current_epoch = epoch
        callback.on_train_epoch_end(trainer, module)
    found: dict[str, Any] = json.loads((folder / "cost.json").read_text())
    return found


def test_each_epoch_counts_from_the_end_of_the_one_before(tmp_path: Path, clock: list[float]) -> None:
    found = run(CostCallback(), clock, tmp_path, {0: 2.0, 1: 3.0})
    assert found["epochs"] == [{"epoch": 0, "seconds": 2.0}, {"epoch": 1, "seconds": 3.0}]
    assert found["device"] == "cpu"
    assert found["peak_memory_kind"] == "whole process"
    # A process that has imported torch holds more than that, and this machine less than a terabyte.
    assert 50 < found["peak_memory_mb"] < 1e6


def test_a_resumed_fit_keeps_what_came_before_and_counts_an_epoch_once(tmp_path: Path, clock: list[float]) -> None:
    first = CostCallback()
    run(first, clock, tmp_path, {0: 2.0, 1: 3.0})
    second = CostCallback()
    second.load_state_dict(first.state_dict())
    found = run(second, clock, tmp_path, {1: 7.0, 2: 4.0})
    assert [(item["epoch"], item["seconds"]) for item in found["epochs"]] == [(0, 2.0), (1, 7.0), (2, 4.0)]
    assert len(first.epochs) == 2


def test_a_fit_leaves_the_seconds_of_its_epochs(trained: Path) -> None:
    found = json.loads((trained / "cost.json").read_text())
    fit = json.loads((trained / "metrics.json").read_text())["fit_seconds"]["value"]
    assert [item["epoch"] for item in found["epochs"]] == list(range(len(found["epochs"])))
    assert 0 < sum(item["seconds"] for item in found["epochs"]) < fit
