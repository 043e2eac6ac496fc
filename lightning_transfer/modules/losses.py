"""Losses as pure functions that return a scalar: of unnormalised logits, and of features among each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["balanced_class_weights", "binary_loss", "log_prior", "multiclass_loss", "supervised_contrastive_loss"]


def multiclass_loss(
    preds: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    adjustment: Tensor | None = None,
) -> Tensor:
    """Cross-entropy over classes, optionally focal, weighted, smoothed or logit-adjusted.

    Args:
        preds: Logits ``(N, C)``.
        target: Labels ``(N,)``, int64.
        weight: One factor a class ``(C,)``; the mean is taken over the weights, as torch does.
        label_smoothing: Share of the target spread over all classes.
        focal_gamma: Exponent of ``(1 - p_target)`` (Lin et al. 2017, arXiv 1708.02002, eq. 4); 0 is cross-entropy.
        adjustment: Added to the logits, ``tau * log prior`` ``(C,)`` (Menon et al. 2021, arXiv 2007.07314, eq. 10).

    Example:
        >>> multiclass_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item()
        0.126928...
    """
    if adjustment is not None:
        preds = preds + adjustment
    if not focal_gamma:
        return F.cross_entropy(preds, target, weight=weight, label_smoothing=label_smoothing)
    each = F.cross_entropy(preds, target, weight=weight, label_smoothing=label_smoothing, reduction="none")
    certainty = F.softmax(preds, dim=1).gather(1, target[:, None]).squeeze(1)
    each = each * (1.0 - certainty) ** focal_gamma
    scale = weight[target].sum() if weight is not None else torch.tensor(float(len(target)), device=preds.device)
    return each.sum() / scale


def binary_loss(
    preds: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    adjustment: Tensor | None = None,
) -> Tensor:
    """Sigmoid cross-entropy for binary and multi-label targets; missing labels (NaN) do not count.

    Args:
        preds: Logits ``(N,)`` or ``(N, C)``.
        target: ``0.0``, ``1.0`` or NaN, of the same shape.
        weight: ``(C, 2)``: factors of the negatives and of the positives of each label.
        label_smoothing: Moves targets towards 0.5 by this share.
        focal_gamma: As in `multiclass_loss`, with the probability of the true side.
        adjustment: Added to the logits, ``tau * log(prior / (1 - prior))`` ``(C,)``.

    Returns:
        Weighted mean over the known labels; zero, with a gradient of zero, when a batch has none.

    Example:
        >>> binary_loss(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, float("nan")]])).item()
        0.693147...
    """
    if adjustment is not None:
        preds = preds + adjustment
    known = ~torch.isnan(target)
    hard = torch.where(known, target, torch.zeros_like(target))
    soft = hard * (1.0 - label_smoothing) + 0.5 * label_smoothing
    each = F.binary_cross_entropy_with_logits(preds, soft, reduction="none")
    if focal_gamma:
        right = torch.where(hard > 0.5, torch.sigmoid(preds), torch.sigmoid(-preds))
        each = each * (1.0 - right) ** focal_gamma
    factor = known.to(each.dtype)
    if weight is not None:
        factor = factor * torch.where(hard > 0.5, weight[:, 1], weight[:, 0])
    total = factor.sum()
    return (each * factor).sum() / torch.where(total > 0, total, torch.ones_like(total))


def supervised_contrastive_loss(features: Tensor, target: Tensor, temperature: float = 0.1) -> Tensor:
    """Pull examples of one class together, and push those of other classes away (Khosla et al. 2020).

    arXiv 2004.11362, equation 2 (the sum outside of the logarithm): every other example of the batch competes to be
    the partner of an example, by its cosine; those of its class should win.

    Args:
        features: ``(N, F)``, of any length.
        target: Labels ``(N,)``.
        temperature: Divides the cosines; 0.1 is the paper's choice.

    Returns:
        Mean over the examples that have a partner in the batch; zero, with a gradient of zero, if none has.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> supervised_contrastive_loss(features, torch.tensor([0, 0, 1, 1])).item() < 1e-3
        True
        >>> supervised_contrastive_loss(features, torch.tensor([0, 1, 0, 1])).item()
        10.000...
    """
    directions = F.normalize(features, dim=1)
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    cosines = (directions @ directions.T / temperature).masked_fill(itself, float("-inf"))
    partners = (target[:, None] == target[None, :]) & ~itself
    # Zero, not minus infinity, where nothing is summed: their product with zero would be NaN.
    logs = cosines.log_softmax(dim=1).masked_fill(~partners, 0.0)
    count = partners.sum(dim=1)
    each = -logs.sum(dim=1) / count.clamp_min(1)
    has = (count > 0).to(each.dtype)
    return (each * has).sum() / has.sum().clamp_min(1.0)


def balanced_class_weights(counts: Sequence[int]) -> Tensor:
    """Return ``n / (C * n_c)`` for each class, the balanced weights of scikit-learn.

    Args:
        counts: Training records of each class; every class needs at least one.

    Raises:
        ValueError: If a class has no record.

    Example:
        >>> balanced_class_weights([30, 10])
        tensor([0.6667, 2.0000])
    """
    if min(counts) < 1:
        raise ValueError(f"Expected at least one training record of each class, got counts {list(counts)}.")
    total = float(sum(counts))
    return torch.tensor([total / (len(counts) * count) for count in counts])


def log_prior(counts: Mapping[str, int], classes: Sequence[str]) -> Tensor:
    """Return the log of each class's share of the training records, ``(C,)``.

    Example:
        >>> log_prior({"a": 3, "b": 1}, ["a", "b"]).exp()
        tensor([0.7500, 0.2500])
    """
    numbers = torch.tensor([float(counts.get(name, 0)) for name in classes])
    return (numbers.clamp_min(0.5) / numbers.clamp_min(0.5).sum()).log()
