"""Unbiased linear CKA: how alike two sets of features of the same inputs are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["cka_statistic", "unbiased_cka", "unbiased_hsic"]

_MIN_SAMPLES = 4


def unbiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    """Estimate the Hilbert-Schmidt independence criterion of two linear kernels without bias.

    Song et al. 2012, "Feature selection via dependence maximization", equation 5. It may be slightly negative.

    Args:
        x: Features of shape ``(N, F)``, with N of at least 4.
        y: Features of the same N inputs, of shape ``(N, G)``.

    Returns:
        Scalar float64 tensor on the CPU.

    Raises:
        ValueError: If the features are not two-dimensional, differ in N, or N is smaller than 4.

    Example:
        >>> import torch
        >>> x = torch.eye(4, 2)
        >>> round(unbiased_hsic(x, x).item(), 4)
        0.0
    """
    first, second = _gram(x, y)
    return _hsic(first, second, torch.ones(1, len(first), dtype=torch.float64))[0]


def unbiased_cka(x: Tensor, y: Tensor) -> Tensor:
    """Compute linear CKA with the unbiased estimator of HSIC.

    1 for features that are equal up to rotation, shift and scale, 0 in expectation for unrelated ones; single values
    may lie slightly below 0. The biased estimator reads 0.89 for unrelated features of width 512 and 64 inputs.
    Kornblith et al. 2019, "Similarity of neural network representations revisited".

    Args:
        x: Features of shape ``(N, F)``, with N of at least 4.
        y: Features of the same N inputs, of shape ``(N, G)``.

    Returns:
        Scalar float64 tensor on the CPU; NaN where a set of features does not vary, so that the ratio is undefined.

    Raises:
        ValueError: If the features are not two-dimensional, differ in N, or N is smaller than 4.

    Example:
        >>> import torch
        >>> x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
        >>> round(unbiased_cka(x, 2 * x + 1).item(), 6)
        1.0
    """
    first, second = _gram(x, y)
    return _cka(first, second, torch.ones(1, len(first), dtype=torch.float64))[0]


def cka_statistic(x: Tensor, y: Tensor) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Prepare the unbiased linear CKA for `lightning_transfer.metrics.cluster_bootstrap`.

    A resample holds inputs several times. A pair of copies of one input says nothing of the kernel between inputs and
    would pull CKA towards 1, so the sums run over distinct inputs only, weighted by how often each was drawn.

    Args:
        x: Features of shape ``(N, F)``, with N of at least 4.
        y: Features of the same N inputs, of shape ``(N, G)``.

    Returns:
        A function that maps weights of shape ``(B, N)`` to one value a row, ``(B,)``; NaN where it is undefined.

    Raises:
        ValueError: If the features do not fit.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
        >>> statistic = cka_statistic(x, x.relu())
        >>> bool(np.isclose(statistic(np.ones((1, 16)))[0], unbiased_cka(x, x.relu()).item()))
        True
    """
    first, second = _gram(x, y)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return _cka(first, second, torch.as_tensor(weights, dtype=torch.float64)).numpy()

    return statistic


def _gram(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Check both sets of features and return their Gram matrices with a zero diagonal, in float64 on the CPU."""
    for name, features in (("x", x), ("y", y)):
        if features.ndim != 2:
            raise ValueError(
                f"Expected `{name}` of shape (N, F), got {tuple(features.shape)}. Flatten or pool it first."
            )
    if len(x) != len(y):
        raise ValueError(f"Expected features of the same inputs, got {len(x)} rows in `x` and {len(y)} in `y`.")
    if len(x) < _MIN_SAMPLES:
        raise ValueError(f"Unbiased CKA needs at least {_MIN_SAMPLES} inputs, got {len(x)}.")
    grams = []
    for features in (x, y):
        wide = features.detach().to(device="cpu", dtype=torch.float64)
        # A shift of all features changes no HSIC; taking the mean off first keeps the sums below free of cancellation.
        wide = wide - wide.mean(dim=0)
        grams.append((wide @ wide.T).fill_diagonal_(0.0))
    return grams[0], grams[1]


def _hsic(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Average ``k_ij l_ij + k_ij l_qr - 2 k_ij l_iq`` over distinct ``i, j, q, r``, once for each row of weights.

    The diagonals are zero, so tuples that repeat an index inside one matrix drop out by themselves; the others are
    taken off by inclusion and exclusion. With weights of one this is the estimator of Song et al.
    """
    squares = weights.square()
    rows_first = weights @ first
    rows_second = rows_first if first is second else weights @ second
    product = first * second
    pairs = ((weights @ product) * weights).sum(1)
    rows_product = squares @ product
    pairs_squared = (rows_product * squares).sum(1)
    shared = (rows_product * weights).sum(1)
    chains = (weights * rows_first * rows_second).sum(1) - shared
    chains_squared = (squares * rows_first * rows_second).sum(1)
    total = (weights * rows_first).sum(1) * (weights * rows_second).sum(1)
    quadruples = total - 4 * chains_squared + 2 * pairs_squared

    # The same sums with matrices of ones: elementary symmetric sums of the weights.
    power = [weights.pow(k).sum(1) for k in range(5)]
    count_pairs = power[1] ** 2 - power[2]
    count_chains = power[1] ** 3 - 3 * power[1] * power[2] + 2 * power[3]
    count_quadruples = (
        power[1] ** 4 - 6 * power[1] ** 2 * power[2] + 3 * power[2] ** 2 + 8 * power[1] * power[3] - 6 * power[4]
    )
    return pairs / count_pairs + quadruples / count_quadruples - 2 * chains / count_chains


def _cka(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Divide the HSIC of both kernels by the geometric mean of each one's own; NaN where that is not positive."""
    own_first, own_second = _hsic(first, first, weights), _hsic(second, second, weights)
    # Rounding leaves tiny positive numbers where the features are constant.
    floor = torch.finfo(torch.float64).eps * torch.stack([first.square().mean(), second.square().mean()])
    defined = (own_first > floor[0]) & (own_second > floor[1])
    if torch.equal(first, second):
        return torch.where(defined, 1.0, torch.nan).to(torch.float64)
    ratio = _hsic(first, second, weights) / (own_first.clamp_min(0) * own_second.clamp_min(0)).sqrt()
    return torch.where(defined, ratio, torch.nan)
