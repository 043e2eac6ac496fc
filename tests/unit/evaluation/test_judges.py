"""Values are checked against scikit-learn in `test_classification.py`; here: weights mean repeated records."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score, top_k_accuracy_score

from lightning_transfer.evaluation.judges import judge
from lightning_transfer.types import Calibration, OperatingPoint, Schema

POINT = OperatingPoint(0.05, 0.7, None, 0.0, (0.0, 1.0), 10, 10)
CASES = {
    "surface": (
        Schema(task="multiclass", classes=("crack", "free", "pit"), negative_class="free"),
        Calibration(0.8, 0.5, points=(POINT,)),
    ),
    "plain": (Schema(task="multiclass", classes=("a", "b", "c")), Calibration(0.8)),
    "binary": (Schema(task="binary", classes=("good", "bad")), Calibration(2.0, 0.5, points=(POINT,))),
    "multilabel": (Schema(task="multilabel", classes=("a", "b", "c")), Calibration(1.5)),
    "thresholds": (
        Schema(task="multilabel", classes=("a", "b", "c")),
        Calibration(1.5, label_thresholds=(0.3, 0.5, 0.8)),
    ),
    "levels": (Schema(task="multiclass", classes=("a/x", "a/y", "b", "c")), Calibration(0.8)),
}


def problem(schema, n=60):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, schema.num_logits)) * 2
    if schema.task == "multilabel":
        target = rng.integers(0, 2, (n, 3)).astype(float)
        target[rng.random((n, 3)) < 0.2] = np.nan
        target[np.isnan(target).all(axis=1), 0] = 1.0
        return logits, target
    return logits, rng.integers(0, schema.num_classes, n)


@pytest.mark.parametrize("name", CASES)
def test_a_weight_means_as_many_records(name):
    schema, calibration = CASES[name]
    logits, target = problem(schema)
    weights = np.random.default_rng(1).integers(0, 4, len(target))
    weighted = judge(logits, target, schema, calibration).statistic(weights[None].astype(float))
    chosen = np.repeat(np.arange(len(target)), weights)
    repeated = judge(logits[chosen], target[chosen], schema, calibration).statistic(np.ones((1, len(chosen))))
    assert list(weighted) == list(repeated)
    for key, value in weighted.items():
        assert value.shape == (1,)
        assert value[0] == pytest.approx(repeated[key][0]), key


@pytest.mark.parametrize("name", CASES)
def test_a_share_is_a_whole_number_of_its_records(name):
    schema, calibration = CASES[name]
    logits, target = problem(schema)
    found = judge(logits, target, schema, calibration)
    values = found.statistic(np.ones((1, len(target))))
    shares = found.shares - ({"accuracy"} if schema.task == "multilabel" else set())
    assert shares <= set(values)
    for key in shares:
        n = found.masks[key].sum() if key in found.masks else len(target)
        assert (values[key][0] * n) % 1 == pytest.approx(0, abs=1e-9) or (values[key][0] * n) % 1 == pytest.approx(1)
    assert ("escape_rate" in shares) == (calibration.threshold is not None)


def test_top_three_accuracy_is_that_of_scikit_learn_and_there_only_with_more_than_three_classes():
    rng = np.random.default_rng(2)
    logits, target = rng.normal(size=(200, 6)), rng.integers(0, 6, 200)
    schema = Schema(task="multiclass", classes=tuple("abcdef"))
    values = judge(logits, target, schema, Calibration(3.0)).statistic(np.ones((1, 200)))
    assert values["top_3_accuracy"][0] == pytest.approx(top_k_accuracy_score(target, logits, k=3))
    for name in ("surface", "plain", "binary", "multilabel"):
        few, calibration = CASES[name]
        found = judge(*problem(few), few, calibration)
        assert "top_3_accuracy" not in {*found.statistic(np.ones((1, 60))), *found.shares}


def test_equal_logits_are_ranked_in_the_order_of_the_classes():
    schema, target = Schema(task="multiclass", classes=tuple("abcd")), np.arange(4)
    values = judge(np.zeros((4, 4)), target, schema, Calibration()).statistic(np.ones((1, 4)))
    assert (values["accuracy"][0], values["top_3_accuracy"][0]) == (0.25, 0.75)


def test_labels_at_their_thresholds_stand_beside_those_at_one_half():
    schema, calibration = CASES["thresholds"]
    logits, target = problem(schema)
    found = judge(logits, target, schema, calibration)
    values = {name: value[0] for name, value in found.statistic(np.ones((1, 60))).items()}
    probs = 1 / (1 + np.exp(-logits / 1.5))
    known = ~np.isnan(target)
    truth = np.where(known, target, 0)
    for ending, single, cuts in (("", "", np.full(3, 0.5)), ("_at_thresholds", "_at_threshold", (0.3, 0.5, 0.8))):
        called = known & (probs >= np.asarray(cuts))
        for average in ("macro", "micro"):
            expected = f1_score(truth, called, average=average)
            assert values[f"{average}_f1{ending}"] == pytest.approx(expected), (average, ending)
        precision = precision_score(truth, called, average=None)
        recall = recall_score(truth, called, average=None)
        for place, name in enumerate(schema.classes):
            assert values[f"precision{single}_{name}"] == pytest.approx(precision[place])
            assert values[f"recall{single}_{name}"] == pytest.approx(recall[place])
            assert found.masks[f"precision{single}_{name}"].sum() == called[:, place].sum()
    without = judge(logits, target, schema, Calibration(1.5)).statistic(np.ones((1, 60)))
    assert not [name for name in without if "threshold" in name]
    assert without["macro_f1"][0] == values["macro_f1"]


def test_precision_is_over_what_was_taken_for_the_class():
    schema, calibration = CASES["plain"]
    logits, target = problem(schema)
    found = judge(logits, target, schema, calibration)
    values = found.statistic(np.ones((1, 60)))
    expected = precision_score(target, logits.argmax(axis=1), average=None)
    for place, name in enumerate(schema.classes):
        assert values[f"precision_{name}"][0] == pytest.approx(expected[place])
        assert found.masks[f"precision_{name}"].sum() == (logits.argmax(axis=1) == place).sum()
