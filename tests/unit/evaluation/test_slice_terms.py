from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from lightning_transfer.evaluation.slice_terms import slice_terms
from lightning_transfer.types import Calibration, Schema

RNG = np.random.default_rng(0)
THREE = Schema(task="multiclass", classes=("good", "pit", "dent"), negative_class="good")


def test_sums_give_the_metrics_of_scikit_learn() -> None:
    logits, target = RNG.normal(size=(200, 3)), RNG.integers(0, 3, 200)
    calibration = Calibration(temperature=1.7, threshold=0.6)
    terms = slice_terms(logits, target, THREE, calibration, "macro_f1")
    found = terms.read(terms.values.sum(axis=0, keepdims=True))
    preds = logits.argmax(axis=1)
    score = 1 - np.exp(logits / 1.7)[:, 0] / np.exp(logits / 1.7).sum(axis=1)
    expected = {
        "macro_f1": f1_score(target, preds, average="macro"),
        "accuracy": accuracy_score(target, preds),
        "recall_at_threshold": (score[target > 0] >= 0.6).mean(),
        "false_reject_rate": (score[target == 0] >= 0.6).mean(),
    }
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected)
    assert terms.names == tuple(expected)
    ranks, is_positive = terms.ranking
    assert roc_auc_score(is_positive, ranks) == pytest.approx(roc_auc_score(target > 0, score))
    assert slice_terms(logits, target, Schema("multiclass", THREE.classes), calibration, "macro_f1").ranking is None


def test_macro_f1_among_some_classes_leaves_the_others_out_but_counts_their_mistakes() -> None:
    logits, target = RNG.normal(size=(200, 3)), RNG.integers(0, 3, 200)
    terms = slice_terms(logits, target, THREE, Calibration(), "macro_f1")
    found = terms.among(terms.values.sum(axis=0, keepdims=True), np.array([True, False, True]))
    assert found == pytest.approx(f1_score(target, logits.argmax(axis=1), average="macro", labels=[0, 2]))


def test_several_labels_count_known_cells_only() -> None:
    schema = Schema(task="multilabel", classes=("x", "y"))
    logits = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    target = np.array([[1.0, 0.0], [0.0, np.nan], [1.0, 1.0], [np.nan, 0.0]])
    terms = slice_terms(logits, target, schema, Calibration(), "macro_f1")
    found = terms.read(terms.values.sum(axis=0, keepdims=True))
    # x: 1 of 2 found, 1 called wrongly; y: 1 of 1 found, 1 called wrongly.
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["accuracy"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert terms.classes_of(np.array([True, False, False, True])).tolist() == [True, False]


def test_multilabel_by_auroc_and_what_its_thresholds_miss() -> None:
    rng = np.random.default_rng(1)
    logits, target = rng.normal(size=(50, 2)), (rng.random((50, 2)) < 0.4).astype(float)
    target[rng.random((50, 2)) < 0.2] = np.nan
    schema = Schema(task="multilabel", classes=("x", "y"))
    calibration = Calibration(2.0, label_thresholds=(0.3, 0.6))
    terms = slice_terms(logits, target, schema, calibration, "auroc")
    assert terms.names == (
        "auroc", "accuracy", "mean_recall_at_thresholds", "mean_false_positive_rate_at_thresholds",
    )  # fmt: skip
    assert [name for name, _, _ in terms.findings] == ["x", "y"]
    found = terms.read(terms.values.sum(0, keepdims=True))
    probs = 1 / (1 + np.exp(-logits / 2))
    recalls, alarms = [], []
    for place, cut in enumerate((0.3, 0.6)):
        called = probs[:, place] >= cut
        recalls.append(called[target[:, place] == 1].mean())
        alarms.append(called[target[:, place] == 0].mean())
    assert found["mean_recall_at_thresholds"][0] == pytest.approx(np.mean(recalls))
    assert found["mean_false_positive_rate_at_thresholds"][0] == pytest.approx(np.mean(alarms))
    assert "macro_f1" not in found
    assert slice_terms(logits, target, schema, Calibration(), "macro_f1").findings == ()
