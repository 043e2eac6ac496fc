"""Losses of masks: cross-entropy and Dice, over the pixels whose class is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["UNKNOWN", "dice_loss", "pixel_cross_entropy", "segmentation_loss"]

UNKNOWN = -100
"""Class of a pixel that is padding, or of which nothing is known: what torch's losses leave out."""


def segmentation_loss(
    preds: Tensor, target: Tensor, *, dice_share: float = 0.5, weight: Tensor | None = None
) -> Tensor:
    """Mix cross-entropy, which settles each pixel, and Dice, which sees small regions (Isensee et al. 2021, nnU-Net).

    Computed in float32, whatever the logits are.

    Args:
        preds: Logits ``(N, C, H, W)``; class 0 is the background.
        target: Classes ``(N, H, W)`` int64, -100 where unknown.
        dice_share: Of the Dice loss, in [0, 1]; 0.5 is nnU-Net's sum, but for a factor of two.
        weight: One factor a class ``(C,)`` for the cross-entropy.

    Returns:
        Scalar; zero, with a gradient of zero, where no pixel is known.

    Example:
        >>> logits = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]])
        >>> segmentation_loss(logits, torch.tensor([[[0, 1]]])).item() < 1e-3
        True
        >>> segmentation_loss(logits, torch.tensor([[[-100, -100]]])).item()
        0.0
    """
    with torch.autocast(preds.device.type, enabled=False):
        preds = preds.float()
        parts = []
        if dice_share < 1.0:
            parts.append((1.0 - dice_share) * pixel_cross_entropy(preds, target, weight))
        if dice_share > 0.0:
            parts.append(dice_share * dice_loss(preds, target))
        return torch.stack(parts).sum()


def pixel_cross_entropy(preds: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over known pixels; arguments as `segmentation_loss`.

    Example:
        >>> pixel_cross_entropy(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, -100]]])).item()
        0.693147...
    """
    total = F.cross_entropy(preds, target, weight=weight, ignore_index=UNKNOWN, reduction="sum")
    known = target != UNKNOWN
    count = known.sum() if weight is None else weight[target.clamp_min(0)][known].sum()
    return total / count.clamp_min(1e-8) if weight is not None else total / count.clamp_min(1)


def dice_loss(preds: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Return one minus the soft Dice, over the pixels of the whole batch, as the mean of the classes but the first.

    ``1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s)`` (Milletari et al. 2016, with plain sums below). Of the whole batch,
    not of each image: most images of parts show nothing, and an image without a defect has no Dice worth a gradient.
    The first class is left out, since its Dice is always near one. A class that neither the batch nor the model shows
    costs nothing.

    Args:
        preds: Logits ``(N, C, H, W)``.
        target: Classes ``(N, H, W)``, -100 where unknown.
        smooth: Added above and below, in pixels.

    Example:
        >>> round(dice_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]), smooth=0.0).item(), 4)
        0.5
    """
    known = (target != UNKNOWN)[:, None]
    chances = torch.where(known, preds.softmax(dim=1), 0.0)
    truth = F.one_hot(target.clamp_min(0), preds.shape[1]).movedim(-1, 1).to(chances.dtype) * known
    both, mass = (chances * truth).sum(dim=(0, 2, 3)), (chances + truth).sum(dim=(0, 2, 3))
    dice = (2.0 * both + smooth) / (mass + smooth).clamp_min(1e-8)
    return (1.0 - dice[1:]).mean()
