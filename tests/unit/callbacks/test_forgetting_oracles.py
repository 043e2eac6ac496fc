"""Each metric as the monitor reports it, value and interval, against numpy, scipy and scikit-learn alone."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import rel_entr, softmax
from sklearn.metrics import accuracy_score
from sklearn.metrics.pairwise import paired_cosine_distances, paired_euclidean_distances
from sklearn.neighbors import KNeighborsClassifier

from lightning_transfer.callbacks.forgetting_compare import Outputs, compare

LABELS = np.arange(40) % 4


def outputs(noise, n=40):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 6)) + 1.5 * np.eye(4, 6)[LABELS[:n]]
    logits = rng.normal(size=(n, 4)) + 2.0 * np.eye(4)[LABELS[:n]]
    more = np.random.default_rng(1)
    return features + noise * more.normal(size=features.shape), logits + noise * more.normal(size=logits.shape)


def nearest(features):
    """Leave-one-out predictions of scikit-learn on unit vectors."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = []
    for i in range(len(unit)):
        others = np.arange(len(unit)) != i
        model = KNeighborsClassifier(n_neighbors=5, algorithm="brute").fit(unit[others], LABELS[others])
        found.append(model.predict(unit[[i]])[0])
    return np.array(found)


def losses(metric, before, now):
    """The loss of each sample, written without torch."""
    if metric == "cosine":
        return paired_cosine_distances(before[0], now[0])
    if metric == "l2":
        return paired_euclidean_distances(before[0], now[0])
    if metric == "knn":
        return (nearest(before[0]) == LABELS) * 1.0 - (nearest(now[0]) == LABELS)
    first, second = before[1].argmax(1), now[1].argmax(1)
    if metric == "agreement":
        assert np.mean(first == second) == accuracy_score(first, second)
        return (first != second) * 1.0
    if metric == "accuracy":
        return (first == LABELS) * 1.0 - (second == LABELS)
    return rel_entr(softmax(before[1], axis=1), softmax(now[1], axis=1)).sum(1)


@pytest.mark.parametrize("metric", ["agreement", "kl", "cosine", "accuracy", "knn", "l2"])
def test_value_and_interval(metric):
    before, now = outputs(0.0), outputs(1.5)
    expected = losses(metric, before, now)
    assert expected.mean() > 0.01
    reference, current = (Outputs(*(torch.tensor(item) for item in both)) for both in (before, now))
    found = compare(reference, current, torch.tensor(LABELS), (metric,))[metric]
    assert found.value == pytest.approx(expected.mean(), abs=1e-12)
    low, high = stats.norm.interval(0.95, loc=expected.mean(), scale=stats.sem(expected))
    # 1.96 stands for the normal quantile 1.95996.
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.n == 40


def explicit_hsic(x, y):
    """Gretton's definition, as sums over all tuples of distinct inputs, one by one."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741 - the paper's letters
    pairs = [k[i, j] * l[i, j] for i, j in permutations(range(n), 2)]
    chains = [k[i, j] * l[i, q] for i, j, q in permutations(range(n), 3)]
    quadruples = [k[i, j] * l[q, r] for i, j, q, r in permutations(range(n), 4)]
    return np.mean(pairs) - 2 * np.mean(chains) + np.mean(quadruples)


def test_cka_is_the_one_of_explicit_sums():
    before, now = (outputs(noise, n=9)[0] for noise in (0.0, 0.7))
    own = explicit_hsic(before, before) * explicit_hsic(now, now)
    expected = 1 - explicit_hsic(before, now) / np.sqrt(own)
    found = compare(Outputs(torch.tensor(before)), Outputs(torch.tensor(now)), None, ("cka",))["cka"]
    assert found.value == pytest.approx(expected, abs=1e-10)
    assert 0 < expected < 1


def test_the_interval_of_cka_holds_the_truth_about_as_often_as_it_says():
    """Features of a standard normal and the same plus as much noise have a CKA of one half in the population."""
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(150, 4))
        y = x + rng.normal(size=x.shape)
        found = compare(Outputs(torch.tensor(x)), Outputs(torch.tensor(y)), None, ("cka",))["cka"]
        held += found.low < 0.5 < found.high
    # 33 or fewer come once in three hundred times; the seeds are fixed.
    assert stats.binom.cdf(33, 40, 0.95) < 0.004
    assert 33 < held < 40
