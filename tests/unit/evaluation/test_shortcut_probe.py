from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from lightning_transfer.evaluation.shortcut_probe import (
    common_values,
    grouped_folds,
    predict_from_features,
    predict_from_values,
    within_auroc,
)


def _patients(seed: int = 0, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the group, the label and the site of each record: patients have one to four, and one site."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(count), rng.integers(1, 5, count))
    label, site = rng.integers(0, 2, count)[codes], rng.integers(0, 3, count)[codes]
    return codes, label, site


def test_folds_hold_out_whole_groups_and_every_record_once() -> None:
    codes, label, _ = _patients()
    folds = grouped_folds(label, codes, 5)
    assert folds is not None
    assert len(folds) == 5
    assert sorted(np.concatenate([held for _, held in folds]).tolist()) == list(range(len(codes)))
    for train, held in folds:
        assert not set(codes[train]) & set(codes[held])


@pytest.mark.parametrize(
    ("target", "codes"), [([0, 1, 0, 1], [0, 0, 0, 0]), ([0, 0, 0, 1], [0, 1, 2, 3])], ids=["one group", "one positive"]
)
def test_there_are_no_folds_where_one_would_teach_nothing(target: list[int], codes: list[int]) -> None:
    assert grouped_folds(np.array(target), np.array(codes), 2) is None


def test_values_are_counted_by_groups_not_by_records() -> None:
    codes = np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5])
    values = ["a"] * 6 + ["b", "b", "b", "c", "c"]
    # `a` has six records of one patient, `b` three patients.
    assert common_values(values, codes, min_groups=2, most=9) == ["b", "c"]
    assert common_values(values, codes, min_groups=3, most=9) == ["b"]
    assert common_values(values, codes, min_groups=2, most=1) == ["b"]
    # Four of six patients must lack it, too.
    assert common_values(values, codes, min_groups=4, most=9) == []


def test_scores_from_features_are_those_of_a_loop_with_scikit_learn() -> None:
    codes, _, site = _patients()
    features = np.random.default_rng(1).normal(size=(len(codes), 6)).astype(np.float32)
    features[:, 0] += site
    folds = grouped_folds(site, codes, 4)
    assert folds is not None
    found = predict_from_features(features, site, 4, folds)  # nobody has the fourth value
    for train, held in folds:
        scaler = StandardScaler().fit(features[train])
        probe = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200)
        probe.fit(scaler.transform(features[train]), site[train])
        probs = probe.predict_proba(scaler.transform(features[held]))
        np.testing.assert_allclose(found[held][:, :3], np.log(probs / (1 - probs)), atol=2e-3)
    assert (found[:, 3] < -20).all()


def test_scores_from_values_are_the_rates_of_the_other_folds_patients() -> None:
    codes, label, site = _patients(3)
    positive = label == 1
    folds = grouped_folds(label, codes, 5)
    assert folds is not None
    found = predict_from_values([str(item) for item in site], positive, codes, folds)
    for train, held in folds:
        # A patient counts once: here each has one label and one site.
        first = [int(np.flatnonzero(codes == code)[0]) for code in np.unique(codes[train])]
        share = positive[first].mean()
        for row in held.tolist():
            same = [place for place in first if site[place] == site[row]]
            yes, no = positive[same].sum() + share, (~positive[same]).sum() + 1 - share
            assert found[row] == pytest.approx(np.log(yes / no) - np.log(share / (1 - share)))


def test_a_value_that_the_other_folds_lack_says_nothing() -> None:
    label = np.array([0, 1] * 5)
    folds = grouped_folds(label, np.arange(10), 5)
    assert folds is not None
    values = [f"own {place}" for place in range(10)]
    assert np.abs(predict_from_values(values, label == 1, np.arange(10), folds)).max() < 1e-12


def test_auroc_within_is_that_of_all_pairs_of_one_value() -> None:
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 6, 40).astype(float)  # with ties
    positive, site = rng.integers(0, 2, 40) == 1, rng.integers(0, 3, 40)
    weights = rng.integers(0, 3, (5, 40)).astype(float)
    found = within_auroc(weights, scores, positive, site)
    for row, weight in enumerate(weights):
        won = pairs = 0.0
        for i in np.flatnonzero(positive):
            for j in np.flatnonzero(~positive & (site == site[i])):
                pairs += weight[i] * weight[j]
                won += weight[i] * weight[j] * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
        assert found[row] == pytest.approx(won / pairs)


def test_auroc_within_one_value_is_the_plain_one_and_without_pairs_undefined() -> None:
    rng = np.random.default_rng(5)
    scores, positive = rng.normal(size=30), rng.integers(0, 2, 30) == 1
    ones = np.ones((1, 30))
    assert within_auroc(ones, scores, positive, np.zeros(30))[0] == pytest.approx(roc_auc_score(positive, scores))
    assert np.isnan(within_auroc(ones, scores, positive, positive)[0])
