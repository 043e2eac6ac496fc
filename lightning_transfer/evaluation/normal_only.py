"""What a normal-only model adds to the scores of a classifier: recall of each kind of defect, and where it looked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer import metrics
from lightning_transfer.data.schema import ORIGINAL_LABEL
from lightning_transfer.evaluation.normal_only_maps import image_map, known_mask
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import decision_score
from lightning_transfer.metrics import Interval, PixelCounts
from lightning_transfer.types import Calibration, Record, Schema

__all__ = ["evaluate_localisation", "recall_by_kind"]

_log = logging.getLogger(__name__)

_NAMES = ("pixel_auroc", "pro")
# Pixels from which the bins are made.
_SAMPLE = 1_000_000


def recall_by_kind(
    outputs: Outputs,
    records: Sequence[Record],
    schema: Schema,
    calibration: Calibration,
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return ``recall_at_threshold_<kind>`` of each kind of defect that was taken together, by bootstrap over groups.

    Args:
        outputs: What the model said, of one split.
        records: All records of that split; ``outputs.index`` points into them. The kind is the label as it was read.
        schema: Of the model: two classes.
        calibration: With the threshold; without one there is no recall.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
    """
    chosen = [records[place] for place in outputs.index.tolist()]
    kinds = [str(record.meta[ORIGINAL_LABEL]) if ORIGINAL_LABEL in record.meta else "" for record in chosen]
    names = sorted(set(kinds) - {""})
    if calibration.threshold is None or not names:
        return {}
    score, _ = decision_score(outputs.logits.double().numpy(), schema, calibration.temperature)
    called = (score >= calibration.threshold).astype(np.float64)
    masks = {name: np.array([kind == name for kind in kinds]) for name in names}
    drawn = metrics.resample(
        lambda weights: {name: metrics.weighted_mean(weights * mask, called) for name, mask in masks.items()},
        [record.group for record in chosen],
        n_resamples=n_resamples,
        seed=seed,
    )
    return {
        f"recall_at_threshold_{name}": drawn.interval(name, mask=masks[name], confidence=confidence) for name in names
    }


def evaluate_localisation(
    grids: Mapping[int, Tensor],
    records: Sequence[Record],
    schema: Schema,
    *,
    sigma: float = 4.0,
    max_fpr: float = 0.3,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> dict[str, Interval]:
    """Return ``pixel_auroc`` and ``pro``, with intervals by bootstrap over the records' groups.

    Maps and masks are compared at the size of each image, so that a thin defect keeps its pixels. All pixels of all
    images with a known truth count: good parts, whose mask is zero, and defects with a mask. A resample draws whole
    groups, and with them their pixels and regions. Defects without a mask are left out, and counted in a warning.

    Args:
        grids: Position of a record in ``records`` -> distances of its patches ``(h, w)``.
        records: All records of the split.
        schema: Names the negative class, and how images were put into the model's frame.
        sigma: Of the Gaussian over the maps, in pixels of that frame.
        max_fpr: Up to which false positive rate the overlap counts; MVTec AD uses 0.3.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
        show_progress: Whether to show a bar.

    Returns:
        Both, with the reason where they are undefined.

    Raises:
        DataError: If a mask cannot be read, or does not fit its image.
    """
    if schema.preprocessing.get("tiling"):
        return _undefined("images are fed in tiles, whose maps are not joined", 0)
    if not grids:
        return _undefined("no maps were kept", 0)
    negative = schema.negative_class or schema.classes[0]
    places, masks, lost = [], {}, 0
    for place in sorted(grids):
        mask = known_mask(records[place], negative)
        if mask is None:
            lost += 1
            continue
        places.append(place)
        masks[place] = np.packbits(mask), mask.shape
    if not any(packed.any() for packed, _ in masks.values()):
        return _undefined("no defect has a mask", len(places))
    if lost:
        _log.warning("%d defects have no mask: `%s` leave them out.", lost, "` and `".join(_NAMES))

    def read(place: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        packed, shape = masks[place]
        mask = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
        return image_map(grids[place], (shape[0], shape[1]), schema.preprocessing, sigma), mask

    total = sum(shape[0] * shape[1] for _, shape in masks.values())
    step = max(1, total // _SAMPLE)
    with progress("Maps", 2 * len(places), show_progress) as bar:
        sample = []
        for place in places:
            sample.append(read(place)[0].ravel()[::step])
            bar.update(1)
        bins = metrics.score_bins(np.concatenate(sample))
        parts = []
        for place in places:
            parts.append(metrics.count_pixels(*read(place), bins))
            bar.update(1)
    counts = PixelCounts.join(parts)
    drawn = metrics.resample(
        lambda weights: {
            "pixel_auroc": metrics.pixel_auroc(weights, counts),
            "pro": metrics.region_overlap(weights, counts, max_fpr),
        },
        [records[place].group for place in places],
        n_resamples=n_resamples,
        seed=seed,
    )
    reason = "no pixel lies outside of defects"
    return {name: drawn.interval(name, confidence=confidence, reason=reason) for name in _NAMES}


def _undefined(reason: str, n: int) -> dict[str, Any]:
    return {name: Interval(None, None, None, n, reason=reason) for name in _NAMES}
