"""How far outputs have moved from a reference on the same inputs: one value for each sample, so that they are paired.

All work in float64 on the CPU, and read exactly 0 (or exactly "the same class") where current and reference are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["agreement", "cosine_distance", "kl_divergence", "knn_predictions", "l2_distance", "predicted_class"]


def predicted_class(logits: Tensor) -> Tensor:
    """Return the class with the highest score of each sample.

    Args:
        logits: Class scores of shape ``(N, C)``; a single column is the score of the positive class of two.

    Returns:
        Int64 tensor of shape ``(N,)`` on the CPU.

    Example:
        >>> import torch
        >>> predicted_class(torch.tensor([[0.2, 0.8], [0.9, 0.1]])).tolist()
        [1, 0]
    """
    return _scores(logits, "logits").argmax(dim=1)


def agreement(reference: Tensor, current: Tensor) -> Tensor:
    """Say for each sample whether both sets of scores name the same class.

    Args:
        reference: Class scores of shape ``(N, C)``; a single column is the score of the positive class of two.
        current: Class scores of the same shape.

    Returns:
        Float64 tensor of shape ``(N,)`` on the CPU, 1.0 where the classes agree.

    Raises:
        ValueError: If the shapes differ or are not ``(N, C)``.

    Example:
        >>> import torch
        >>> before = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
        >>> agreement(before, before.flip(1) * torch.tensor([[1.0], [0.0]])).tolist()
        [0.0, 0.0]
    """
    _check_pair(reference, current)
    return (predicted_class(reference) == predicted_class(current)).to(torch.float64)


def kl_divergence(reference: Tensor, current: Tensor) -> Tensor:
    """Compute the Kullback-Leibler divergence ``KL(reference || current)`` of each sample, in nats.

    Args:
        reference: Class scores of shape ``(N, C)``, unnormalised; a single column is the score of the positive class.
        current: Class scores of the same shape.

    Returns:
        Float64 tensor of shape ``(N,)`` on the CPU, never negative.

    Raises:
        ValueError: If the shapes differ or are not ``(N, C)``.

    Example:
        >>> import torch
        >>> kl_divergence(torch.zeros(1, 2), torch.tensor([[0.0, 0.0]])).item()
        0.0
    """
    _check_pair(reference, current)
    log_p = _scores(reference, "reference").log_softmax(dim=1)
    log_q = _scores(current, "current").log_softmax(dim=1)
    # exp underflows to 0 where the reference excludes a class; 0 times an infinite gap must count as 0. Float64
    # log-softmax of finite scores is finite, so only the clamp against rounding is left to do.
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).clamp_min(0.0)


def cosine_distance(reference: Tensor, current: Tensor) -> Tensor:
    """Compute one minus the cosine of the angle between both features of each sample.

    Args:
        reference: Features of shape ``(N, F)``.
        current: Features of the same shape.

    Returns:
        Float64 tensor of shape ``(N,)`` on the CPU, in ``[0, 2]``. A zero vector is at distance 0 from another zero
        vector and 1 (at a right angle) from anything else.

    Raises:
        ValueError: If the shapes differ or are not ``(N, F)``.

    Example:
        >>> import torch
        >>> cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item()
        1.0
    """
    _check_pair(reference, current)
    first, second = _wide(reference), _wide(current)
    norm_first, norm_second = torch.linalg.vector_norm(first, dim=1), torch.linalg.vector_norm(second, dim=1)
    tiny = torch.finfo(torch.float64).tiny
    unit_first = first / norm_first.clamp_min(tiny)[:, None]
    unit_second = second / norm_second.clamp_min(tiny)[:, None]
    # Half the squared distance of the unit vectors: the same number as 1 - cos, and exactly 0 for equal features.
    distance = 0.5 * (unit_first - unit_second).square().sum(dim=1)
    one_is_zero = (norm_first == 0) != (norm_second == 0)
    return torch.where(one_is_zero, torch.ones_like(distance), distance)


def l2_distance(reference: Tensor, current: Tensor) -> Tensor:
    """Compute the Euclidean distance between both features of each sample, in the features' own unit.

    Args:
        reference: Features of shape ``(N, F)``.
        current: Features of the same shape.

    Returns:
        Float64 tensor of shape ``(N,)`` on the CPU.

    Raises:
        ValueError: If the shapes differ or are not ``(N, F)``.

    Example:
        >>> import torch
        >>> l2_distance(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])).item()
        5.0
    """
    _check_pair(reference, current)
    distance: Tensor = torch.linalg.vector_norm(_wide(reference) - _wide(current), dim=1)
    return distance


def knn_predictions(features: Tensor, target: Tensor, k: int = 5) -> Tensor:
    """Classify each sample by the majority of its nearest neighbours among the other samples.

    Neighbours are near by the angle between features. Equal votes go to the lowest class, as in scikit-learn.

    Args:
        features: Features of shape ``(N, F)``.
        target: Labels of shape ``(N,)``, integers from 0.
        k: Neighbours that vote; fewer where there are fewer other samples.

    Returns:
        Int64 tensor of shape ``(N,)`` on the CPU.

    Raises:
        ValueError: If ``k`` is smaller than 1, N smaller than 2, or the shapes do not fit.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> knn_predictions(features, torch.tensor([0, 0, 1, 1]), k=1).tolist()
        [0, 0, 1, 1]
    """
    if k < 1:
        raise ValueError(f"Expected `k` of at least 1, got {k}.")
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"Expected `features` of shape (N, F) with N of at least 2, got {tuple(features.shape)}.")
    if target.shape != features.shape[:1]:
        raise ValueError(f"Expected `target` of shape ({len(features)},), got {tuple(target.shape)}.")
    wide, labels = _wide(features), target.detach().cpu().long()
    if int(labels.min()) < 0:
        raise ValueError(f"Expected labels from 0, got {int(labels.min())} in `target`.")
    unit = wide / torch.linalg.vector_norm(wide, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest = similarity.argsort(dim=1, descending=True, stable=True)[:, : min(k, len(wide) - 1)]
    votes = torch.nn.functional.one_hot(labels)[nearest].sum(dim=1)
    return votes.argmax(dim=1)


def _wide(values: Tensor) -> Tensor:
    """Detach to float64 on the CPU."""
    return values.detach().to(device="cpu", dtype=torch.float64)


def _scores(logits: Tensor, name: str) -> Tensor:
    """Return at least two columns of scores: a single one is the positive class against 0."""
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"Expected `{name}` of shape (N, C), got {tuple(logits.shape)}.")
    wide = _wide(logits)
    return torch.cat([torch.zeros_like(wide), wide], dim=1) if wide.shape[1] == 1 else wide


def _check_pair(reference: Tensor, current: Tensor) -> None:
    """Refuse values that cannot be compared sample by sample."""
    if reference.ndim != 2 or reference.shape != current.shape:
        raise ValueError(
            f"Expected `reference` and `current` of one shape (N, C), got {tuple(reference.shape)} and "
            f"{tuple(current.shape)}."
        )
