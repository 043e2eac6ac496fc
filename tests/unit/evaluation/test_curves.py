from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_curve

from lightning_transfer.evaluation import Outputs, evaluate_classification, measure_reliability, threshold_curve
from lightning_transfer.types import Calibration, Record, Schema

RNG = np.random.default_rng(0)
BINARY = Schema(task="binary", classes=("good", "bad"))
THREE = Schema(task="multiclass", classes=("good", "pit", "dent"), negative_class="good")


def _outputs(logits: np.ndarray, target: np.ndarray) -> Outputs:
    return Outputs(torch.tensor(logits), torch.zeros(len(target), 1), torch.tensor(target), torch.arange(len(target)))


def _three(n: int = 400) -> Outputs:
    target = RNG.integers(0, 3, n)
    return _outputs(RNG.normal(size=(n, 3)) + 2 * np.eye(3)[target], target)


def test_bins_are_those_of_scikit_learn_and_the_errors_those_of_the_metrics() -> None:
    outputs, calibration = _three(), Calibration(temperature=2.5)
    found = measure_reliability(outputs, THREE, calibration)
    logits = outputs.logits.double().numpy()
    for temperature, bins in ((1.0, found.before), (2.5, found.after)):
        shares = np.exp(logits / temperature) / np.exp(logits / temperature).sum(axis=1, keepdims=True)
        right = logits.argmax(axis=1) == outputs.target.numpy()
        accuracy, confidence = calibration_curve(right, shares.max(axis=1), n_bins=15)
        assert [item.accuracy for item in bins] == pytest.approx(accuracy.tolist())
        assert [item.confidence for item in bins] == pytest.approx(confidence.tolist())
        assert sum(item.n for item in bins) == 400
        assert all(item.low < item.confidence <= item.high for item in bins)
    records = [Record(id=str(place), input=None) for place in range(400)]
    result = evaluate_classification(outputs, records, THREE, calibration, n_resamples=2)
    assert found.ece_after == pytest.approx(result.metrics["ece"].value)
    assert found.brier_after == pytest.approx(result.metrics["brier"].value)
    assert found.ece_before != pytest.approx(found.ece_after, rel=0.1)


def test_the_brier_score_of_two_classes_is_twice_that_of_scikit_learn() -> None:
    target = RNG.integers(0, 2, 100)
    logits = RNG.normal(size=100) + target
    found = measure_reliability(_outputs(logits[:, None], target.astype(float)), BINARY, Calibration(temperature=0.5))
    for temperature, value in ((1.0, found.brier_before), (0.5, found.brier_after)):
        assert value == pytest.approx(2 * brier_score_loss(target, 1 / (1 + np.exp(-logits / temperature))))


def test_several_labels_count_each_known_cell() -> None:
    schema = Schema(task="multilabel", classes=("x", "y"))
    outputs = _outputs(np.array([[2.0, -1.0], [-2.0, 1.0]]), np.array([[1.0, np.nan], [1.0, 1.0]]))
    found = measure_reliability(outputs, schema, Calibration())
    assert sum(item.n for item in found.after) == 3
    high, low = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))
    bins = sorted((item.n, item.confidence, item.accuracy) for item in found.after)
    assert bins == [(1, pytest.approx(low), 1.0), (2, pytest.approx(high), 0.5)]
    assert found.brier_after == pytest.approx(((1 - high) ** 2 + high**2 + (1 - low) ** 2) / 3)


def test_nothing_is_measured_without_labels() -> None:
    outputs = _outputs(np.zeros((2, 3)), np.array([-1, -1]))
    assert measure_reliability(outputs, THREE, Calibration()) is None
    assert threshold_curve(outputs, THREE, Calibration()) == ()


def test_the_curve_is_the_roc_of_scikit_learn_at_every_score() -> None:
    outputs = _three(150)
    curve = threshold_curve(outputs, THREE, Calibration(temperature=1.5))
    logits = outputs.logits.double().numpy() / 1.5
    score = 1 - np.exp(logits[:, 0]) / np.exp(logits).sum(axis=1)
    rate, recall, cut = roc_curve(outputs.target.numpy() > 0, score, drop_intermediate=False)
    assert len(curve) == 150
    assert [point.false_reject_rate for point in curve] == pytest.approx(rate[1:].tolist())
    assert [point.recall for point in curve] == pytest.approx(recall[1:].tolist())
    assert [point.threshold for point in curve] == pytest.approx(cut[1:].tolist())


def test_equal_scores_fall_together() -> None:
    outputs = _outputs(np.array([[0.0], [0.0], [1.0]]), np.array([0.0, 1.0, 1.0]))
    curve = threshold_curve(outputs, BINARY, Calibration())
    assert [(point.false_reject_rate, point.recall) for point in curve] == [(0.0, 0.5), (1.0, 1.0)]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    outputs = _three(1000)
    whole, thin = (threshold_curve(outputs, THREE, Calibration(), max_points=most) for most in (1000, 200))
    assert len(thin) == 200
    assert set(thin) <= set(whole)
    assert (thin[0], thin[-1]) == (whole[0], whole[-1])


@pytest.mark.parametrize("target", [[0, 0], [1, 2]])
def test_there_is_no_curve_of_one_side_alone(target: list[int]) -> None:
    assert threshold_curve(_outputs(np.zeros((2, 3)), np.array(target)), THREE, Calibration()) == ()
    no_negative = Schema(task="multiclass", classes=("a", "b", "c"))
    assert threshold_curve(_three(), no_negative, Calibration()) == ()


def test_reliability_is_plain_json() -> None:
    values = measure_reliability(_three(), THREE, Calibration()).to_dict()
    assert json.loads(json.dumps(values, allow_nan=False))["before"][0]["n"] == values["before"][0]["n"]
    assert set(values["after"][0]) == {"low", "high", "confidence", "accuracy", "n"}
