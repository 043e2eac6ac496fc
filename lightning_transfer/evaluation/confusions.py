"""Which class is taken for which other, most often first: what a confusion matrix of many classes cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.evaluation.scores import predicted_classes
from lightning_transfer.metrics import probabilities
from lightning_transfer.types import Calibration, Record, Schema

__all__ = ["ConfusionPair", "find_confusions"]


@dataclass(frozen=True)
class ConfusionPair:
    """The records of one class whose most probable class is another one.

    Attributes:
        true: What they are.
        predicted: What they are taken for.
        n: How many.
        share: Of all records of the true class.
        examples: Ids of the few that the model was surest of.
    """

    true: str
    predicted: str
    n: int
    share: float
    examples: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "examples": list(self.examples)}


def find_confusions(
    records: Sequence[Record],
    logits: NDArray[Any],
    target: NDArray[Any],
    schema: Schema,
    calibration: Calibration,
    *,
    most: int = 20,
    num_examples: int = 2,
) -> tuple[ConfusionPair, ...]:
    """Return the pairs of true and predicted class, the most frequent first; none for multi-label.

    Of equally frequent pairs the one with the larger share of its class comes first.

    Args:
        records: With a label, ``N`` of them.
        logits: ``(N, num_logits)``, before temperature.
        target: Class indices ``(N,)``.
        schema: Task and classes.
        calibration: Holds the temperature, which decides what the model was surest of.
        most: Pairs that are returned.
        num_examples: Ids of each pair.

    Example:
        >>> schema = Schema(task="multiclass", classes=("late", "lost"))
        >>> records = [Record(id=name, input="") for name in "abc"]
        >>> logits = np.array([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])
        >>> find_confusions(records, logits, np.array([0, 0, 0]), schema, Calibration())[0].examples
        ('b', 'a')
    """
    if schema.task == "multilabel":
        return ()
    preds = predicted_classes(logits, schema)
    confidence = probabilities(logits, schema.task, calibration.temperature).max(axis=1)
    totals = np.bincount(target, minlength=schema.num_classes)
    wrong = np.flatnonzero(preds != target)
    found: dict[tuple[int, int], list[int]] = {}
    for place in wrong[np.argsort(-confidence[wrong], kind="stable")].tolist():
        found.setdefault((int(target[place]), int(preds[place])), []).append(place)
    pairs = [
        ConfusionPair(
            true=schema.classes[true],
            predicted=schema.classes[predicted],
            n=len(places),
            share=len(places) / int(totals[true]),
            examples=tuple(records[place].id for place in places[:num_examples]),
        )
        for (true, predicted), places in found.items()
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.n, -pair.share, pair.true, pair.predicted))[:most])
