from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve, roc_curve

from lightning_transfer.metrics import (
    threshold_at_false_positive_rate,
    threshold_at_precision,
    threshold_at_recall,
    threshold_expected_f1,
    threshold_max_f1,
)


def problem(seed, ties):
    rng = np.random.default_rng(seed)
    positive = rng.random(120) < 0.3
    scores = rng.normal(size=120) + positive
    return (np.round(scores, 1) if ties else scores), positive


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_fpr", [0.0, 0.01, 0.05, 0.29, 1.0])
def test_rate_gives_the_best_point_of_sklearns_curve(seed, ties, max_fpr):
    scores, positive = problem(seed, ties)
    cut = threshold_at_false_positive_rate(scores, positive, max_fpr)
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    allowed = fpr <= max_fpr + 1e-9
    assert cut.recall == pytest.approx(tpr[allowed].max())
    called = scores >= cut.value
    assert cut.false_positive_rate == pytest.approx(called[~positive].mean())
    assert cut.false_positive_rate <= max_fpr + 1e-9
    assert cut.recall == pytest.approx(called[positive].mean())
    assert (cut.n, cut.num_positive) == (120, positive.sum())


def test_a_record_at_the_threshold_is_called():
    # All accepted: the threshold is the lowest score itself.
    cut = threshold_at_false_positive_rate([0.2, 0.5], [False, True], 1.0)
    assert cut.value == 0.2
    assert cut.false_positive_rate == 1.0


def test_share_of_negatives_is_not_lost_to_rounding():
    # 0.29 * 100 is 28.999999999999996.
    cut = threshold_at_false_positive_rate(np.arange(101.0), np.arange(101) == 100, 0.29)
    assert cut.false_positive_rate == pytest.approx(0.29)


def test_ties_of_negatives_are_let_through_together_or_not_at_all():
    scores, positive = [0.1, 0.5, 0.5, 0.5, 0.9], [False, False, False, False, True]
    assert threshold_at_false_positive_rate(scores, positive, 0.5).false_positive_rate == 0.0
    assert threshold_at_false_positive_rate(scores, positive, 0.75).false_positive_rate == 0.75


def test_positive_tied_with_a_forbidden_negative_is_lost():
    cut = threshold_at_false_positive_rate([0.5, 0.5, 0.9], [False, True, True], 0.0)
    assert cut.recall == 0.5
    assert cut.value == pytest.approx(0.7)


def test_highest_score_is_a_forbidden_negative():
    cut = threshold_at_false_positive_rate([0.1, 1.0], [True, False], 0.0)
    assert cut.value > 1.0
    assert np.isfinite(cut.value)
    assert (cut.recall, cut.false_positive_rate, cut.precision) == (0.0, 0.0, None)


def test_without_positives_the_rate_still_decides():
    cut = threshold_at_false_positive_rate([0.1, 0.2, 0.3, 0.4], [False] * 4, 0.25)
    assert cut.value == pytest.approx(0.35)
    assert cut.recall is None


def test_neighbouring_floats_are_told_apart():
    low = 0.5
    high = np.nextafter(low, 1)
    cut = threshold_at_false_positive_rate([low, high], [False, True], 0.0)
    assert (cut.false_positive_rate, cut.recall) == (0.0, 1.0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("min_precision", [0.4, 0.6])
def test_precision_gives_the_highest_recall_of_sklearns_curve(seed, ties, min_precision):
    scores, positive = problem(seed, ties)
    cut = threshold_at_precision(scores, positive, min_precision)
    precision, recall, _ = precision_recall_curve(positive, scores)
    assert cut.recall == pytest.approx(recall[:-1][precision[:-1] >= min_precision].max())
    assert cut.precision >= min_precision
    assert cut.precision == pytest.approx(positive[scores >= cut.value].mean())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_max_f1_is_the_best_of_all_cuts(seed, ties):
    scores, positive = problem(seed, ties)
    cut = threshold_max_f1(scores, positive)
    best = max(f1_score(positive, scores >= value) for value in np.unique(scores))
    assert f1_score(positive, scores >= cut.value) == pytest.approx(best)


def test_impossible_precision_names_the_best():
    with pytest.raises(ValueError, match=r"precision of 0\.9; the best is 0\.500"):
        threshold_at_precision([0.1, 0.9], [True, False], 0.9)


@pytest.mark.parametrize(
    ("function", "arguments", "match"),
    [
        (threshold_at_false_positive_rate, ([0.1], [False], 1.5), "got 1.5"),
        (threshold_at_false_positive_rate, ([0.1], [False], float("nan")), "got nan"),
        (threshold_at_false_positive_rate, ([0.1, 0.2], [True, True], 0.1), "all 2 records are positive"),
        (threshold_at_false_positive_rate, ([], [], 0.1), "got 0 scores"),
        (threshold_at_false_positive_rate, ([0.1, np.inf], [False, True], 0.1), "inf at position 1"),
        (threshold_at_false_positive_rate, ([0.1, 0.2], [False], 0.1), r"\(2,\), \(1,\)"),
        (threshold_at_precision, ([0.1], [True], 0.0), "got 0.0"),
        (threshold_at_precision, ([0.1], [False], 0.5), "none of the 1 records"),
        (threshold_max_f1, ([0.1, 0.2], [False, False]), "none of the 2 records"),
    ],
)
def test_wrong_arguments(function, arguments, match):
    with pytest.raises(ValueError, match=match):
        function(*arguments)


def labels(seed, n, prevalence, shift=0.0):
    """Probabilities of a label, in truth its chances but for a shift of the log-odds."""
    rng = np.random.default_rng(seed)
    log_odds = np.log(prevalence) - 2.0 + 3.0 * rng.normal(size=n)
    return 1 / (1 + np.exp(-log_odds - shift)), rng.random(n) < 1 / (1 + np.exp(-log_odds))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strength", [0.0, 5.0, 20.0])
def test_expected_f1_is_the_highest_of_all_cuts(seed, strength):
    probs, positive = labels(seed, 80, 0.3)
    probs = np.round(probs, 2)  # ties
    cut = threshold_expected_f1(probs, positive, prior_strength=strength)
    weight = positive.sum() / (positive.sum() + strength)
    truth = np.where(positive, weight, 0.0) + (1 - weight) * probs

    def expected(value):
        called = probs >= value
        return 2 * truth[called].sum() / (called.sum() + truth.sum())

    every = np.unique(probs)
    assert expected(cut.value) == pytest.approx(max(map(expected, every)), abs=1e-12)
    # Halfway between two neighbours, so that rounding moves no record across it.
    below, above = every[every < cut.value], every[every >= cut.value]
    assert cut.value == pytest.approx((above.min() + (below.max() if len(below) else 0.0)) / 2)
    if strength == 0.0:
        assert cut.recall == threshold_max_f1(probs, positive).recall
        assert expected(cut.value) == pytest.approx(f1_score(positive, probs >= cut.value))


def test_without_a_lower_neighbour_the_cut_is_halfway_to_zero():
    assert threshold_expected_f1([0.4, 0.5, 0.6], [True, True, True]).value == 0.2


def test_for_a_rare_label_it_is_steadier_and_better_on_new_records_than_the_highest_counted_f1():
    """Three positives among a hundred: their F1 peaks wherever they lie."""
    cuts, scores = {"counted": [], "expected": []}, {"counted": [], "expected": []}
    fresh, truth = labels(1000, 20_000, 0.05)
    for seed in range(150):
        probs, positive = labels(seed, 100, 0.05)
        if not positive.any():
            continue
        for name, rule in (("counted", threshold_max_f1), ("expected", threshold_expected_f1)):
            cuts[name].append(rule(probs, positive).value)
            scores[name].append(f1_score(truth, fresh >= cuts[name][-1]))
    assert np.std(cuts["expected"]) < 0.7 * np.std(cuts["counted"])
    assert np.mean(scores["expected"]) > np.mean(scores["counted"]) + 0.02


def test_with_many_records_it_follows_the_labels_where_the_probabilities_are_wrong():
    probs, positive = labels(0, 20_000, 0.1, shift=-2.0)
    expected, counted = threshold_expected_f1(probs, positive), threshold_max_f1(probs, positive)
    assert f1_score(positive, probs >= expected.value) > f1_score(positive, probs >= counted.value) - 0.002
    assert expected.value < 0.25


@pytest.mark.parametrize(
    ("probs", "positive", "strength", "match"),
    [
        ([0.1, 1.5], [True, False], 20.0, r"\[0, 1\], got 0.1 to 1.5"),
        ([0.1, 0.5], [True, False], -1.0, "got -1.0"),
        ([0.1, 0.5], [False, False], 20.0, "none of the 2 records"),
    ],
)
def test_expected_f1_refuses_what_it_cannot_use(probs, positive, strength, match):
    with pytest.raises(ValueError, match=match):
        threshold_expected_f1(probs, positive, prior_strength=strength)


@pytest.mark.parametrize("min_recall", [0.0, 0.28, 0.5, 0.9, 0.95, 1.0])
def test_at_recall_is_the_highest_that_finds_enough(min_recall: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 40, 100) / 40.0  # with ties
    positive = rng.random(100) < 0.25 + 0.5 * scores
    cut = threshold_at_recall(scores, positive, min_recall)
    assert cut.recall is not None
    assert cut.recall >= min_recall - 1e-9
    higher = np.unique(scores)[np.unique(scores) > cut.value]
    if min_recall > 0:
        # The next higher one finds too few.
        assert (scores[positive] >= np.append(higher, np.inf)[1]).mean() < min_recall
    else:
        assert cut.recall == 0.0


def test_at_recall_refuses_what_it_cannot_reach() -> None:
    with pytest.raises(ValueError, match="got 95"):
        threshold_at_recall([0.1, 0.2], [True, False], 95)
    with pytest.raises(ValueError, match="none of the 2 records is positive"):
        threshold_at_recall([0.1, 0.2], [False, False], 0.9)
