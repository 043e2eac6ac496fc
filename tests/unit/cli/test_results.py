import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Toy = Callable[..., Any]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_model_is_the_best_checkpoint_calibrated_and_without_training_state(trained: Path) -> None:
    [best] = (trained / "checkpoints").glob("best-*")
    before = torch.load(best, weights_only=True)
    after = torch.load(trained / "model.ckpt", weights_only=True)
    assert all(torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in before["state_dict"])
    assert "optimizer_states" in before
    assert not {"optimizer_states", "lr_schedulers", "callbacks"} & set(after)
    assert before["lightning_transfer"]["calibration"]["rule"] == "not fitted"
    assert after["lightning_transfer"]["calibration"]["n"] == 8
    best_score = json.loads((trained / "metrics.json").read_text())["val_loss"]["value"]
    state = next(value for key, value in before["callbacks"].items() if "RunCheckpoint" in key)
    assert best_score == pytest.approx(float(state["best_model_score"]))


def test_a_threshold_is_fitted_and_stored_where_the_data_name_a_negative_class(toy: Toy, small: str) -> None:
    done = toy("fit", "--config", small, "--data.negative_class", "good", "--evaluation.max_false_reject_rate", 0.25)
    calibration = torch.load(done.run / "model.ckpt", weights_only=True)["lightning_transfer"]["calibration"]
    assert calibration["threshold"] is not None
    assert "0.25 of `good`" in calibration["rule"]
    assert f"threshold {calibration['threshold']:.4g}" in done.out
    assert "<= 25%, chosen" in done.out
    assert "a rate of 0.01 needs at least 100 `good`" in done.out
    assert [point["max_false_reject_rate"] for point in calibration["points"]] == [0.25, 0.01, 0.02, 0.05]
    # Groups of four: the calibration split has two.
    assert calibration["points"][0]["num_groups"] == 2
    again = toy("predict", done.run)
    assert "<= 25%, chosen" in again.out
    rows = _rows(done.run / "predict" / "predictions.csv")
    assert float(rows[0]["threshold"]) == pytest.approx(calibration["threshold"], abs=1e-5)


@pytest.fixture
def inspected(toy: Toy, small: str) -> Path:
    """A run on parts that are good or bad."""
    options = ["--data.num_records", 240, "--data.calibration_fraction", 0.3, "--model.optimizer.init_args.lr", 0.0001]
    done = toy("fit", "--config", small, "--data.negative_class", "good", *options)
    assert done.code == 0, done.err
    run: Path = done.run
    return run


def test_the_test_applies_the_thresholds_of_the_calibration_split(toy: Toy, inspected: Path) -> None:
    calibration = torch.load(inspected / "model.ckpt", weights_only=True)["lightning_transfer"]["calibration"]
    done = toy("test", inspected)
    metrics = json.loads((inspected / "test" / "metrics.json").read_text())
    rows = _rows(inspected / "test" / "predictions.csv")
    good, bad = ([row for row in rows if row["label"] == label] for label in ("good", "bad"))
    assert len(calibration["points"]) == 3
    for point in calibration["points"]:
        at = f"{point['max_false_reject_rate']:g}"
        assert metrics[f"threshold_at_false_reject_{at}"]["value"] == point["threshold"]
        for name, part in (("recall_at_false_reject", bad), ("false_reject_rate_at", good)):
            share = sum(float(row["score"]) >= point["threshold"] for row in part) / len(part)
            assert metrics[f"{name}_{at}"]["value"] == pytest.approx(share)
            assert metrics[f"{name}_{at}"]["n"] == len(part)
    assert "Operating points: thresholds fitted on the calibration split" in done.out
    confusion = json.loads((inspected / "test" / "confusion.json").read_text())
    counted = [[sum(row["decision"] == to for row in part) for to in ("good", "bad")] for part in (good, bad)]
    assert confusion["decision"] == counted
    assert [list(row.values()) for row in _rows(inspected / "test" / "confusion.csv")] == [
        ["good", *map(str, counted[0])],
        ["bad", *map(str, counted[1])],
    ]
    escapes = _rows(inspected / "test" / "escapes.csv")
    expected = sorted((row for row in bad if row["decision"] == "good"), key=lambda row: float(row["score"]))
    assert escapes == expected
    assert len(escapes) == metrics["escapes"]["value"] > 0
    assert f"Escapes: {len(escapes)} of {len(bad)} defects let through" in done.out


def test_another_fitted_rate_decides_without_a_fit(toy: Toy, inspected: Path) -> None:
    points = torch.load(inspected / "model.ckpt", weights_only=True)["lightning_transfer"]["calibration"]["points"]
    cut = {point["max_false_reject_rate"]: point["threshold"] for point in points}
    assert cut[0.05] < cut[0.02]
    for verb in ("test", "predict"):
        done = toy(verb, inspected, "--evaluation.max_false_reject_rate", 0.02)
        assert done.code == 0, done.err
        rows = _rows(inspected / verb / "predictions.csv")
        assert {float(row["threshold"]) for row in rows} == {cut[0.02]}
        assert {row["decision"] for row in rows if float(row["score"]) >= cut[0.02]} == {"bad"}
        assert {row["decision"] for row in rows if float(row["score"]) < cut[0.02]} == {"good"}
        assert "<= 2%, chosen" in done.out
    done = toy("predict", inspected, "--evaluation.max_false_reject_rate", 0.1)
    assert done.code == 2
    assert "no threshold for the false-reject rate 0.1. Fitted: 0.05, 0.01, 0.02" in done.err
    assert not (inspected / "predict-2").exists()


def test_a_bare_checkpoint_keeps_the_rate_of_its_fit(toy: Toy, small: str, tmp_path: Path) -> None:
    done = toy("fit", "--config", small, "--data.negative_class", "good", "--evaluation.max_false_reject_rate", 0.25)
    moved = (done.run / "model.ckpt").rename(tmp_path / "moved.ckpt")
    again = toy("predict", moved)
    assert again.code == 0, again.err
    assert "<= 25%, chosen" in again.out


def test_each_prediction_names_its_nearest_training_example(toy: Toy, finished: Path) -> None:
    examples = torch.load(finished / "model.ckpt", weights_only=True)["lightning_transfer"]["training_examples"]
    assert examples["rule"] == f"all {len(examples['paths'])} training records"
    toy("predict", finished)
    rows = _rows(finished / "predict" / "predictions.csv")
    trained = [row for row in rows if row["id"] in examples["paths"]]
    assert len(trained) == len(examples["paths"]) > 40
    # What was trained on finds itself (or what five features cannot tell from it), the others find something else.
    assert sum(row["nearest_path"] == row["id"] for row in trained) > 0.9 * len(trained)
    assert max(float(row["nearest_distance"]) for row in trained) < 1e-3
    assert {row["nearest_label"] for row in trained if row["id"].endswith(("1", "3"))} == {"bad"}
    assert all(row["nearest_path"] in examples["paths"] for row in rows)
    toy("test", finished)
    for row in _rows(finished / "test" / "predictions.csv"):
        assert row["nearest_path"] in examples["paths"]
        assert row["nearest_path"] != row["id"]


@pytest.mark.parametrize(("limit", "kept"), [(10, 10), (0, None)])
def test_fewer_training_examples_are_kept_or_none(toy: Toy, small: str, limit: int, kept: int | None) -> None:
    done = toy("fit", "--config", small, "--evaluation.nearest_examples", limit)
    assert done.code == 0, done.err
    examples = torch.load(done.run / "model.ckpt", weights_only=True)["lightning_transfer"]["training_examples"]
    assert (examples and len(examples["paths"])) == kept
    if kept:
        assert Counter(examples["labels"]) == {"good": 5, "bad": 5}
        assert "Nearest training examples: from 10 of " in done.out
    toy("predict", done.run)
    rows = _rows(done.run / "predict" / "predictions.csv")
    assert {row["nearest_path"] != "" for row in rows} == {kept is not None}


def test_thresholds_fitted_on_validation_are_said(toy: Toy, small: str) -> None:
    with pytest.warns(UserWarning, match="fitted on validation, which also chose the checkpoint"):
        done = toy("fit", "--config", small, "--data.negative_class", "good", "--data.calibration_fraction", 0)
    assert done.code == 0, done.err
    assert "<= 5%, chosen" in done.out


def test_test_writes_metrics_predictions_and_a_table(toy: Toy, finished: Path) -> None:
    done = toy("test", finished)
    metrics = json.loads((finished / "test" / "metrics.json").read_text())
    rows = _rows(finished / "test" / "predictions.csv")
    assert len(rows) == 16
    accuracy = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    assert metrics["accuracy"]["value"] == pytest.approx(accuracy)
    assert {"value", "low", "high", "n", "reason"} <= set(metrics["macro_f1"])
    assert metrics["macro_f1_of_majority"]["value"] == pytest.approx(1 / 3)
    whole = json.loads((finished / "test" / "evaluation.json").read_text())
    assert whole["metrics"]["accuracy"] == metrics["accuracy"]
    assert whole["baselines"]["majority"]["macro_f1"] == metrics["macro_f1_of_majority"]
    assert "macro_f1" in done.out
    assert "model minus  macro_f1" in done.out
    assert "majority     +" in done.out


def test_part_of_a_split_gives_part_of_the_predictions(toy: Toy, finished: Path) -> None:
    done = toy("test", finished, "--trainer.limit_test_batches", 2, "--data.batch_size", 3)
    assert done.code == 0, done.err
    assert len(_rows(finished / "test" / "predictions.csv")) == 6


def test_predict_writes_a_row_for_each_record(toy: Toy, finished: Path) -> None:
    done = toy("predict", finished)
    rows = _rows(finished / "predict" / "predictions.csv")
    assert [row["id"] for row in rows] == [f"p{place}" for place in range(80)]
    assert str(finished / "predict" / "predictions.csv") in done.out


def test_without_any_split_to_calibrate_on_it_says_so(toy: Toy, small: str) -> None:
    options = ["--data.val_fraction", 0, "--data.calibration_fraction", 0, "--trainer.enable_checkpointing", "false"]
    with pytest.warns(UserWarning, match="temperature and threshold are not fitted"):
        done = toy("fit", "--config", small, *options)
    assert done.code == 0, done.err
