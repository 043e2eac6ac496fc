from __future__ import annotations

import json
import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from lightning_transfer.metrics import (
    Interval,
    auroc,
    average_precision,
    class_counts,
    cluster_bootstrap,
    group_codes,
    macro_f1,
    paired_difference,
    resample,
    weighted_mean,
)
from lightning_transfer.metrics import bootstrap as source


def mean_of(x):
    return lambda weights: weighted_mean(weights, x)


def test_ungrouped_mean_agrees_with_scipy():
    x = np.random.default_rng(1).exponential(size=200)
    ours = cluster_bootstrap(mean_of(x), range(200), n_resamples=9000, seed=3)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=9000, method="percentile", rng=np.random.default_rng(4))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.value == pytest.approx(x.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_confidence_is_honoured(confidence):
    x = np.random.default_rng(1).normal(size=300)
    ours = cluster_bootstrap(mean_of(x), range(300), n_resamples=5000, confidence=confidence)
    half = stats.norm.ppf(0.5 + confidence / 2) * x.std() / np.sqrt(300)
    assert ours.high - ours.low == pytest.approx(2 * half, rel=0.05)


def _grouped_problem():
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 25, 160)
    target = rng.integers(0, 3, 160)
    preds = np.where(rng.random(160) < 0.6, target, rng.integers(0, 3, 160))
    return groups, target, preds


def test_grouped_macro_f1_equals_a_loop_over_the_same_draws():
    groups, target, preds = _grouped_problem()
    codes = group_codes(groups)
    num_groups = codes.max() + 1
    drawn = resample(lambda w: {"f1": macro_f1(class_counts(w, preds, target, 3))}, groups, n_resamples=200, seed=11)
    draws = np.random.default_rng(11).integers(0, num_groups, size=(200, num_groups))
    expected = []
    for draw in draws:
        rows = np.concatenate([np.flatnonzero(codes == group) for group in draw])
        labels = np.unique(target[rows])
        expected.append(f1_score(target[rows], preds[rows], labels=labels, average="macro"))
    np.testing.assert_allclose(drawn.values["f1"], expected, atol=1e-12)


def test_grouped_interval_agrees_with_an_independent_loop():
    groups, target, preds = _grouped_problem()
    ours = cluster_bootstrap(lambda w: macro_f1(class_counts(w, preds, target, 3)), groups, n_resamples=2000)
    rng = np.random.default_rng(99)
    names = np.unique(groups)
    members = {name: np.flatnonzero(groups == name) for name in names}
    values = []
    for _ in range(1000):
        rows = np.concatenate([members[name] for name in rng.choice(names, len(names))])
        values.append(f1_score(target[rows], preds[rows], average="macro"))
    low, high = np.quantile(values, [0.025, 0.975])
    assert (ours.low, ours.high) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015))
    assert ours.num_groups == 25
    assert ours.n == 160


def test_groups_widen_the_interval_when_their_records_agree():
    x = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    alone = cluster_bootstrap(mean_of(x), range(200))
    together = cluster_bootstrap(mean_of(x), np.repeat(np.arange(20), 10))
    # Ten equal records in a group carry the information of one: sqrt(10) wider.
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(10), rel=0.1)


def test_records_without_group_are_groups_of_their_own():
    assert group_codes([None, "a", None, "a", "b"]).tolist() == [0, 1, 2, 1, 3]
    # Neither a position nor a number is mistaken for another group's name.
    assert len(set(group_codes([None, 0, None, 2, (0,)]).tolist())) == 5


def test_result_does_not_depend_on_the_chunks(monkeypatch):
    x = np.random.default_rng(0).normal(size=101)
    groups = np.random.default_rng(1).integers(0, 33, 101)
    whole = resample(lambda w: {"m": mean_of(x)(w)}, groups, n_resamples=50).values["m"]
    monkeypatch.setattr(source, "_CHUNK_BYTES", 8 * 101 * 7)
    seen = []
    parts = resample(lambda w: {"m": mean_of(x)(w)}, groups, n_resamples=50, on_chunk=seen.append).values["m"]
    np.testing.assert_allclose(whole, parts, rtol=1e-12)
    assert seen == [7] * 7 + [1]


def test_seed_decides_the_draws():
    x = np.random.default_rng(0).normal(size=40)
    first, again, other = (cluster_bootstrap(mean_of(x), range(40), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_undefined_resamples_are_dropped_and_counted():
    x = np.array([1.0, 2.0, 3.0, 4.0] + [0.0] * 16)
    present = np.arange(20) < 4

    def mean_of_present(weights):
        return weighted_mean(weights * present, x)

    result = cluster_bootstrap(mean_of_present, range(20), n_resamples=4000)
    assert result.value == 2.5
    # (1 - 4/20) ** 20 of the draws have none of the four.
    assert result.num_undefined / 4000 == pytest.approx(0.8**20, rel=0.35)
    assert 1 <= result.low < 2.5 < result.high <= 4


def test_too_many_undefined_resamples_give_a_reason_and_no_interval():
    present = np.arange(20) < 1
    result = cluster_bootstrap(lambda w: weighted_mean(w * present, np.ones(20)), range(20), n_resamples=500)
    assert result.value == 1.0
    assert result.low is None
    assert result.high is None
    assert f"{result.num_undefined} of 500" in result.reason


def test_undefined_statistic_is_not_available_with_the_callers_reason():
    result = cluster_bootstrap(lambda w: np.full(len(w), np.nan), range(4), n_resamples=10, reason="one class only")
    assert (result.value, result.low, result.high) == (None, None, None)
    assert str(result) == "n/a (one class only)"
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_group_gives_no_interval():
    result = cluster_bootstrap(mean_of(np.arange(5.0)), ["a"] * 5, n_resamples=10)
    assert result.value == 2.0
    assert result.low is None
    assert "1 group" in result.reason


def test_mask_gives_the_records_the_number_is_about():
    groups = ["a", "a", "b", "c"]
    drawn = resample(lambda w: {"m": mean_of(np.arange(4.0))(w)}, groups, n_resamples=50)
    item = drawn.interval("m", mask=np.array([True, True, False, True]))
    assert (item.n, item.num_groups) == (3, 2)


def test_paired_difference_is_narrower_than_the_two_intervals():
    rng = np.random.default_rng(2)
    hard = rng.normal(size=400)
    a, b = hard + 0.1 + 0.01 * rng.normal(size=400), hard
    result = paired_difference(mean_of(a), mean_of(b), range(400))
    standard_error = (a - b).std() / 20
    assert result.value == pytest.approx((a - b).mean())
    assert result.high - result.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    alone = cluster_bootstrap(mean_of(a), range(400))
    assert result.high - result.low < 0.05 * (alone.high - alone.low)


def test_paired_difference_equals_the_difference_of_two_resamples():
    x, y = np.random.default_rng(0).normal(size=(2, 60))
    groups = np.arange(60) // 3
    first = resample(lambda w: {"m": mean_of(x)(w), "only": mean_of(x)(w)}, groups, n_resamples=100)
    second = resample(lambda w: {"m": mean_of(y)(w)}, groups, n_resamples=100)
    joint = paired_difference(mean_of(x), mean_of(y), groups, n_resamples=100)
    difference = first.minus(second)
    assert list(difference.point) == ["m"]
    assert difference.interval("m") == joint


def test_values_of_other_draws_are_not_paired():
    one = resample(lambda w: {"m": mean_of(np.arange(4.0))(w)}, range(4), n_resamples=5)
    seed = resample(lambda w: {"m": mean_of(np.arange(4.0))(w)}, range(4), n_resamples=5, seed=7)
    more = resample(lambda w: {"m": mean_of(np.arange(4.0))(w)}, range(4), n_resamples=6)
    groups = resample(lambda w: {"m": mean_of(np.arange(4.0))(w)}, [0, 0, 1, 2], n_resamples=5)
    with pytest.raises(ValueError, match="seeds 0 and 7"):
        one.minus(seed)
    with pytest.raises(ValueError, match="5 and 6 draws"):
        one.minus(more)
    with pytest.raises(ValueError, match="same draws"):
        one.minus(groups)


def test_undefined_in_one_of_two_is_undefined_in_the_difference():
    result = paired_difference(mean_of(np.ones(4)), lambda w: np.full(len(w), np.nan), range(4), n_resamples=5)
    assert result.value is None
    assert "one of the two" in result.reason


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"groups": []}, "length 0"),
        ({"n_resamples": 0}, "got 0"),
        ({"confidence": 95}, "got 95"),
    ],
)
def test_wrong_arguments(arguments, match):
    options = {"groups": range(4), **arguments}
    groups = options.pop("groups")
    with pytest.raises(ValueError, match=match):
        cluster_bootstrap(lambda w: w.sum(1), groups, **options)


def test_interval_prints_what_it_knows():
    assert str(Interval(0.123456, None, None, n=3, reason="1 group")) == "0.123 [n/a]"


def test_two_thousand_resamples_of_ten_thousand_rows_in_seconds():
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=10_000), rng.random(10_000) < 0.2
    preds, target = rng.integers(0, 6, (2, 10_000))

    def statistic(weights):
        return {
            "f1": macro_f1(class_counts(weights, preds, target, 6)),
            "auroc": auroc(weights, scores, positive),
            "ap": average_precision(weights, scores, positive),
        }

    start = time.perf_counter()
    resample(statistic, range(10_000), n_resamples=2000)
    # About 3 s on one free core; the bound leaves room for a busy machine, and a Python loop takes minutes.
    assert time.perf_counter() - start < 30
