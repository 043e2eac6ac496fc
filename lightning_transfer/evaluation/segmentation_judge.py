"""Judge each mask as it comes from the network, and keep counts alone: the maps of a whole split are large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer import metrics
from lightning_transfer.evaluation.segmentation_maps import log_odds, restore_logits
from lightning_transfer.metrics import OverlapCounts, PixelCounts
from lightning_transfer.types import Record, Schema

__all__ = ["SCORE_BINS", "DrawnMask", "JudgedMask", "MaskJudge", "judge_mask"]

SCORE_BINS: NDArray[np.float64] = np.linspace(-20.0, 20.0, 1001)
"""Limits of the log-odds that pixels are counted by: two pixels within 0.04 of each other count as equal."""


@dataclass(frozen=True)
class DrawnMask:
    """What a model drew on one picture, at the picture's own size.

    Attributes:
        place: Of the record in its split.
        labels: Class of each pixel ``(H, W)``.
        score: Highest probability of anything but the background.
        area: Pixels of each class, ``(C,)``.
    """

    place: int
    labels: NDArray[np.int64]
    score: float
    area: NDArray[np.float64]


@dataclass(frozen=True)
class JudgedMask:
    """How a mask compares with the truth: counts and distances of one picture.

    Attributes:
        place: Of the record in its split.
        overlap: Pixels of each class, ``(1, C)`` each.
        distance: 95 % Hausdorff distance of each class ``(C,)``; NaN where the prediction or the truth lacks it.
        unit: Of the distance: ``mm`` or ``px``.
        pixels: Pixels by their log-odds, those of all classes but the background as defects.
        score: Highest log-odds of a pixel whose truth is known.
    """

    place: int
    overlap: OverlapCounts
    distance: NDArray[np.float64]
    unit: str
    pixels: PixelCounts
    score: float

    @property
    def shows(self) -> bool:
        """Whether the truth shows anything but the background."""
        return bool(self.overlap.true[0, 1:].any())

    @property
    def draws(self) -> bool:
        """Whether the prediction does, where the truth is known."""
        return bool(self.overlap.predicted[0, 1:].any())

    @property
    def dice(self) -> float:
        """Dice of all classes but the background together, each pixel right only in its own class; NaN without any."""
        mass = self.overlap.predicted[0, 1:].sum() + self.overlap.true[0, 1:].sum()
        return float(2.0 * self.overlap.both[0, 1:].sum() / mass) if mass else float("nan")


def judge_mask(
    place: int,
    logits: NDArray[np.float32],
    target: NDArray[np.int64],
    spacing: tuple[float, float] | None = None,
) -> JudgedMask:
    """Compare one picture's logits with the truth.

    Args:
        place: Of the record in its split.
        logits: ``(C, H, W)`` at the size of the truth.
        target: Classes ``(H, W)``, negative where unknown.
        spacing: Millimetres of a pixel, down and across; None measures in pixels.

    Raises:
        ValueError: If the shapes do not fit, or a logit is not finite.
    """
    if logits.shape[1:] != target.shape:
        raise ValueError(f"Expected logits of the truth's size {target.shape}, got {logits.shape[1:]}.")
    labels, known = logits.argmax(axis=0), target >= 0
    odds = log_odds(logits).astype(np.float64)
    counted = metrics.count_pixels(odds, known & (target > 0), SCORE_BINS)
    if not known.all():
        unknown = np.searchsorted(SCORE_BINS, odds[~known], side="right")
        counted.normal[0] -= np.bincount(unknown, minlength=len(SCORE_BINS) + 1)
    # Half the memory: counts of pixels are whole, and shares of regions need no more.
    pixels = PixelCounts(*(part.astype(np.float32) for part in counted))
    distance = np.full(len(logits), np.nan)
    for name in range(1, len(logits)):
        distance[name] = metrics.hausdorff95(
            known & (labels == name), known & (target == name), (1.0, 1.0) if spacing is None else spacing
        )
    return JudgedMask(
        place,
        metrics.count_overlap(labels, target, len(logits)),
        distance,
        "px" if spacing is None else "mm",
        pixels,
        float(odds[known].max()) if known.any() else float("nan"),
    )


class _HasMasks(Protocol):
    """What the judge asks of a datamodule."""

    def input_size(self, record: Record) -> tuple[int, int]: ...
    def load_labels(self, record: Record) -> NDArray[np.int64] | None: ...
    def pixel_spacing(self, record: Record) -> tuple[float, float] | None: ...


class MaskJudge:
    """Take a model's outputs batch by batch; keep what was drawn and how it compares, each record once.

    Args:
        data: Reads truth and sizes.
        records: Of the split.
        schema: Classes and preprocessing.
        compare: Whether to read the truth.
        on_drawn: Called with each mask at the picture's size, to write it; masks are not kept.

    Attributes:
        judged: Of the records whose truth is known, by their places.
        unknown: Places of the records without a truth.
    """

    def __init__(
        self,
        data: _HasMasks,
        records: Sequence[Record],
        schema: Schema,
        *,
        compare: bool = True,
        on_drawn: Callable[[DrawnMask], object] | None = None,
    ) -> None:
        self.data = data
        self.records = records
        self.schema = schema
        self.compare = compare
        self.on_drawn = on_drawn
        self.judged: dict[int, JudgedMask] = {}
        self.unknown: set[int] = set()

    def __call__(self, output: Any) -> None:  # noqa: ANN401 - a PixelOutput
        """Judge each picture of a batch."""
        for place, logits in zip(output.index.tolist(), output.logits, strict=True):
            self.add(int(place), logits)

    def add(self, place: int, logits: Tensor) -> None:
        """Judge one picture by its logits ``(C, h, w)`` in the network's frame; one seen before is left out."""
        if place in self.judged or place in self.unknown:
            return
        record = self.records[place]
        target = self.data.load_labels(record) if self.compare else None
        size = self.data.input_size(record) if target is None else (target.shape[0], target.shape[1])
        restored = restore_logits(logits, size, self.schema.preprocessing)
        if not np.isfinite(restored).all():
            raise ValueError(f"The network's output for `{record.id}` is not finite. Its weights may have diverged.")
        if self.on_drawn is not None:
            labels = restored.argmax(axis=0).astype(np.int64)
            area = np.bincount(labels.ravel(), minlength=len(restored)).astype(np.float64)
            score = 1.0 / (1.0 + np.exp(-float(log_odds(restored).max())))
            self.on_drawn(DrawnMask(place, labels, score, area))
        if target is None or not (target >= 0).any():
            self.unknown.add(place)
            return
        self.judged[place] = judge_mask(place, restored, target, self.data.pixel_spacing(record))

    def rows(self) -> list[JudgedMask]:
        """Return what was judged, in the order of the records."""
        return [self.judged[place] for place in sorted(self.judged)]
