"""Which baselines a test gets, and from which features; what they say is tested in tests/unit/evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_recipe.data import ToyData

import lightning_transfer.backbones
import lightning_transfer.cli.baselines
import lightning_transfer.cli.frozen_features
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import BackboneCard

Toy = Callable[..., Any]


def _metrics(run: Path, test: str = "test") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / test / "metrics.json").read_text())
    return found


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """What stands for the pretrained backbone."""
    torch.manual_seed(5)
    backbone = nn.Linear(3, 6)
    card = BackboneCard(name="toy", architecture="toy")
    monkeypatch.setattr(lightning_transfer.backbones, "load_backbone", lambda *args, **options: (backbone, card))
    return backbone


def test_a_backbone_that_cannot_be_had_is_said_and_the_others_stay(
    toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyData, "plain_features", _plain, raising=False)
    with pytest.warns(UserWarning, match="baselines on the frozen backbone are left out: .*toy/linear"):
        done = toy("test", finished, "--evaluation.baselines", "[majority,plain,knn]")
    assert done.code == 0, done.err
    assert {"accuracy_of_majority", "accuracy_of_plain"} <= set(_metrics(finished))
    assert "accuracy_of_knn" not in _metrics(finished)


def test_no_baselines_are_none(toy: Toy, finished: Path) -> None:
    done = toy("test", finished, "--baselines", "[]")
    assert done.code == 0, done.err
    assert "model minus" not in done.out


def test_the_majority_class_needs_no_features(toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning_transfer.cli.frozen_features, "collect_features", None)
    done = toy("test", finished, "--baselines", "majority")
    assert done.code == 0, done.err
    assert "majority     +" in done.out


def _plain(data: ToyData, train: list[Any]) -> Callable[[list[Any]], np.ndarray]:
    """Learns the mean of the training records, and reads no label."""
    middle = np.mean([record.input.numpy() for record in train], axis=0)
    assert all(record.split == "train" for record in train)
    return lambda records: np.stack([record.input.numpy() - middle for record in records])


def test_plain_features_are_those_that_the_data_name(toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyData, "plain_features", _plain, raising=False)
    done = toy("test", finished, "--baselines", "plain")
    assert done.code == 0, done.err
    # Two clouds of points, 3 apart in each of 3 directions: the points themselves tell them apart.
    assert _metrics(finished)["accuracy_of_plain"]["value"] > 0.9
    assert "plain method, no network" in done.out


def test_data_without_plain_features_have_no_such_row_and_it_is_said(
    toy: Toy, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        done = toy("test", finished, "--baselines", "majority,plain")
    assert done.code == 0, done.err
    assert "accuracy_of_plain" not in _metrics(finished)
    assert "`plain` is left out: `ToyData` names no `plain_features`" in caplog.text + done.out + done.err


def test_part_of_the_test_split_is_seen_through_the_frozen_backbone_too(
    toy: Toy, finished: Path, frozen: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    fit = lightning_transfer.cli.baselines.fit_baselines

    def spy(train: Any, test: Any, *args: Any, **options: Any) -> Any:
        seen.update({"train": train, "test": test, **options})
        return fit(train, test, *args, **options)

    monkeypatch.setattr(lightning_transfer.cli.baselines, "fit_baselines", spy)
    words = ["--trainer.limit_test_batches", 2, "--data.batch_size", 3, "--baselines", "knn,linear_probe"]
    done = toy("test", finished, *words)
    assert done.code == 0, done.err
    points = {record.id: record.input for record in ToyData().read_records()}
    with (finished / "test" / "predictions.csv").open() as stream:
        ids = [line.split(",")[0] for line in stream][1:]
    assert len(ids) == 6
    expected = frozen(torch.stack([points[key] for key in ids]))
    torch.testing.assert_close(seen["test"].features, expected.detach())
    assert seen["calibration"].features.shape[1] == 6
    assert _metrics(finished)["accuracy_of_knn"]["n"] == 6


def test_rows_come_in_the_order_that_was_asked_for(toy: Toy, finished: Path, frozen: nn.Module) -> None:
    done = toy("test", finished, "--baselines", "knn,majority")
    assert done.code == 0, done.err
    names = [name for name in _metrics(finished) if name.startswith("accuracy_of_")]
    assert names == ["accuracy_of_knn", "accuracy_of_majority"]


def test_seconds_include_the_features(
    toy: Toy, finished: Path, frozen: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr(lightning_transfer.cli.baselines.time, "perf_counter", lambda: float(next(clock)))
    done = toy("test", finished, "--baselines", "knn", "--evaluation.latency_batch_sizes", "[]")
    assert done.code == 0, done.err
    seconds = json.loads((finished / "test" / "evaluation.json").read_text())["seconds"]["baseline_knn"]
    assert seconds >= 10.0  # five for the features, five for the fit, by this clock


def test_an_unknown_backbone_error_of_another_kind_is_not_swallowed(
    toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(lightning_transfer.backbones, "load_backbone", broken)
    assert not issubclass(RuntimeError, BackboneError)
    assert toy("test", finished, "--baselines", "knn").code == 1
