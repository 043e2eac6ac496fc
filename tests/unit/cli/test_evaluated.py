"""What `test` writes into `evaluation.json`; each part is tested on its own in tests/unit/evaluation."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_recipe.data import ToyData
from toy_recipe.module import ToyModule

Toy = Callable[..., Any]
PLAIN = ("--evaluation.latency_batch_sizes", "[]", "--baselines", "majority")


def _evaluation(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "test" / "evaluation.json").read_text())
    return found


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tested run on parts that are good or bad, from three lines."""
    from toy_recipe.cli import RECIPE

    from lightning_transfer.cli import main
    from tests.unit.cli.conftest import SMALL

    root = tmp_path_factory.mktemp("inspected")
    words = ["fit", "--config", SMALL, "--data.negative_class", "good", "--data.num_records", "400",
             "--data.test_fraction", "0.5", "--trainer.default_root_dir", str(root)]  # fmt: skip
    assert main(RECIPE, words) == 0
    [run] = (root / "toy").iterdir()
    assert (
        main(RECIPE, ["test", str(run), "--baselines", "majority", "--evaluation.latency_batch_sizes", "[1, 4]"]) == 0
    )
    return run


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "test" / "predictions.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_slices_are_those_of_the_predictions(inspected: Path) -> None:
    line = {record.id: record.meta["line"] for record in ToyData(num_records=400).read_records()}
    found = {item["value"]: item for item in _evaluation(inspected)["slices"]}
    assert set(found) == {"a", "b", "c"}
    for value, item in found.items():
        rows = [row for row in _rows(inspected) if line[row["id"]] == value]
        assert (item["column"], item["n"]) == ("line", len(rows))
        assert item["num_groups"] == len({row["group"] for row in rows})
        right = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
        assert item["metrics"]["accuracy"]["value"] == pytest.approx(right)
        good = [row for row in rows if row["label"] == "good"]
        rejected = sum(row["decision"] != "good" for row in good) / len(good)
        assert item["metrics"]["false_reject_rate"]["value"] == pytest.approx(rejected)
    scores = [item["metrics"]["macro_f1"]["value"] for item in _evaluation(inspected)["slices"]]
    assert scores == sorted(scores)


def test_curve_and_reliability_are_those_of_the_predictions(inspected: Path) -> None:
    found, rows = _evaluation(inspected), _rows(inspected)
    good, bad = ([float(row["score"]) for row in rows if row["label"] == label] for label in ("good", "bad"))
    for point in found["curve"][::20]:
        assert point["recall"] == pytest.approx(sum(score >= point["threshold"] for score in bad) / len(bad))
        assert point["false_reject_rate"] == pytest.approx(sum(s >= point["threshold"] for s in good) / len(good))
    assert len(found["curve"]) <= 200
    assert found["reliability"]["ece_after"] == pytest.approx(found["metrics"]["ece"]["value"])
    assert sum(item["n"] for item in found["reliability"]["before"]) == len(rows)


def test_latency_is_that_of_the_model_with_the_size_of_its_checkpoint(inspected: Path) -> None:
    found = _evaluation(inspected)["latency"]
    assert [row["batch_size"] for row in found["rows"]] == [1, 4]
    assert found["size_mb"] == pytest.approx((inspected / "model.ckpt").stat().st_size / 1e6)
    # Linear(3, 5) and Linear(5, 2).
    assert found["num_parameters"] == 32
    metrics = json.loads((inspected / "test" / "metrics.json").read_text())
    assert metrics["latency_p50_ms_batch_1"]["value"] == found["rows"][0]["p50_ms"]
    assert metrics["items_per_s_batch_4"]["value"] == found["rows"][1]["items_per_s"]


def test_the_file_names_its_headline_and_what_took_how_long(inspected: Path) -> None:
    found = _evaluation(inspected)
    assert found["headline"] == "macro_f1"
    assert set(found["seconds"]) == {"fit", "baseline_majority", "metrics", "slices", "latency"}
    assert all(seconds >= 0 for seconds in found["seconds"].values())
    assert (found["negative_class"], found["classes"]) == ("good", ["good", "bad"])


def test_slices_can_be_chosen_and_a_wrong_name_loses_no_result(toy: Toy, finished: Path) -> None:
    done = toy("test", finished, *PLAIN, "--evaluation.slices", "[lin]")
    assert done.code == 0, done.err
    assert "No slices by `lin`: there is no such column. Did you mean `line`? Columns: line." in done.out
    assert _evaluation(finished)["slices"] == []
    assert _evaluation(finished)["latency"] is None
    assert "Latency" not in done.out


def test_no_slices_are_none(toy: Toy, finished: Path) -> None:
    done = toy("test", finished, *PLAIN, "--evaluation.slices", "[]")
    assert done.code == 0, done.err
    assert "Slices" not in done.out
    assert _evaluation(finished)["slices_left_out"] == {}


def test_small_slices_and_latency_are_on_the_terminal(toy: Toy, finished: Path) -> None:
    done = toy("test", finished, "--baselines", "majority", "--evaluation.latency_batch_sizes", "[2]")
    assert "Slices: the worst of 3 by macro_f1, 3 of them small and not shown" in done.out
    assert "Latency on cpu" in done.out


def test_a_model_that_cannot_be_timed_loses_no_result(
    toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: ToyModule, input: Any) -> Any:
        raise RuntimeError("no bare forward")

    monkeypatch.setattr("lightning_transfer.cli.evaluated.measure_latency", lambda module, *a, **b: forward(module, a))
    with pytest.warns(UserWarning, match="Latency is left out; all else of this test is kept: RuntimeError: no bare"):
        done = toy("test", finished, "--baselines", "majority")
    assert done.code == 0, done.err
    assert _evaluation(finished)["latency"] is None
