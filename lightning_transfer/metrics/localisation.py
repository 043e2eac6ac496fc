"""How well an anomaly map shows where the defect is: pixel AUROC, and the overlap of each region (PRO).

Both need many pixels and one decision a pixel, so each image is first counted into bins of its scores. A metric is then
a weighted sum of those counts, for many weightings of the images at once, as the bootstrap needs them: weights have the
shape ``(B, N)`` for ``N`` images, results ``(B,)``. Within a bin scores count as equal; with a bin for each distinct
score the result is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.metrics.bootstrap import Float

__all__ = ["PixelCounts", "count_pixels", "label_regions", "pixel_auroc", "region_overlap", "score_bins"]

# Even steps for most pixels, and ever finer ones for the highest scores, which few pixels of defects have.
_LEVELS = np.concatenate([np.linspace(0.0, 0.99, 1500), 1.0 - np.geomspace(0.01, 1e-6, 600)[1:]])


class PixelCounts(NamedTuple):
    """The pixels of images, counted by their scores; bins rise with the score.

    Attributes:
        normal: Pixels outside of defects, ``(N, bins)``.
        defect: Pixels of defects, ``(N, bins)``.
        overlap: Share of a region's pixels, summed over the image's regions, ``(N, bins)``.
        regions: Number of regions of each image ``(N,)``.
    """

    normal: Float
    defect: Float
    overlap: Float
    regions: Float

    @classmethod
    def join(cls, parts: Sequence[PixelCounts]) -> PixelCounts:
        """Put the counts of several images below each other."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def score_bins(scores: NDArray[np.floating]) -> Float:
    """Return the limits between bins, for scores like these: rising, the lowest score of each bin but the first.

    Up to 2,000 distinct scores have a bin each. Of more, a bin holds at most one pixel in 1,500, and in the highest
    hundredth ever fewer: the error that this leaves is below 0.001.

    Args:
        scores: Of any shape; a sample will do.

    Example:
        >>> score_bins(np.array([0.5, 0.1, 0.9, 0.5])).tolist()
        [0.5, 0.9]
    """
    distinct = np.unique(scores)
    if len(distinct) > 2000:
        distinct = np.unique(np.quantile(scores, _LEVELS))
    return np.asarray(distinct[1:], dtype=np.float64)


def count_pixels(scores: NDArray[np.floating], mask: NDArray[np.bool_], bins: Float) -> PixelCounts:
    """Count the pixels of one image.

    Args:
        scores: Anomaly map ``(H, W)``, higher means defect.
        mask: Where the defect is, ``(H, W)``.
        bins: Limits, of `score_bins`.

    Raises:
        ValueError: If map and mask have different shapes, or a score is not finite.

    Example:
        >>> counts = count_pixels(np.array([[0.1, 0.7], [0.2, 0.9]]), np.array([[False, True]] * 2), np.array([0.5]))
        >>> counts.normal.tolist(), counts.defect.tolist(), counts.regions.tolist()
        ([[2.0, 0.0]], [[0.0, 2.0]], [1.0])
    """
    if scores.ndim != 2 or scores.shape != mask.shape:
        raise ValueError(f"Expected an anomaly map and a mask of one shape (H, W), got {scores.shape}, {mask.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError(f"Expected finite scores, got {int((~np.isfinite(scores)).sum())} that are NaN or infinite.")
    width = len(bins) + 1
    places = np.searchsorted(bins, scores, side="right")
    normal = np.bincount(places[~mask], minlength=width).astype(np.float64)
    regions, number = label_regions(mask)
    inside = places[mask], regions[mask] - 1
    defect = np.bincount(inside[0], minlength=width).astype(np.float64)
    sizes = np.bincount(inside[1], minlength=number)
    overlap = np.bincount(inside[0], weights=1.0 / sizes[inside[1]], minlength=width).astype(np.float64)
    return PixelCounts(normal[None], defect[None], overlap[None], np.array([float(number)]))


def pixel_auroc(weights: Float, counts: PixelCounts) -> Float:
    """Return the area under the ROC curve of all pixels, those in one bin one half: ``(B,)``.

    NaN without a pixel of a defect, or without one outside.

    Example:
        >>> scores, mask = np.array([[0.1, 0.4], [0.4, 0.8]]), np.array([[False, False], [True, True]])
        >>> pixel_auroc(np.ones((1, 1)), count_pixels(scores, mask, score_bins(scores))).tolist()
        [0.875]
    """
    normal, defect = weights @ counts.normal, weights @ counts.defect
    below = np.cumsum(normal, axis=1) - normal / 2.0
    pairs = normal.sum(1) * defect.sum(1)
    return np.asarray(np.divide((defect * below).sum(1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))


def region_overlap(weights: Float, counts: PixelCounts, max_fpr: float = 0.3) -> Float:
    """Return the per-region overlap up to a false positive rate, PRO (Bergmann et al. 2021, section 5.1.2): ``(B,)``.

    At each threshold it is the mean, over all connected regions, of the share of the region that lies above: a small
    region counts as much as a large one. The area under this curve over the share of defect-free pixels above the
    threshold is taken up to ``max_fpr``, and divided by it; 1 is best. With 0.3 it is the usual number of MVTec AD.

    Args:
        weights: ``(B, N)``.
        counts: Of the images, the good ones too.
        max_fpr: In ``(0, 1]``.

    Returns:
        ``(B,)``; NaN without a region, or without a pixel outside of defects.

    Raises:
        ValueError: If ``max_fpr`` is out of range.

    Example:
        >>> scores, mask = np.array([[0.1, 0.2], [0.3, 0.8]]), np.array([[False, False], [False, True]])
        >>> region_overlap(np.ones((1, 1)), count_pixels(scores, mask, score_bins(scores))).tolist()
        [1.0]
    """
    if not 0.0 < max_fpr <= 1.0:
        raise ValueError(f"Expected `max_fpr` in (0, 1], got {max_fpr}. 0.3 is usual.")
    normal, overlap, regions = weights @ counts.normal, weights @ counts.overlap, weights @ counts.regions
    result = np.full(len(weights), np.nan)
    for row in np.flatnonzero((normal.sum(1) > 0) & (regions > 0)):
        # From the highest threshold, above every score, to the lowest.
        fpr = np.append(0.0, np.cumsum(normal[row, ::-1])) / normal[row].sum()
        pro = np.append(0.0, np.cumsum(overlap[row, ::-1])) / regions[row]
        inside = fpr <= max_fpr
        end = np.interp(max_fpr, fpr, pro)
        x, y = np.append(fpr[inside], max_fpr), np.append(pro[inside], end)
        result[row] = np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1])) / (2.0 * max_fpr)
    return result


def label_regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Number the connected regions of a mask; pixels that touch at a corner are connected.

    Returns:
        ``(H, W)`` with 0 outside and regions from 1, and how many there are.

    Example:
        >>> label_regions(np.array([[True, False, False], [False, True, False], [False, False, False]]))[1]
        1
    """
    # Runs of each row are the nodes; a run touches those of the row above that reach it, one pixel wider.
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parent = list(range(len(rows)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first_of_row = np.searchsorted(rows, np.arange(mask.shape[0] + 1))
    for node in range(len(rows)):
        row = rows[node]
        if row == 0:
            continue
        low, high = first_of_row[row - 1], first_of_row[row]
        low += np.searchsorted(ends[low:high], starts[node], side="left")
        for above in range(low, high):
            if starts[above] > ends[node]:
                break
            parent[root(above)] = root(node)
    roots = np.array([root(node) for node in range(len(rows))], dtype=np.int64)
    names, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros(mask.shape, dtype=np.int64)
    labels[mask] = np.repeat(numbers + 1, ends - starts)
    return labels, len(names)
