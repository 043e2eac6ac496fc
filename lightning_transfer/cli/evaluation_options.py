"""The section ``evaluation`` of a config. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["EvaluationOptions"]

Baselines = list[Literal["majority", "knn", "linear_probe"]]


def _all_baselines() -> Baselines:
    return ["majority", "knn", "linear_probe"]


@dataclass
class EvaluationOptions:
    """How a trained model is calibrated and judged.

    Attributes:
        max_false_reject_rate: Share of good items that the threshold may reject, measured on the calibration split.
            After the fit: one of the rates that have a threshold (the fit's, 1, 2 and 5%).
        baselines: Plain methods that ``test`` puts beside the model; they read the training split again.
        nearest_examples: Training records whose features travel in ``model.ckpt``, so that each prediction can name
            the most similar one; with more records a share of each class. 0 keeps none.

    Raises:
        ValueError: If a number is out of range: better before the fit than after it.
    """

    max_false_reject_rate: float = 0.05
    baselines: Baselines = field(default_factory=_all_baselines)
    nearest_examples: int = 10_000

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_false_reject_rate <= 1.0:
            raise ValueError(
                f"Expected `max_false_reject_rate` in [0, 1], got {self.max_false_reject_rate}. 0.05 rejects up to one "
                "good part in twenty."
            )
        if self.nearest_examples < 0:
            raise ValueError(f"Expected `nearest_examples` of at least 0, got {self.nearest_examples}. 0 keeps none.")
