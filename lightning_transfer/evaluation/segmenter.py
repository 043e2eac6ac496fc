"""Use a finished run that draws masks from Python: pictures in, masks at their own size out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_transfer.evaluation.predictor import Predictor
from lightning_transfer.evaluation.segmentation_maps import log_odds, present_classes, restore_logits
from lightning_transfer.types import Batch, Record

__all__ = ["PredictedMask", "Segmenter"]


@dataclass(frozen=True)
class PredictedMask:
    """What a model draws on one picture.

    Attributes:
        id: The record's id, the path, or the position as text.
        labels: Number of the class of each pixel ``(H, W)``, at the picture's own size; 0 is the background.
        probabilities: Of each class and pixel, ``(C, H, W)`` float32.
        predicted: Names of the classes but the background that it shows.
        score: Highest probability of anything but the background.
    """

    id: str
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    predicted: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Segmenter(Predictor):
    """A restored model that draws masks; ``load`` makes it of such a run.

    Attributes are those of `Predictor`.
    """

    def predict(self, items: Sequence[Any], batch_size: int = 8) -> list[PredictedMask]:  # type: ignore[override]
        """Return the mask of each item, in order, at the picture's own size.

        Args:
            items: Records, or what the preprocessing reads: paths, PIL images or arrays.
            batch_size: Items in one forward pass; memory grows with it.

        Raises:
            TypeError: If a single item is passed.
            ValueError: If ``batch_size`` is smaller than 1.
            DataError: If a picture cannot be read.
        """
        if isinstance(items, str | Path | Record):
            raise TypeError(f"Expected a sequence of items, got one {type(items).__name__}. Write `predict([item])`.")
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` of at least 1, got {batch_size}.")
        device = next(self.module.parameters()).device
        modes = {part: part.training for part in self.module.modules()}
        self.module.eval()
        found: list[PredictedMask] = []
        try:
            with torch.inference_mode():
                for start in range(0, len(items), batch_size):
                    found += self._draw(items[start : start + batch_size], start, device)
        finally:
            for part, training in modes.items():
                part.training = training
        return found

    def _draw(self, items: Sequence[Any], start: int, device: torch.device) -> list[PredictedMask]:
        spec: Any = self.preprocess  # with `read`, as that of images
        inputs = [item.input if isinstance(item, Record) else item for item in items]
        pixels = torch.stack([spec(item) for item in inputs]).to(device)
        output: Any = self.module.predict_step(Batch(pixels, None, torch.arange(len(items))), 0)
        drawn = []
        for place, (item, logits) in enumerate(zip(items, output.logits, strict=True)):
            height, width = spec.read(inputs[place]).shape[:2]
            restored = restore_logits(logits, (height, width), self.schema.preprocessing)
            labels = restored.argmax(axis=0).astype(np.int64)
            chances = torch.from_numpy(restored).softmax(dim=0).numpy()
            name = item.id if isinstance(item, Record) else str(item) if isinstance(item, str | Path) else ""
            score = 1.0 / (1.0 + float(np.exp(-log_odds(restored).max())))
            shown = present_classes(labels, self.schema.classes)
            drawn.append(PredictedMask(name or str(start + place), labels, chances, shown, score))
        return drawn
