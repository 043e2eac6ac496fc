"""Losses as pure functions that return a scalar: of unnormalised logits, and of features among each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["balanced_class_weights", "binary_loss", "ctc_loss", "log_prior", "multiclass_loss", "next_token_loss"]
__all__ += ["supervised_contrastive_loss"]


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


def ctc_loss(logits: Tensor, lengths: Tensor, target: Tensor, *, blank: int = 0) -> tuple[Tensor, Tensor]:
    """Connectionist temporal classification (Graves et al. 2006), in float32 whatever the logits are.

    The mean is torch's and transformers' (``ctc_loss_reduction="mean"``): each item's loss over its number of tokens,
    then the mean over items. An item with fewer frames than its text needs has an infinite loss; it counts as zero, and
    is told of.

    Args:
        logits: ``(N, T, V)``, unnormalised.
        lengths: Frames of each item, ``(N,)``.
        target: Tokens, padded with -100, ``(N, L)``.
        blank: The token that separates others.

    Returns:
        The loss as a scalar, and which items have too few frames, ``(N,)``.

    Example:
        >>> logits = torch.tensor([[[0.0, 9.0], [9.0, 0.0], [0.0, 9.0]]])
        >>> loss, too_short = ctc_loss(logits, torch.tensor([3]), torch.tensor([[1, 1]]))
        >>> round(loss.item(), 4), too_short.tolist()
        (0.0002, [False])
        >>> ctc_loss(logits, torch.tensor([2]), torch.tensor([[1, 1]]))
        (tensor(0.), tensor([True]))
    """
    real = target >= 0
    counts = real.sum(dim=1)
    repeats = ((target[:, 1:] == target[:, :-1]) & real[:, 1:]).sum(dim=1)
    too_short = lengths < counts + repeats
    # Autocast would have the logarithms in float32, but not what led to them; cuDNN has rules of its own for lengths.
    with torch.autocast(logits.device.type, enabled=False), torch.backends.cudnn.flags(enabled=False):
        logs = F.log_softmax(logits.float(), dim=-1).transpose(0, 1)
        loss = F.ctc_loss(logs, target[real], lengths, counts, blank=blank, reduction="mean", zero_infinity=True)
    return loss, too_short


def next_token_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the tokens of texts, in float32, as the mean over all tokens.

    Args:
        logits: ``(N, L, V)``, unnormalised.
        target: ``(N, L)``, -100 where nothing is to be learnt.

    Returns:
        A scalar; zero, with a gradient of zero, where there is no token at all.

    Example:
        >>> next_token_loss(torch.zeros(1, 2, 4), torch.tensor([[3, -100]])).item()
        1.386294...
    """
    with torch.autocast(logits.device.type, enabled=False):
        each = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum")
        return each / (target != -100).sum().clamp_min(1)


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
