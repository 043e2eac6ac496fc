"""Unbiased linear CKA against a numpy implementation with explicit kernels, and the bootstrap against brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from lightning_transfer.metrics.bootstrap import cluster_bootstrap
from lightning_transfer.metrics.cka import cka_statistic, unbiased_cka, unbiased_hsic


def numpy_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, equation 5, written with explicit kernels."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741 - the paper's letters
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    ones = np.ones(n)
    trace = np.trace(k @ l)
    middle = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    last = 2 / (n - 2) * (ones @ k @ l @ ones)
    return float((trace + middle - last) / (n * (n - 3)))


def numpy_cka(x: np.ndarray, y: np.ndarray) -> float:
    return numpy_hsic(x, y) / np.sqrt(numpy_hsic(x, x) * numpy_hsic(y, y))


def biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


@pytest.mark.parametrize(("n", "width", "shift"), [(4, 3, 0.0), (17, 5, 0.0), (64, 32, 0.0), (64, 32, 50.0)])
def test_against_numpy(n, width, shift):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, width)) + shift
    tolerance = 1e-6 if shift else 1e-10  # the oracle itself loses digits to a large shift
    y = 0.7 * x @ rng.normal(size=(width, width)) + rng.normal(size=(n, width))
    assert unbiased_hsic(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(numpy_hsic(x, y), rel=tolerance)
    if n > 4:
        assert unbiased_cka(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(numpy_cka(x, y), rel=tolerance)


def test_unrelated_wide_features_read_zero_where_the_biased_estimator_reads_089():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 512)), rng.normal(size=(64, 512))
    assert biased_cka(x, y) == pytest.approx(0.89, abs=0.01)
    assert abs(unbiased_cka(torch.tensor(x), torch.tensor(y)).item()) < 0.05


def test_invariances_and_exact_one():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    assert unbiased_cka(x, x).item() == 1.0
    assert unbiased_cka(x, 3 * x @ rotation - 2).item() == pytest.approx(1.0, abs=1e-10)
    y = torch.randn(30, 9, generator=generator, dtype=torch.float64)
    assert unbiased_cka(x, y).item() == pytest.approx(unbiased_cka(y, x).item(), abs=1e-14)


def test_half_precision_is_computed_wide():
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    y = (x + 0.1).to(torch.bfloat16)
    value = unbiased_cka(x, y)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(numpy_cka(x.double().numpy(), y.double().numpy()), rel=1e-8)


def test_constant_features_are_undefined():
    assert unbiased_cka(torch.full((8, 3), 0.1), torch.randn(8, 3)).isnan()
    assert unbiased_cka(torch.full((8, 3), 0.1), torch.full((8, 3), 0.1)).isnan()


def test_bootstrap_equals_brute_force_over_distinct_inputs():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    y = x + torch.randn(7, 3, generator=generator, dtype=torch.float64)
    drawn = np.random.default_rng(5).integers(7, size=(3, 7))
    counts = np.stack([np.bincount(row, minlength=7).astype(float) for row in drawn])
    assert (counts == 0).any()
    got = cka_statistic(x, y)(counts)

    def brute(k: np.ndarray, l: np.ndarray, weights: np.ndarray) -> float:  # noqa: E741
        pairs, triples, quadruples = np.zeros(2), np.zeros(2), np.zeros(2)
        for i, j in permutations(range(7), 2):
            pairs += weights[i] * weights[j] * np.array([k[i, j] * l[i, j], 1])
        for i, j, q in permutations(range(7), 3):
            triples += weights[i] * weights[j] * weights[q] * np.array([k[i, j] * l[i, q], 1])
        for i, j, q, r in permutations(range(7), 4):
            quadruples += weights[i] * weights[j] * weights[q] * weights[r] * np.array([k[i, j] * l[q, r], 1])
        return pairs[0] / pairs[1] + quadruples[0] / quadruples[1] - 2 * triples[0] / triples[1]

    x, y = x - x.mean(0), y - y.mean(0)
    k, l = (x @ x.T).numpy(), (y @ y.T).numpy()  # noqa: E741
    for weights, value in zip(counts, got, strict=True):
        own = brute(k, k, weights) * brute(l, l, weights)
        expected = brute(k, l, weights) / np.sqrt(own) if own > 0 else np.nan
        assert value == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_bootstrap_interval_holds_the_population_value_and_is_not_pulled_towards_one():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(400, 4, generator=generator)
    y = x + torch.randn(400, 4, generator=generator)
    statistic = cka_statistic(x, y)
    interval = cluster_bootstrap(statistic, range(400), n_resamples=300)
    # Kernels of N(0, I) and N(0, 2I) with covariance I: ||C||^2 / (||Sx|| ||Sy||) = 4 / (2 * 4).
    assert interval.low < 0.5 < interval.high
    weights = np.random.default_rng(0).multinomial(400, [1 / 400] * 400, size=300).astype(float)
    assert abs(statistic(weights).mean() - unbiased_cka(x, y).item()) < 0.01


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.ones(3, 2), torch.ones(3, 2), "got 3"),
        (torch.ones(5, 2), torch.ones(6, 2), "5 rows in `x` and 6 in `y`"),
        (torch.ones(5, 2, 2), torch.ones(5, 2), r"\(5, 2, 2\)"),
    ],
)
def test_wrong_shapes(x, y, message):
    with pytest.raises(ValueError, match=message):
        unbiased_cka(x, y)
