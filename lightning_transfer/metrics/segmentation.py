"""How well masks fit: Dice and IoU of each class, and the 95th percentile of the distance of their borders.

The sums of each image are counted once; Dice and IoU are then products with weights ``(B, N)`` of the images, as the
bootstrap needs them. Class 0 is the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torchmetrics import Metric

from lightning_transfer.metrics.bootstrap import Float

__all__ = ["OverlapCounts", "SegmentationDice", "count_overlap", "dice", "hausdorff95", "image_dice", "iou"]

_UNKNOWN = -100


class OverlapCounts(NamedTuple):
    """Pixels of images whose class is known, counted by class.

    Attributes:
        both: In prediction and truth, ``(N, C)``.
        predicted: In the prediction, ``(N, C)``.
        true: In the truth, ``(N, C)``.
    """

    both: Float
    predicted: Float
    true: Float

    @classmethod
    def join(cls, parts: Sequence[OverlapCounts]) -> OverlapCounts:
        """Put the counts of several images below each other."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def count_overlap(preds: NDArray[np.integer[Any]], target: NDArray[np.integer[Any]], num_classes: int) -> OverlapCounts:
    """Count the pixels of one image.

    Args:
        preds: Classes ``(H, W)``.
        target: Classes ``(H, W)``, negative where unknown.
        num_classes: Background included.

    Raises:
        ValueError: If the shapes differ, or a class is out of range.

    Example:
        >>> found = count_overlap(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), 2)
        >>> found.both.tolist(), found.predicted.tolist(), found.true.tolist()
        ([[1.0, 1.0]], [[1.0, 2.0]], [[2.0, 1.0]])
    """
    if preds.shape != target.shape:
        raise ValueError(f"Expected masks of one shape, got {preds.shape} and {target.shape}.")
    known = target >= 0
    told, truth = preds[known].astype(np.int64), target[known].astype(np.int64)
    highest = max(told.max(initial=0), truth.max(initial=0))
    if highest >= num_classes:
        raise ValueError(f"A pixel has the class {highest}, and there are {num_classes} classes.")
    table = np.bincount(truth * num_classes + told, minlength=num_classes**2).reshape(num_classes, num_classes)
    counts = table.astype(np.float64)
    return OverlapCounts(np.diag(counts)[None].copy(), counts.sum(0)[None], counts.sum(1)[None])


def dice(weights: Float, counts: OverlapCounts) -> Float:
    """Return twice the common pixels over the sum of both masks, of all images together: ``(B, C)``.

    Pixels of a class in images that do not show it count against it. NaN where neither mask has a pixel of the class.

    Example:
        >>> found = count_overlap(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), 2)
        >>> dice(np.ones((1, 1)), found).round(3).tolist()
        [[0.667, 0.667]]
    """
    return _ratio(2.0 * (weights @ counts.both), weights @ counts.predicted + weights @ counts.true)


def iou(weights: Float, counts: OverlapCounts) -> Float:
    """Return the common pixels over those of either mask, of all images together: ``(B, C)``; NaN as for `dice`.

    Example:
        >>> iou(np.ones((1, 1)), count_overlap(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), 2)).tolist()
        [[0.5, 0.5]]
    """
    both = weights @ counts.both
    return _ratio(both, weights @ counts.predicted + weights @ counts.true - both)


def image_dice(counts: OverlapCounts) -> Float:
    """Return the Dice of each image and class, ``(N, C)``; NaN where the truth does not show the class.

    An image that does not show a class has no Dice of it: a single pixel too many would make it 0, none would make it
    1, and the mean would be about how many such images there are.

    Example:
        >>> image_dice(count_overlap(np.array([[0, 1, 1]]), np.array([[0, 0, 0]]), 2)).tolist()
        [[0.5, nan]]
    """
    found = _ratio(2.0 * counts.both, counts.predicted + counts.true)
    return np.where(counts.true > 0, found, np.nan)


def hausdorff95(
    preds: NDArray[np.bool_], target: NDArray[np.bool_], spacing: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Return the 95 % Hausdorff distance of two masks: from how far off the border is, but for its worst twentieth.

    The distances of the border pixels of each mask to the nearest border pixel of the other; the 95th percentile of
    either side, and the larger of the two. A border pixel has a neighbour, over an edge, that is not in the mask or not
    in the picture.

    Args:
        preds: ``(H, W)``.
        target: ``(H, W)``.
        spacing: Size of a pixel, down and across; in millimetres the distance is in millimetres.

    Returns:
        NaN where one of the masks is empty: there is no distance to nothing.

    Example:
        >>> one, two = np.zeros((5, 9), dtype=bool), np.zeros((5, 9), dtype=bool)
        >>> one[2, 1], two[2, 5] = True, True
        >>> hausdorff95(one, two), hausdorff95(one, two, (1.0, 0.5)), hausdorff95(one, one)
        (4.0, 2.0, 0.0)
    """
    if preds.shape != target.shape:
        raise ValueError(f"Expected masks of one shape, got {preds.shape} and {target.shape}.")
    if not preds.any() or not target.any():
        return float("nan")
    # Only the part that holds both: the distances inside of it are the same.
    rows, columns = (np.flatnonzero((preds | target).any(axis=axis)) for axis in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (preds[window], target[window])]
    distances = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    sides = (distances[1][borders[0]], distances[0][borders[1]])
    return float(max(np.percentile(side, 95) for side in sides))


class SegmentationDice(Metric):
    """Mean Dice of the classes but the background, over all pixels seen, for the validation loop.

    A class that the truth never shows is left out of the mean. NaN where it shows none.

    Args:
        num_classes: Background included.

    Example:
        >>> metric = SegmentationDice(2)
        >>> metric.update(torch.tensor([[[0.0, 0.0, 0.0]], [[-1.0, 1.0, 1.0]]])[None], torch.tensor([[[0, 0, 1]]]))
        >>> metric.compute()
        tensor(0.6667)
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    both: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("both", "predicted", "true"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count logits ``(N, C, H, W)`` against classes ``(N, H, W)``, -100 where unknown."""
        known = target != _UNKNOWN
        told, truth = preds.argmax(dim=1)[known], target[known]
        # Comparisons and sums, not `bincount`, which is not deterministic on GPUs.
        for place in range(self.num_classes):
            is_told, is_true = told == place, truth == place
            self.both[place] += (is_told & is_true).sum()
            self.predicted[place] += is_told.sum()
            self.true[place] += is_true.sum()

    def compute(self) -> Tensor:
        """Return the mean of the classes that were there."""
        shown = self.true[1:] > 0
        if not bool(shown.any()):
            return torch.tensor(float("nan"), device=self.true.device)
        found = 2.0 * self.both[1:] / (self.predicted[1:] + self.true[1:]).clamp_min(1.0)
        return found[shown].mean().float()


def _ratio(above: Float, below: Float) -> Float:
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))
