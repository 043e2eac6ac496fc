"""AUROC of each label that grows batch by batch, over all processes; undefined is NaN, not 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["LabelAUROC", "auroc_of_columns"]


def auroc_of_columns(preds: Tensor, target: Tensor) -> Tensor:
    """Return the AUROC of each column: the chance that a positive scores higher than a negative, ties one half.

    Args:
        preds: Scores ``(N, C)``, higher means positive.
        target: ``(N, C)``: 1, 0, and anything else (NaN, a soft label, -1) for what is not known.

    Returns:
        Float64 tensor of shape ``(C,)`` on the CPU; NaN where a column has no positive or no negative.

    Example:
        >>> scores, nan = torch.tensor([[0.1, 0.5], [0.4, 0.5], [0.35, 0.5], [0.8, 0.5]]), float("nan")
        >>> auroc_of_columns(scores, torch.tensor([[0, 1], [0, 0], [1, nan], [1, 0.3]]))
        tensor([0.7500, 0.5000], dtype=torch.float64)
    """
    if preds.ndim != 2 or preds.shape != target.shape:
        raise ValueError(f"Expected `preds` and `target` of one shape (N, C), got {preds.shape} and {target.shape}.")
    scores, labels = preds.detach().cpu().double(), target.detach().cpu()
    found = []
    for score, label in zip(scores.T, labels.T, strict=True):
        positive, negative = score[label == 1], score[label == 0].sort().values
        if not len(positive) or not len(negative) or not bool(torch.cat([positive, negative]).isfinite().all()):
            found.append(torch.tensor(torch.nan, dtype=torch.float64))
            continue
        # The positives' own order does not matter; contiguous, or torch warns.
        below, up_to = (torch.searchsorted(negative, positive.contiguous(), right=right) for right in (False, True))
        found.append((below + up_to).double().mean() / (2 * len(negative)))
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)


class LabelAUROC(Metric):  # type: ignore[misc]  # torchmetrics is not followed
    """AUROC of each label, of all that was seen.

    torchmetrics' own says 0 where a label has no positives, which a mean over the labels would count.

    Args:
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> metric = LabelAUROC()
        >>> metric.update(torch.tensor([[0.2, 0.5], [0.9, 0.5]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
        >>> metric.compute()
        tensor([1., nan], dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add scores and labels ``(N, C)``; see `auroc_of_columns`."""
        self.preds.append(preds.detach().float())
        self.target.append(target.detach().float())

    def compute(self) -> Tensor:
        """Return the AUROC of each label ``(C,)``; NaN where it is undefined. torchmetrics makes a scalar of one."""
        # Of several processes the states come joined.
        preds, target = (torch.cat(item) if isinstance(item, list) else item for item in (self.preds, self.target))
        return auroc_of_columns(preds, target)
