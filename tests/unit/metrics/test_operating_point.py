"""Oracles: scipy's binomial interval, the plain threshold on repeated records, and simulated coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm
from scipy.stats import t as student

from lightning_transfer.metrics import (
    effective_number,
    fit_operating_points,
    negatives_needed,
    rate_interval,
    resample,
    resampled_thresholds,
    threshold_at_false_positive_rate,
)

RATES = (0.0, 0.02, 0.1, 0.34, 1.0)


def problem(seed, ties, n=60):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    scores = rng.normal(size=n) + positive
    return (np.round(scores, 1) if ties else scores), positive, np.arange(n) // 5


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("rejected", "n"), [(0, 1), (0, 60), (1, 1), (3, 60), (20, 20), (5, 1000)])
def test_interval_of_a_rate_is_scipys_exact_one(rejected, n, confidence):
    exact = binomtest(rejected, n).proportion_ci(confidence, method="exact")
    assert rate_interval(rejected, n, confidence=confidence) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_ties_take_the_upper_end_of_what_was_allowed():
    low, high = rate_interval(2, 50, allowed=5)
    assert low == pytest.approx(binomtest(2, 50).proportion_ci(method="exact").low)
    # At the upper end, five or fewer of fifty have a chance of 2.5%.
    assert binom.cdf(5, 50, high) == pytest.approx(0.025)


@pytest.mark.parametrize("wrong", [(-1, 5, None), (3, 5, 2), (1, 5, 6), (0, 0, None)])
def test_impossible_counts(wrong):
    rejected, n, allowed = wrong
    with pytest.raises(ValueError, match=f"rejected={rejected}, .*n={n}"):
        rate_interval(rejected, n, allowed=allowed)


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.03, 0.05, 0.1, 1.0])
def test_as_many_negatives_as_are_needed_allow_one(rate):
    enough = negatives_needed(rate)
    for n, rejected in ((enough, 1), (enough - 1, 0)):
        if n:
            cut = threshold_at_false_positive_rate(np.arange(n), np.zeros(n, bool), rate)
            assert round(cut.false_positive_rate * n) == rejected


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_each_resample_gives_the_plain_threshold_of_its_records(seed, ties):
    scores, positive, groups = problem(seed, ties)
    found = resampled_thresholds(scores, positive, RATES, groups, n_resamples=40, seed=seed)
    # The draws of `resample`: twelve groups with replacement.
    draws = np.random.default_rng(seed).integers(0, 12, size=(40, 12))
    for row, groups_drawn in enumerate(draws):
        chosen = np.concatenate([np.flatnonzero(groups == group) for group in groups_drawn])
        for rate in RATES:
            cut = threshold_at_false_positive_rate(scores[chosen], positive[chosen], rate).value
            assert found.values[f"threshold_{rate:g}"][row] == cut
    for rate in RATES:
        assert found.point[f"threshold_{rate:g}"] == threshold_at_false_positive_rate(scores, positive, rate).value


def test_a_resample_without_negatives_has_no_threshold():
    scores, positive = np.arange(4.0), np.array([False, True, True, True])
    found = resampled_thresholds(scores, positive, [0.5], range(4), n_resamples=200)
    # Three of four draws from four records, all four times.
    assert np.isnan(found.values["threshold_0.5"]).mean() == pytest.approx(0.75**4, abs=0.1)


def test_a_point_says_what_the_plain_threshold_is_and_reaches():
    scores, positive, groups = problem(1, False, 300)
    points = fit_operating_points(scores, positive, [0.05, 0.01], groups=groups, negative="good", n_resamples=300)
    assert [point.max_false_reject_rate for point in points] == [0.05, 0.01]
    for point in points:
        cut = threshold_at_false_positive_rate(scores, positive, point.max_false_reject_rate)
        assert (point.threshold, point.false_reject_rate) == (cut.value, cut.false_positive_rate)
        assert (point.num_negative, point.num_groups) == ((~positive).sum(), len(set(groups[~positive])))
        assert f"{cut.recall:.3f} of {positive.sum()} others found" in point.rule
        low, high = point.threshold_interval
        assert low < point.threshold < high
        low, high = point.false_reject_interval
        assert low <= point.false_reject_rate < high
    assert points[1].threshold > points[0].threshold
    assert points[0].note == ""


def test_records_on_their_own_count_as_they_are():
    hits = np.arange(50) < 7
    assert effective_number(hits, range(50)) == pytest.approx(50)
    assert effective_number(hits, [None] * 50) == pytest.approx(50)


def test_effective_number_is_what_the_bootstrap_over_groups_says():
    """For many groups: the variance of the share is that of so many independent records."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), rng.integers(1, 9, 400))
    hits = rng.normal(size=400)[groups] + rng.normal(size=len(groups)) > 1.5
    found = effective_number(hits, groups)
    drawn = resample(lambda w: {"": w @ hits / w.sum(axis=1)}, groups, n_resamples=4000).values[""]
    share = hits.mean()
    assert found == pytest.approx(share * (1 - share) / drawn.var(), rel=0.08)
    assert 400 < found < 0.7 * len(groups)


def test_groups_of_copies_are_single_records_less_what_few_groups_cost():
    hits = np.repeat(np.arange(10) < 3, 6)
    cost = (student.ppf(0.975, 59) / student.ppf(0.975, 9)) ** 2
    # The two variances differ by their divisors, n - 1 and the number of groups - 1.
    assert effective_number(hits, np.repeat(np.arange(10), 6)) == pytest.approx(60 * 9 / 59 * cost)


def test_none_or_all_hit_count_groups():
    groups = np.repeat(np.arange(10), 6)
    assert effective_number(np.zeros(60), groups) == effective_number(np.ones(60), groups) == 10


def test_one_group_has_no_effective_number():
    with pytest.raises(ValueError, match="got 1"):
        effective_number([True, False], ["lot", "lot"])


def test_the_interval_of_the_rate_is_that_of_the_effective_number():
    scores, positive, _ = problem(2, False, 400)
    lots = np.arange(400) // 20
    alike = np.where(positive, scores, np.random.default_rng(0).normal(size=20)[lots] + 1e-3 * scores)
    good = ~positive
    [clustered] = fit_operating_points(alike, positive, [0.1], groups=lots, n_resamples=20)
    n = effective_number(alike[good] >= clustered.threshold, lots[good])
    assert n < 30
    share = clustered.false_reject_rate
    assert clustered.false_reject_interval == pytest.approx(rate_interval(share * n, n, allowed=0.1 * n), abs=1e-3)
    [alone] = fit_operating_points(alike, positive, [0.1], n_resamples=20)
    exact = rate_interval(round(share * good.sum()), good.sum(), allowed=int(0.1 * good.sum()))
    assert alone.false_reject_interval == pytest.approx(exact)


def test_too_few_negatives_are_said_with_what_is_needed():
    scores, positive, groups = problem(0, False)
    n = (~positive).sum()
    one, five = fit_operating_points(scores, positive, [0.01, 0.05], groups=groups, negative="good", n_resamples=50)
    assert f"a rate of 0.01 needs at least 100 `good`, and there are {n}" in one.note
    assert f"up to {one.false_reject_interval[1]:.3f} of new ones" in one.note
    assert five.note == ""
    assert one.false_reject_rate == 0.0


def test_one_group_has_the_interval_for_independent_records_and_says_so():
    scores, positive, _ = problem(0, False)
    [point] = fit_operating_points(scores, positive, [0.1], groups=["lot"] * 60, negative="good", n_resamples=50)
    n = (~positive).sum()
    assert point.threshold_interval is None
    assert point.false_reject_interval == rate_interval(round(point.false_reject_rate * n), n)
    assert point.note == f"all {n} `good` are of one group, so the intervals hold for independent ones only"


def test_without_a_bootstrap_the_threshold_has_no_interval():
    scores, positive, groups = problem(0, False)
    [point] = fit_operating_points(scores, positive, [0.1], groups=groups, n_resamples=0)
    [other] = fit_operating_points(scores, positive, [0.1], groups=groups, n_resamples=50)
    assert point == replace(other, threshold_interval=None)


def test_the_rate_of_new_records_lies_in_the_interval_as_often_as_promised():
    """Independent normal scores, whose rate above any threshold is known."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        scores = rng.normal(size=80)
        [point] = fit_operating_points(scores, np.zeros(80, bool), [0.05], n_resamples=100)
        low, high = point.false_reject_interval
        held += low <= norm.sf(point.threshold) <= high
    # 95% or more; fewer than 181 of 200 would have a chance below 0.2%.
    assert held >= 181


def test_groups_of_alike_records_widen_the_interval_that_would_fail():
    """Twenty lots of eight, whose scores correlate by 0.7: most of the noise is between lots."""
    rng = np.random.default_rng(0)
    lots = np.arange(160) // 8
    held, alone = 0, 0
    for _ in range(400):
        scores = np.sqrt(0.7) * rng.normal(size=20)[lots] + np.sqrt(0.3) * rng.normal(size=160)
        [point] = fit_operating_points(scores, np.zeros(160, bool), [0.05], groups=lots, n_resamples=0)
        new = norm.sf(point.threshold)
        low, high = point.false_reject_interval
        held += low <= new <= high
        low, high = rate_interval(8, 160)
        alone += low <= new <= high
    assert alone < 0.83 * 400
    assert held > 0.89 * 400


@pytest.mark.parametrize(("rates", "match"), [([0.1, 1.5], r"got 1\.5"), ([-0.1], r"got -0\.1")])
def test_rates_out_of_range(rates, match):
    with pytest.raises(ValueError, match=match):
        fit_operating_points([0.1, 0.2], [False, True], rates)
