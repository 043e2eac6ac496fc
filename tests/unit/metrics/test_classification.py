from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from lightning_transfer.metrics import (
    ClassCounts,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    class_counts,
    macro_auroc,
    macro_average_precision,
    macro_f1,
    mean_defined,
    micro_f1,
    precision_per_class,
    recall_per_class,
    weighted_mean,
)

ROWS, RECORDS, CLASSES = 12, 80, 4


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, (ROWS, RECORDS)).astype(float)
    target = rng.integers(0, CLASSES, RECORDS)
    preds = np.where(rng.random(RECORDS) < 0.5, target, rng.integers(0, CLASSES, RECORDS))
    # One decimal: many ties, within and across the classes.
    scores = np.round(rng.normal(size=(RECORDS, CLASSES)) + (target[:, None] == np.arange(CLASSES)), 1)
    return weights, target, preds, scores


def test_class_metrics_agree_with_sklearn_row_by_row(problem):
    weights, target, preds, _ = problem
    counts = class_counts(weights, preds, target, CLASSES)
    for row, weight in enumerate(weights):
        options = {"sample_weight": weight}
        assert accuracy(counts)[row] == pytest.approx(oracle.accuracy_score(target, preds, **options))
        assert balanced_accuracy(counts)[row] == pytest.approx(oracle.balanced_accuracy_score(target, preds, **options))
        expected = oracle.f1_score(target, preds, average="macro", **options)
        assert macro_f1(counts)[row] == pytest.approx(expected)
        np.testing.assert_allclose(
            recall_per_class(counts)[row], oracle.recall_score(target, preds, average=None, **options)
        )


def test_ranking_metrics_agree_with_sklearn_row_by_row(problem):
    weights, target, _, scores = problem
    positive, score = target == 1, scores[:, 1]
    for row, weight in enumerate(weights):
        ours = auroc(weights, score, positive)[row], average_precision(weights, score, positive)[row]
        # scikit-learn drops zero weights differently between versions; without them the answer is the same.
        kept = weight > 0
        options = {"sample_weight": weight[kept]}
        assert ours[0] == pytest.approx(oracle.roc_auc_score(positive[kept], score[kept], **options))
        assert ours[1] == pytest.approx(oracle.average_precision_score(positive[kept], score[kept], **options))


def test_macro_ranking_metrics_agree_with_sklearn(problem):
    weights, target, _, scores = problem
    one_hot = target[:, None] == np.arange(CLASSES)
    for row, weight in enumerate(weights[:4]):
        options = {"sample_weight": weight, "average": "macro"}
        assert macro_auroc(weights, scores, target)[row] == pytest.approx(
            oracle.roc_auc_score(one_hot, scores, **options)
        )
        assert macro_average_precision(weights, scores, target)[row] == pytest.approx(
            oracle.average_precision_score(one_hot, scores, **options)
        )


def test_auroc_is_the_share_of_ordered_pairs_with_ties_as_half(problem):
    _, target, _, scores = problem
    positive, score = target == 2, scores[:, 2]
    gaps = score[positive][:, None] - score[~positive][None, :]
    expected = ((gaps > 0) + 0.5 * (gaps == 0)).mean()
    assert auroc(np.ones((1, RECORDS)), score, positive)[0] == pytest.approx(expected, abs=1e-12)


def test_all_scores_equal_is_chance():
    positive = np.array([True, False, False, True, False])
    ones = np.ones((1, 5))
    assert auroc(ones, np.zeros(5), positive).tolist() == [0.5]
    assert average_precision(ones, np.zeros(5), positive).tolist() == [0.4]


def test_a_repeated_record_counts_as_its_weight(problem):
    _, target, preds, scores = problem
    weights = np.random.default_rng(3).integers(0, 3, (1, RECORDS)).astype(float)
    rows = np.repeat(np.arange(RECORDS), weights[0].astype(int))
    ones = np.ones((1, len(rows)))
    assert macro_f1(class_counts(weights, preds, target, CLASSES)) == pytest.approx(
        macro_f1(class_counts(ones, preds[rows], target[rows], CLASSES))
    )
    assert auroc(weights, scores[:, 0], target == 0) == pytest.approx(auroc(ones, scores[rows, 0], target[rows] == 0))


def test_macro_f1_runs_over_the_classes_of_the_target():
    target, preds = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    counts = class_counts(np.ones((1, 4)), preds, target, 4)
    expected = oracle.f1_score(target, preds, labels=[0, 1], average="macro")
    assert macro_f1(counts)[0] == pytest.approx(expected)
    # Not scikit-learn's default, which counts the class that was only predicted.
    assert macro_f1(counts)[0] != pytest.approx(oracle.f1_score(target, preds, average="macro"))
    # A class that is never found counts as 0.
    missed = class_counts(np.ones((1, 4)), np.zeros(4, dtype=int), target, 2)
    assert macro_f1(missed)[0] == pytest.approx(oracle.f1_score(target, np.zeros(4), average="macro"))


def test_undefined_is_nan_for_the_row_alone():
    target = np.array([0, 0, 1])
    weights = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    score = np.array([0.1, 0.2, 0.3])
    assert np.isnan(auroc(weights, score, target == 1)).tolist() == [False, True, True, True]
    assert np.isnan(average_precision(weights, score, target == 1)).tolist() == [False, True, False, True]
    counts = class_counts(weights, target, target, 2)
    assert np.isnan(recall_per_class(counts)[:, 1]).tolist() == [False, True, False, True]
    assert np.isnan(balanced_accuracy(counts)).tolist() == [False, False, False, True]
    assert np.isnan(macro_f1(counts)).tolist() == [False, False, False, True]
    assert np.isnan(accuracy(counts)).tolist() == [False, False, False, True]
    assert np.isnan(weighted_mean(weights, score)).tolist() == [False, False, False, True]


def test_mean_defined_leaves_out_what_is_undefined():
    columns = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(mean_defined(columns), [2.0, np.nan])


def test_precision_and_micro_f1_agree_with_sklearn():
    rng = np.random.default_rng(5)
    target, preds = rng.integers(0, 4, 90), rng.integers(0, 3, 90)
    counts = class_counts(np.ones((1, 90)), preds, target, 4)
    [precision] = precision_per_class(counts)
    assert precision[:3] == pytest.approx(oracle.precision_score(target, preds, average=None, zero_division=0)[:3])
    assert np.isnan(precision[3])
    assert micro_f1(counts) == pytest.approx(oracle.f1_score(target, preds, average="micro"))
    truth, called = rng.random((50, 3)) < 0.3, rng.random((50, 3)) < 0.5
    parts = (part.sum(axis=0, dtype=float)[None] for part in (truth & called, truth, called))
    assert micro_f1(ClassCounts(*parts)) == pytest.approx(oracle.f1_score(truth, called, average="micro"))
