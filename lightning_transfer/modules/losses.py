"""Losses as pure functions that return a scalar: of unnormalised logits, and of features among each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["asymmetric_loss", "balanced_class_weights", "balanced_label_weights", "binary_loss", "ctc_loss"]
__all__ += ["log_prior", "multiclass_loss", "next_token_loss", "supervised_contrastive_loss"]


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

    A target between 0 and 1 is soft: its loss is the mean of what 1 and 0 would cost, in these shares, with whatever
    the options make of each.

    Args:
        preds: Logits ``(N,)`` or ``(N, C)``.
        target: In ``[0, 1]``, or NaN, of the same shape.
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
    share, known = _known(target)
    sides: list[Tensor] = []
    for truth in (0.0, 1.0):
        soft = torch.full_like(preds, truth * (1.0 - label_smoothing) + 0.5 * label_smoothing)
        each = F.binary_cross_entropy_with_logits(preds, soft, reduction="none")
        if focal_gamma:
            each = each * torch.sigmoid(-preds if truth else preds) ** focal_gamma
        sides.append(each)
    return _mean_of_sides(sides[0], sides[1], share, known, weight)


def asymmetric_loss(
    preds: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> Tensor:
    """Cross-entropy that turns away from easy negatives (Ridnik et al. 2021, arXiv 2009.14119, equation 7).

    For findings that most records do not have. A positive costs ``-(1 - p)^gamma_positive * log p``, a negative
    ``-m^gamma_negative * log(1 - m)`` with ``m = max(p - margin, 0)``: below the margin it costs nothing at all.
    Targets may be missing or soft, as in `binary_loss`.

    Args:
        preds: Logits ``(N,)`` or ``(N, C)``.
        target: In ``[0, 1]``, or NaN, of the same shape.
        weight: ``(C, 2)``: factors of the negatives and of the positives of each label.
        gamma_positive: Exponent of the positives; the paper uses 0, its authors' code 1.
        gamma_negative: Exponent of the negatives; the paper uses 4.
        margin: Probability up to which a negative is ignored; the paper uses 0.05. Probabilities trained so are too
            low where they are small: fit a temperature, and judge them by their calibration.

    Returns:
        Weighted mean over the known labels, in float32 or wider; zero, with a gradient of zero, without any.

    Example:
        >>> easy, hard = torch.tensor([[-4.0]]), torch.tensor([[4.0]])
        >>> asymmetric_loss(easy, torch.zeros(1, 1)).item(), asymmetric_loss(hard, torch.zeros(1, 1)).item() > 1
        (0.0, True)
    """
    wide = preds if preds.dtype == torch.float64 else preds.float()
    share, known = _known(target)
    # By logarithms of the sigmoid where the margin leaves them: a probability that rounds to 1 would cost infinity.
    p = torch.sigmoid(wide)
    positive = -((1.0 - p) ** gamma_positive) * F.logsigmoid(wide)
    if margin:
        shifted = (p - margin).clamp_min(0.0)
        negative = -(shifted**gamma_negative) * torch.log1p(-shifted)
    else:
        negative = -(p**gamma_negative) * F.logsigmoid(-wide)
    return _mean_of_sides(negative, positive, share.to(wide.dtype), known, weight)


def _known(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much each label is a positive, 0 where it is missing, and whether it is known."""
    known = ~torch.isnan(target)
    return torch.where(known, target, torch.zeros_like(target)), known


def _mean_of_sides(negative: Tensor, positive: Tensor, share: Tensor, known: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weighted mean of the losses that a label has as a negative and as a positive."""
    low, high = known * (1.0 - share), known * share
    if weight is not None:
        low, high = low * weight[:, 0], high * weight[:, 1]
    total = (low + high).sum()
    return (negative * low + positive * high).sum() / torch.where(total > 0, total, torch.ones_like(total))


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


def balanced_label_weights(
    positives: Sequence[int], negatives: Sequence[int], max_positive_weight: float = 50.0
) -> Tensor:
    """Return factors of the negatives and positives of each label, under which both weigh the same: ``(C, 2)``.

    ``n / (2 n_negative)`` and ``n / (2 n_positive)``, the balanced weights of scikit-learn for each label alone, so
    that labels of which much is missing count as much as others. The ratio of the two has
    a limit: one record that weighs as much as thousands of others is learnt by heart.

    Args:
        positives: Training records known to have each label.
        negatives: Training records known not to have it.
        max_positive_weight: Largest ratio of the two factors, and its inverse the smallest.

    Raises:
        ValueError: If a label lacks positives or negatives, or the limit is below 1.

    Example:
        >>> balanced_label_weights([10, 1], [30, 999], max_positive_weight=9)
        tensor([[0.6667, 2.0000],
                [0.9921, 8.9286]])
    """
    if max_positive_weight < 1:
        raise ValueError(f"Expected `max_positive_weight` of at least 1, got {max_positive_weight}. 50 is the default.")
    if min(*positives, *negatives, 1) < 1:
        raise ValueError(
            f"Expected a positive and a negative of each label, got positives {list(positives)}, negatives "
            f"{list(negatives)}."
        )
    rows = []
    for have, lack in zip(positives, negatives, strict=True):
        ratio = min(max(lack / have, 1 / max_positive_weight), max_positive_weight)
        # So that the mean factor of all records is 1.
        low = (have + lack) / (lack + ratio * have)
        rows.append([low, ratio * low])
    return torch.tensor(rows)


def log_prior(counts: Mapping[str, int], classes: Sequence[str]) -> Tensor:
    """Return the log of each class's share of the training records, ``(C,)``.

    Example:
        >>> log_prior({"a": 3, "b": 1}, ["a", "b"]).exp()
        tensor([0.7500, 0.2500])
    """
    numbers = torch.tensor([float(counts.get(name, 0)) for name in classes])
    return (numbers.clamp_min(0.5) / numbers.clamp_min(0.5).sum()).log()
