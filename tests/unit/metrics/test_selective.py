"""Oracles: scikit-learn's curves, brute force over thresholds and orders, scipy's binomial distribution, simulation."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.special import betainc
from scipy.stats import binom, binomtest
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from lightning_transfer.metrics import auroc, effective_number
from lightning_transfer.metrics.selective import (
    PrecisionThreshold,
    aurc,
    coverage_at_precision,
    energy_score,
    fit_precision_threshold,
    foreign_accepted_at_recall,
    knn_score,
    max_logit_score,
    risk_coverage,
)


def problem(seed=0, n=120, ties=False):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1, n)
    right = rng.random(n) < confidence
    return (np.round(confidence, 1) if ties else confidence), right


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_counts_what_each_threshold_decides(ties):
    confidence, right = problem(ties=ties)
    curve = risk_coverage(confidence, right)
    assert curve.threshold.tolist() == sorted(set(confidence.tolist()), reverse=True)
    for coverage, risk, threshold in zip(*curve, strict=True):
        decided = confidence >= threshold
        assert coverage == pytest.approx(decided.mean())
        assert risk == pytest.approx((~right[decided]).mean())


def test_the_area_is_the_mean_risk_of_the_first_records():
    confidence, right = problem()
    wrong = ~right[np.argsort(-confidence)]
    expected = np.mean([wrong[: k + 1].mean() for k in range(len(wrong))])
    assert aurc(np.ones((1, 120)), confidence, right) == pytest.approx(expected)


def test_ties_are_the_mean_over_all_their_orders():
    confidence, right = np.array([0.9, 0.5, 0.5, 0.5, 0.2]), np.array([True, False, True, True, False])
    wrong = 1.0 - right
    found = []
    for order in permutations([1, 2, 3]):
        ranked = wrong[[0, *order, 4]]
        found.append(np.mean(np.cumsum(ranked) / np.arange(1, 6)))
    assert aurc(np.ones((1, 5)), confidence, right) == pytest.approx(np.mean(found))
    # The order of the rows must not decide: it would reward files sorted by luck.
    assert aurc(np.ones((1, 5)), confidence[::-1], right[::-1]) == pytest.approx(np.mean(found))


def test_a_weight_is_so_many_copies_of_the_record():
    confidence, right = problem(n=30)
    weights = np.random.default_rng(1).integers(0, 4, size=(5, 30)).astype(float)
    for row, value in zip(weights, aurc(weights, confidence, right), strict=True):
        times = row.astype(int)
        expected = aurc(np.ones((1, times.sum())), np.repeat(confidence, times), np.repeat(right, times))
        assert value == pytest.approx(expected[0])
    assert np.isnan(aurc(np.zeros((1, 30)), confidence, right)[0])


def test_the_area_of_a_constant_confidence_is_the_error_rate():
    _, right = problem()
    assert aurc(np.ones((1, 120)), np.full(120, 0.5), right) == pytest.approx((~right).mean())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("precision", [0.8, 0.9, 1.0])
def test_coverage_is_the_largest_of_all_thresholds(precision, ties):
    confidence, right = problem(3, ties=ties)
    reached = [(confidence >= cut).mean() for cut in confidence if right[confidence >= cut].mean() >= precision - 1e-12]
    assert coverage_at_precision(confidence, right, precision) == pytest.approx(max(reached, default=0.0))


def test_no_coverage_where_the_surest_is_wrong():
    assert coverage_at_precision([0.9, 0.5], [False, True], 0.9) == 0.0


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("target", [0.8, 0.9])
def test_the_threshold_is_the_lowest_whose_binomial_bound_holds(target, ties):
    confidence, right = problem(5, n=400, ties=ties)
    found = fit_precision_threshold(confidence, right, target)
    proven = {}
    for cut in np.unique(confidence):
        decided = confidence >= cut
        test = binomtest(int(right[decided].sum()), int(decided.sum()), alternative="greater")
        proven[cut] = test.proportion_ci(0.8, method="exact").low >= target
    lowest = min(cut for cut, holds in proven.items() if holds)
    decided = confidence >= lowest
    assert ((confidence >= found.threshold) == decided).all()
    assert found.num_decided == decided.sum()
    assert found.coverage == pytest.approx(decided.mean())
    assert found.precision == pytest.approx(right[decided].mean())
    interval = binomtest(int(right[decided].sum()), int(decided.sum())).proportion_ci(0.95, method="exact")
    assert found.precision_interval == pytest.approx((interval.low, interval.high))


def test_one_lucky_ticket_proves_nothing():
    confidence = np.linspace(1, 0, 50)
    right = np.arange(50) % 2 == 0  # the surest is right, and half of all
    found = fit_precision_threshold(confidence, right, 0.9)
    assert found.threshold is None
    assert (found.precision, found.precision_interval, found.num_decided) == (None, None, 0)
    assert "no threshold proves 0.9" in found.rule
    # 0.9 ** 16 is 0.185: sixteen right ones in a row are a proof at 0.8, fifteen are none.
    for n, holds in ((15, False), (16, True)):
        assert (fit_precision_threshold(np.ones(n), np.ones(n, bool), 0.9).threshold is not None) is holds
    assert "At least 16 are needed" in found.rule
    assert binom.pmf(15, 15, 0.9) > 0.2 > binom.pmf(16, 16, 0.9)


def test_everything_is_decided_where_everything_is_right():
    found = fit_precision_threshold([0.5, 0.25] * 50, [True] * 100, 0.95)
    assert (found.threshold, found.coverage) == (0.25, 1.0)


def test_the_threshold_lies_between_two_confidences():
    confidence = np.repeat([0.9, 0.4], 60)
    found = fit_precision_threshold(confidence, confidence > 0.5, 0.95)
    assert found.threshold == pytest.approx(0.65)


def test_groups_that_resemble_themselves_prove_less():
    confidence = np.linspace(1, 0, 200)
    right = np.ones(200, bool)
    alone = fit_precision_threshold(confidence, right, 0.95)
    # Twenty customers who each wrote ten times: twenty independent tickets prove 0.923 at most.
    grouped = fit_precision_threshold(confidence, right, 0.95, groups=np.arange(200) % 20)
    assert alone.coverage == 1.0
    assert grouped.threshold is None
    assert "are right, as sure as 20 independent ones, which proves 0.923" in grouped.rule


def test_the_bound_at_every_threshold_takes_the_effective_number():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 40, 160)
    lean = rng.normal(size=40)[codes]
    confidence = rng.random(160)
    right = rng.random(160) + 0.3 * lean < 0.8
    order = np.argsort(-confidence)
    for target in (0.6, 0.7, 0.75):
        found = fit_precision_threshold(confidence, right, target, groups=codes)
        lowest = 0
        for end in range(2, 161):
            few = order[:end]
            if len(set(codes[few])) < 2:
                continue
            number = effective_number(right[few], codes[few])
            hits = right[few].mean() * number
            # The bound at level p is the precision at which so many hits, or more, have the probability 1 - p.
            if hits > 0 and betainc(hits, number - hits + 1, target) <= 0.2:
                lowest = end
        assert found.num_decided == lowest


def test_the_promise_holds_on_new_records_and_a_plain_share_breaks_it():
    """In 200 fits the bound may miss in about a fifth; the lowest threshold by the plain share misses in about half."""
    rng = np.random.default_rng(0)
    everything = np.sort(rng.beta(2.3, 0.175, 100_000))[::-1]
    achieved = np.cumsum(everything) / np.arange(1, len(everything) + 1)
    missed = {"bound": 0, "share": 0}
    for _ in range(200):
        confidence = rng.beta(2.3, 0.175, 500)
        right = rng.random(500) < confidence
        found = fit_precision_threshold(confidence, right, 0.95)
        curve = risk_coverage(confidence, right)
        plain = curve.threshold[np.flatnonzero(curve.risk <= 0.05)[-1]]
        for name, cut in (("bound", found.threshold), ("share", plain)):
            decided = np.searchsorted(-everything, -cut, side="right")
            missed[name] += achieved[max(decided - 1, 0)] < 0.95
    assert missed["bound"] < 50
    assert missed["share"] > 70


def test_a_threshold_survives_its_plain_values():
    for found in (
        fit_precision_threshold(np.linspace(1, 0, 100), np.ones(100, bool), 0.9),
        fit_precision_threshold([0.5], [True], 0.9),
    ):
        assert PrecisionThreshold.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [True], 1.5), "got 1.5"),
        (([0.5], [True], 0.0), "got 0.0"),
        (([0.5], [True], 1.0), "No number of records proves a precision of 1"),
        (([], [], 0.9), r"N > 0, got \(0,\)"),
        (([0.5, 0.5], [True], 0.9), r"got \(2,\) and \(1,\)"),
        (([0.5, float("nan")], [True, True], 0.9), "got nan at position 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_precision_threshold(*arguments)


def test_groups_must_fit():
    with pytest.raises(ValueError, match="each of 2 records, got 3"):
        fit_precision_threshold([0.5, 0.6], [True, True], 0.9, groups="abc")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("recall", [0.5, 0.9, 0.95, 1.0])
def test_foreign_records_pass_as_sklearns_curve_says(recall, ties):
    rng = np.random.default_rng(7)
    foreign = rng.random(300) < 0.3
    scores = rng.normal(size=300) + 1.2 * foreign
    scores = np.round(scores, 1) if ties else scores
    # In scope is positive, and a high score speaks against it.
    passed, accepted, _ = roc_curve(~foreign, -scores, drop_intermediate=False)
    expected = passed[accepted >= recall - 1e-12].min()
    assert foreign_accepted_at_recall(np.ones((1, 300)), scores, foreign, recall) == pytest.approx(expected)
    weights = rng.integers(0, 3, size=(3, 300)).astype(float)
    for row, value in zip(weights, foreign_accepted_at_recall(weights, scores, foreign, recall), strict=True):
        passed, accepted, _ = roc_curve(~foreign, -scores, sample_weight=row, drop_intermediate=False)
        assert value == pytest.approx(passed[accepted >= recall - 1e-12].min())


def test_without_one_of_the_two_kinds_there_is_no_rate():
    assert np.isnan(foreign_accepted_at_recall(np.ones((1, 2)), [0.1, 0.2], [False, False])[0])
    assert np.isnan(foreign_accepted_at_recall(np.ones((1, 2)), [0.1, 0.2], [True, True])[0])
    with pytest.raises(ValueError, match=r"got 0\.0"):
        foreign_accepted_at_recall(np.ones((1, 2)), [0.1, 0.2], [True, False], 0.0)


def test_scores_rise_with_foreignness():
    rng = np.random.default_rng(0)
    directions = np.eye(4, 16) * 5
    known = directions[rng.integers(0, 4, 200)] + rng.normal(size=(200, 16))
    near = directions[rng.integers(0, 4, 100)] + rng.normal(size=(100, 16))
    foreign = rng.normal(size=(100, 16)) * 2
    features = np.concatenate([near, foreign])
    logits = features @ directions.T / 5
    truth = np.arange(200) >= 100
    for scores in (max_logit_score(logits), energy_score(logits), knn_score(features, known, 5)):
        assert roc_auc_score(truth, scores) > 0.9
        assert auroc(np.ones((1, 200)), scores, truth) == pytest.approx(roc_auc_score(truth, scores))


def test_logit_scores_are_their_closed_forms_and_do_not_overflow():
    logits = np.random.default_rng(0).normal(size=(6, 4))
    assert max_logit_score(logits) == pytest.approx(-np.max(logits, axis=1))
    assert energy_score(logits) == pytest.approx(-np.log(np.exp(logits).sum(axis=1)))
    assert energy_score([[1000.0, 999.0]]) == pytest.approx(-1000 - np.log1p(np.exp(-1)))


@pytest.mark.parametrize("chunk", [None, 100])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_neighbours_are_sklearns(k, chunk, monkeypatch):
    if chunk is not None:
        monkeypatch.setattr("lightning_transfer.metrics.selective._CHUNK", chunk)
    rng = np.random.default_rng(1)
    examples, features = rng.normal(size=(40, 8)), rng.normal(size=(25, 8)) * 7
    distances, _ = NearestNeighbors(n_neighbors=k, metric="cosine").fit(examples).kneighbors(features)
    assert knn_score(features, examples, k) == pytest.approx(distances[:, -1])


def test_few_examples_and_rows_without_direction():
    found = knn_score([[1.0, 0.0], [0.0, 0.0], [np.nan, 1.0]], [[0.0, 2.0], [2.0, 0.0]], k=7)
    assert found[0] == pytest.approx(1.0)
    assert np.isnan(found[1:]).all()
    with pytest.raises(ValueError, match="got k=0"):
        knn_score([[1.0]], [[1.0]], 0)
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
        knn_score([[1.0, 0.0]], [[1.0, 0.0, 0.0]], 1)
