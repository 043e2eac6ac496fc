from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import Outputs
from lightning_transfer.evaluation.scores import (
    decided_classes,
    decision_score,
    labels_of,
    negative_index,
    predicted_classes,
)
from lightning_transfer.types import Calibration, Schema

SURFACE = Schema(task="multiclass", classes=("pit", "free", "crack"), negative_class="free")
BINARY = Schema(task="binary", classes=("good", "bad"))
MULTI = Schema(task="multilabel", classes=("a", "b"))


def outputs(logits, target):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    target = None if target is None else torch.as_tensor(target)
    return Outputs(logits, torch.zeros(len(logits), 1), target, torch.arange(len(logits)) + 10)


def test_negative_class_by_task():
    assert negative_index(SURFACE) == 1
    assert negative_index(BINARY) == 0
    assert negative_index(Schema(task="binary", classes=("bad", "good"), negative_class="good")) == 1
    assert negative_index(Schema(task="multiclass", classes=("a", "b"))) is None
    assert negative_index(MULTI) is None


def test_score_is_one_minus_the_negative_class():
    logits = np.random.default_rng(0).normal(size=(50, 3)) * 3
    score, log_odds = decision_score(logits, SURFACE, 2.0)
    probs = torch.softmax(torch.tensor(logits) / 2.0, dim=1).numpy()
    np.testing.assert_allclose(score, 1 - probs[:, 1], atol=1e-12)
    np.testing.assert_allclose(log_odds, np.log(score / (1 - score)), rtol=1e-6)


def test_binary_score_is_the_other_class():
    logits = np.array([[2.0], [-1.0]])
    np.testing.assert_allclose(decision_score(logits, BINARY, 1.0)[0], torch.sigmoid(torch.tensor(logits[:, 0])))
    swapped = Schema(task="binary", classes=("bad", "good"), negative_class="good")
    np.testing.assert_allclose(decision_score(logits, swapped, 1.0)[0], torch.sigmoid(-torch.tensor(logits[:, 0])))


def test_log_odds_tell_apart_what_rounds_to_one():
    score, log_odds = decision_score(np.array([[60.0, 0.0, 0.0], [90.0, 0.0, 0.0]]), SURFACE, 1.0)
    assert score[0] == score[1] == 1.0
    assert log_odds[0] < log_odds[1]


def test_score_needs_a_negative_class():
    with pytest.raises(ValueError, match="a, b"):
        decision_score(np.zeros((1, 2)), MULTI, 1.0)


def test_predicted_classes_by_task():
    assert predicted_classes(np.array([[0.0, 2.0, 1.0]]), SURFACE).tolist() == [1]
    assert predicted_classes(np.array([[0.5], [-0.5]]), BINARY).tolist() == [1, 0]
    assert predicted_classes(np.array([[0.5, -0.5]]), MULTI).tolist() == [[1, 0]]


def test_labels_by_task_with_missing_ones():
    assert labels_of(outputs(np.zeros((2, 3)), [2, -1]), SURFACE).tolist() == [2, -1]
    assert labels_of(outputs(np.zeros((3, 1)), [1.0, float("nan"), 0.0]), BINARY).tolist() == [1, -1, 0]
    assert labels_of(outputs(np.zeros((1, 1)), [[1.0]]), BINARY).tolist() == [1]
    found = labels_of(outputs(np.zeros((1, 2)), [[1.0, float("nan")]]), MULTI)
    np.testing.assert_array_equal(found, [[1.0, np.nan]])


@pytest.mark.parametrize(
    ("logits", "target", "match"),
    [
        (np.zeros((2, 3)), None, "2 records have no labels"),
        (np.zeros((2, 5)), [0, 1], r"\(2, 5\).*3 classes \(pit, free, crack\)"),
        ([[0.0, 0.0, 0.0], [0.0, float("nan"), 0.0]], [0, 1], "1 of 2 records.*index 11"),
        (np.zeros((2, 3)), [0, 3], "number 3"),
    ],
)
def test_outputs_that_do_not_fit(logits, target, match):
    with pytest.raises(TransferError, match=match):
        labels_of(outputs(logits, target), SURFACE)


@pytest.mark.parametrize(
    "schema", [SURFACE, BINARY, Schema(task="binary", classes=("bad", "good"), negative_class="good")]
)
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_threshold_cuts_the_score_after_temperature(schema, temperature):
    """Brute force, record by record, from torch's probabilities."""
    logits = np.random.default_rng(0).normal(size=(80, schema.num_logits)) * 3
    scaled = torch.tensor(logits) / temperature
    if schema.task == "binary":
        scaled = torch.cat([torch.zeros_like(scaled), scaled], dim=1)
    probs = torch.softmax(scaled, dim=1)
    negative = negative_index(schema)
    decided = decided_classes(logits, schema, Calibration(temperature, 0.35))
    for row, found in zip(probs, decided, strict=True):
        others = row.clone()
        others[negative] = -1
        assert found == (int(others.argmax()) if 1 - row[negative] >= 0.35 else negative)
    assert len(set(decided.tolist())) == schema.num_classes


def test_without_threshold_or_negative_class_arg_max_decides():
    logits = np.random.default_rng(0).normal(size=(20, 3))
    assert np.array_equal(decided_classes(logits, SURFACE, Calibration()), logits.argmax(1))
    plain = Schema(task="multiclass", classes=("a", "b", "c"))
    assert np.array_equal(decided_classes(logits, plain, Calibration(threshold=0.1)), logits.argmax(1))
    assert decided_classes(logits[:, :2], MULTI, Calibration(threshold=0.99)).tolist() == (logits[:, :2] >= 0).tolist()


def test_a_temperature_can_turn_the_order_of_two_records_round():
    """Why the threshold is fitted after it: one defect against two halves of one."""
    logits = np.array([[1.0, 2.0, -9.0], [0.5, 2.0, 0.5]])
    sharp, flat = (decision_score(logits, SURFACE, temperature)[0] for temperature in (0.2, 1.0))
    assert sharp[0] > sharp[1]
    assert flat[0] < flat[1]


def test_each_label_is_called_at_its_own_threshold_after_temperature():
    logits = np.random.default_rng(3).normal(size=(200, 2)) * 3
    calibration = Calibration(temperature=2.0, label_thresholds=(0.2, 0.8))
    probs = torch.sigmoid(torch.tensor(logits) / 2.0).numpy()
    decided = decided_classes(logits, MULTI, calibration)
    np.testing.assert_array_equal(decided, probs >= np.array([0.2, 0.8]))
    assert (decided != predicted_classes(logits, MULTI)).any(axis=0).all()
    # A probability at the threshold is called, and without stored thresholds one half decides.
    at = Calibration(2.0, label_thresholds=tuple(1 / (1 + np.exp(-logits[0] / 2.0))))
    assert decided_classes(logits[:1], MULTI, at).tolist() == [[1, 1]]
    np.testing.assert_array_equal(decided_classes(logits, MULTI, Calibration(2.0)), predicted_classes(logits, MULTI))
    with pytest.raises(TransferError, match="3 label thresholds, and there are 2 classes: a, b"):
        decided_classes(logits, MULTI, Calibration(label_thresholds=(0.1, 0.2, 0.3)))
