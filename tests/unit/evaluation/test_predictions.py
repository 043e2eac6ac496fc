"""The numbers of predictions, read back from the table. Oracle: scipy's softmax and logistic function."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from lightning_transfer.data.predictions import prediction_columns, write_predictions
from lightning_transfer.evaluation.predictions import predictions
from lightning_transfer.types import Calibration, Neighbour, Record, Schema

SCHEMA = Schema(task="multiclass", classes=("free", "crack", "fray"), negative_class="free")
RECORDS = [
    Record("a.png", Path("/data/a.png"), "crack"),
    Record("b.png", Path("/data/b.png")),
    Record("=c", None, "free"),
]
LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.5, 0.0, 0.4], [-1.0, 0.0, 3.0]])


def _write(path: Path, records, logits: torch.Tensor, schema: Schema, calibration=None, **options) -> Path:
    calibration = calibration or Calibration()
    found = predictions(logits, [record.id for record in records], schema, calibration)
    return write_predictions(path, records, found, schema, calibration, **options)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_columns_and_numbers_of_a_multiclass_table(tmp_path: Path) -> None:
    calibration = Calibration(temperature=2.0, threshold=0.6)
    rows = _read(_write(tmp_path / "p.csv", RECORDS, LOGITS, SCHEMA, calibration))
    assert list(rows[0]) == prediction_columns(SCHEMA.classes)
    expected = softmax(LOGITS.double().numpy() / 2, axis=1)
    found = [[float(row[f"probability_{name}"]) for name in SCHEMA.classes] for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose([float(row["score"]) for row in rows], 1 - expected[:, 0], atol=1e-12)
    assert [row["predicted"] for row in rows] == ["free", "free", "fray"]
    # Row 1 scores 0.59 and 0.65 of the others together: above the threshold the best of them decides.
    assert [row["decision"] for row in rows] == ["free", "fray", "fray"]
    assert {row["threshold"] for row in rows} == {"0.6"}
    assert [row["label"] for row in rows] == ["crack", "", "free"]
    assert [row["id"] for row in rows] == ["a.png", "b.png", "'=c"]
    assert rows[0]["path"] == "/data/a.png"


def test_the_nearest_example_stands_in_its_row_and_no_formula_runs(tmp_path: Path) -> None:
    logits = LOGITS.clone()
    logits[1, 0] = float("inf")
    nearest = [Neighbour("=cmd|'/C calc'!A0", "@crack", 0.125), Neighbour("/train/b.png", "free", 0.5), None]
    found = predictions(logits, [record.id for record in RECORDS], SCHEMA, Calibration(), nearest)
    assert [item.nearest for item in found] == [nearest[0], None, None]  # undefined rows have none
    rows = _read(write_predictions(tmp_path / "p.csv", RECORDS, found, SCHEMA))
    columns = ("nearest_path", "nearest_label", "nearest_distance")
    assert [[row[name] for name in columns] for row in rows] == [
        ["'=cmd|'/C calc'!A0", "'@crack", "0.125"],
        ["", "", ""],
        ["", "", ""],
    ]
    assert rows[1]["reason"] == "the logits are not finite"
    with pytest.raises(ValueError, match="zip"):
        predictions(LOGITS, ["a", "b", "c"], SCHEMA, Calibration(), nearest[:2])


def test_multilabel_has_nearest_examples_too() -> None:
    schema = Schema(task="multilabel", classes=("x", "y"))
    near = Neighbour("a.png", "x|y", 0.25)
    [found] = predictions(torch.zeros(1, 2), ["1"], schema, Calibration(), [near])
    assert found.nearest == near


def test_a_score_at_the_threshold_is_above_it(tmp_path: Path) -> None:
    output = LOGITS[:1]
    score = float(_read(_write(tmp_path / "a.csv", RECORDS[:1], output, SCHEMA))[0]["score"])
    for threshold, decision in ((score, "crack"), (np.nextafter(score, 1), "free")):
        path = _write(tmp_path / f"{decision}.csv", RECORDS[:1], output, SCHEMA, Calibration(threshold=threshold))
        assert _read(path)[0]["decision"] == decision


@pytest.mark.parametrize("flat", [True, False])
def test_binary(tmp_path: Path, flat: bool) -> None:
    logits = torch.tensor([0.0, -2.0, 3.0])
    schema = Schema(task="binary", classes=("good", "bad"))
    rows = _read(_write(tmp_path / "p.csv", RECORDS, (logits if flat else logits[:, None]), schema))
    np.testing.assert_allclose([float(row["score"]) for row in rows], expit([0.0, -2.0, 3.0]), atol=1e-7)
    assert [row["predicted"] for row in rows] == ["bad", "good", "bad"]
    assert [row["decision"] for row in rows] == ["bad", "good", "bad"]
    assert rows[0]["threshold"] == ""


def test_multilabel(tmp_path: Path) -> None:
    schema = Schema(task="multilabel", classes=("x", "y"))
    records = [Record("1", None, (1.0, None)), Record("2", None, (0.0, 1.0))]
    rows = _read(_write(tmp_path / "p.csv", records, torch.tensor([[1.0, 2.0], [-1.0, -3.0]]), schema))
    assert [row["decision"] for row in rows] == ["x|y", ""]
    assert [row["label"] for row in rows] == ["1|?", "0|1"]
    assert float(rows[1]["probability_y"]) == pytest.approx(expit(-3.0), abs=1e-6)


def test_without_a_negative_class_there_is_no_score(tmp_path: Path) -> None:
    schema = Schema(task="multiclass", classes=("a", "b", "c"))
    rows = _read(_write(tmp_path / "p.csv", RECORDS, LOGITS, schema, Calibration(threshold=0.9)))
    assert [row["decision"] for row in rows] == ["a", "a", "c"]
    assert {row["score"] for row in rows} == {""}


def test_a_tiny_score_is_not_rounded_to_zero(tmp_path: Path) -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0]])
    rows = _read(_write(tmp_path / "p.csv", RECORDS[:1], logits, SCHEMA))
    assert float(rows[0]["score"]) == pytest.approx(2 * math.exp(-100))


def test_logits_that_are_not_finite_are_undefined(tmp_path: Path) -> None:
    logits = LOGITS.clone()
    logits[1, 2] = float("nan")
    rows = _read(_write(tmp_path / "p.csv", RECORDS, logits, SCHEMA))
    assert [row["decision"] for row in rows] == ["free", "undefined", "fray"]
    assert rows[1]["reason"] == "the logits are not finite"
    assert rows[1]["probability_free"] == ""


def test_labels_are_decided_at_their_own_thresholds_and_predicted_at_one_half() -> None:
    schema = Schema(task="multilabel", classes=("x", "y"))
    calibration = Calibration(label_thresholds=(0.2, 0.9))
    [row] = predictions(torch.tensor([[-1.0, 2.0]]), ["a"], schema, calibration)
    assert (row.predicted, row.decision) == (("y",), ("x",))
    assert row.probabilities == pytest.approx({"x": expit(-1.0), "y": expit(2.0)})
