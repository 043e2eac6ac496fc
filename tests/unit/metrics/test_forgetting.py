"""Distances from a reference against scikit-learn, scipy-like closed forms and torch's own losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from sklearn.metrics.pairwise import paired_cosine_distances, paired_euclidean_distances
from sklearn.neighbors import KNeighborsClassifier

from lightning_transfer.metrics.forgetting import (
    agreement,
    cosine_distance,
    kl_divergence,
    knn_predictions,
    l2_distance,
    predicted_class,
)


def pair(n=40, width=7, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, width, generator=generator)
    return first.to(dtype), (first + torch.randn(n, width, generator=generator)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_distances_agree_with_scikit_learn(dtype):
    first, second = pair(dtype=dtype)
    as_numpy = first.double().numpy(), second.double().numpy()
    np.testing.assert_allclose(cosine_distance(first, second), paired_cosine_distances(*as_numpy), atol=1e-12)
    np.testing.assert_allclose(l2_distance(first, second), paired_euclidean_distances(*as_numpy), atol=1e-12)


def test_agreement_is_accuracy_against_the_reference_classes():
    first, second = pair()
    expected = accuracy_score(first.argmax(1).numpy(), second.argmax(1).numpy())
    assert agreement(first, second).mean().item() == pytest.approx(expected)


def test_kl_agrees_with_torch_and_is_in_nats():
    first, second = pair(dtype=torch.float64)
    expected = torch.nn.functional.kl_div(second.log_softmax(1), first.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(kl_divergence(first, second), expected)
    # A certain reference against a fair coin: ln 2.
    certain = torch.tensor([[1000.0, 0.0]])
    assert kl_divergence(certain, torch.zeros(1, 2)).item() == pytest.approx(np.log(2))
    # The other direction is as wrong as the scores are confident, and finite.
    assert kl_divergence(torch.zeros(1, 2), certain).item() == pytest.approx(500 - np.log(2))


def test_single_column_is_two_classes():
    before, after = torch.tensor([[2.0], [-1.0]]), torch.tensor([[-2.0], [-3.0]])
    assert predicted_class(before).tolist() == [1, 0]
    assert agreement(before, after).tolist() == [0.0, 1.0]
    two = torch.cat([torch.zeros_like(before), before], 1), torch.cat([torch.zeros_like(after), after], 1)
    torch.testing.assert_close(kl_divergence(before, after), kl_divergence(*two))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 3.7e18])
def test_equal_inputs_read_exactly_zero(scale):
    first = pair(seed=3)[0] * scale
    for distance in (cosine_distance, l2_distance, kl_divergence):
        assert torch.equal(distance(first, first.clone()), torch.zeros(len(first), dtype=torch.float64))
    assert agreement(first, first.clone()).tolist() == [1.0] * len(first)


def test_zero_vectors():
    zero, one = torch.zeros(1, 3), torch.ones(1, 3)
    assert cosine_distance(zero, zero).item() == 0.0
    assert cosine_distance(zero, one).item() == 1.0
    assert cosine_distance(one, -one).item() == pytest.approx(2.0)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_knn_agrees_with_scikit_learn_leave_one_out(k):
    features, _ = pair(n=60, width=5, seed=4)
    target = torch.arange(60) % 4
    features[:, 0] += target * 0.8
    unit = torch.nn.functional.normalize(features.double()).numpy()
    expected = []
    for i in range(60):
        others = [j for j in range(60) if j != i]
        oracle = KNeighborsClassifier(n_neighbors=k, algorithm="brute").fit(unit[others], target[others].numpy())
        expected.append(int(oracle.predict(unit[[i]])[0]))
    assert knn_predictions(features, target, k=k).tolist() == expected


def test_knn_with_few_samples_takes_all_others():
    assert knn_predictions(torch.eye(3), torch.tensor([0, 1, 1]), k=50).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: agreement(torch.ones(2, 3), torch.ones(2, 4)), r"\(2, 3\) and \(2, 4\)"),
        (lambda: cosine_distance(torch.ones(2), torch.ones(2)), r"\(2,\)"),
        (lambda: predicted_class(torch.ones(2, 0)), r"\(2, 0\)"),
        (lambda: knn_predictions(torch.ones(4, 2), torch.zeros(4), k=0), "got 0"),
        (lambda: knn_predictions(torch.ones(1, 2), torch.zeros(1)), r"\(1, 2\)"),
        (lambda: knn_predictions(torch.ones(4, 2), torch.zeros(3)), r"got \(3,\)"),
        (lambda: knn_predictions(torch.ones(4, 2), torch.tensor([0, -1, 0, 0])), "got -1"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
