"""Oracle: the softmax written out."""

import numpy as np

from lightning_transfer.evaluation.finding_scores import finding_names, finding_scores
from lightning_transfer.types import Schema

LOGITS = np.random.default_rng(0).normal(size=(6, 3)) * 3


def test_classes_that_exclude_each_other_are_judged_against_the_rest() -> None:
    schema = Schema(task="multiclass", classes=("a", "none", "b"), negative_class="none")
    found = finding_scores(LOGITS, np.array([0, 1, 2, -1, 0, 2]), schema, 2.0)
    probs = np.exp(LOGITS / 2) / np.exp(LOGITS / 2).sum(1, keepdims=True)
    np.testing.assert_allclose(1 / (1 + np.exp(-found.log_odds)), probs[:, [0, 2]])
    np.testing.assert_array_equal(found.truth[:, 0], [1, 0, 0, np.nan, 1, 0])
    known, log_odds, positive = found.column(1)
    assert known.tolist() == [True, True, True, False, True, True]
    assert positive.tolist() == [False, False, True, False, True]
    np.testing.assert_array_equal(log_odds, found.log_odds[known, 1])


def test_sure_classes_stay_apart() -> None:
    schema = Schema(task="multiclass", classes=("a", "b"))
    found = finding_scores(np.array([[300.0, 0.0], [400.0, 0.0]]), np.array([0, 0]), schema, 1.0)
    assert found.names == ("a", "b")
    np.testing.assert_allclose(found.log_odds, [[300, -300], [400, -400]])


def test_labels_and_one_against_none_are_logits() -> None:
    several = Schema(task="multilabel", classes=("a", "b", "c"))
    target = np.array([[1.0, np.nan, 0.0]] * 6)
    found = finding_scores(LOGITS, target, several, 2.0)
    np.testing.assert_array_equal(found.log_odds, LOGITS / 2)
    np.testing.assert_array_equal(found.truth, target)
    one = Schema(task="binary", classes=("none", "covid"))
    assert finding_names(one) == ("covid",)
    found = finding_scores(LOGITS[:, :1], np.array([1, 0, -1, 1, 0, 0]), one, 0.5)
    np.testing.assert_array_equal(found.log_odds, LOGITS[:, :1] * 2)
    np.testing.assert_array_equal(found.truth[:, 0], [1, 0, np.nan, 1, 0, 0])
