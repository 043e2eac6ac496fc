"""From logits to predictions: the one place that applies temperature and threshold to single records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lightning_transfer.evaluation.scores import decided_classes, decision_score, negative_index, predicted_classes
from lightning_transfer.metrics import probabilities
from lightning_transfer.types import Calibration, Neighbour, Prediction, Schema

__all__ = ["predictions"]


def predictions(
    logits: Tensor,
    ids: Sequence[str],
    schema: Schema,
    calibration: Calibration,
    nearest: Sequence[Neighbour | None] | None = None,
) -> list[Prediction]:
    """Turn logits ``(N, num_logits)`` into predictions, with the stored temperature and thresholds.

    A row whose logits are not finite stays, with the decision ``undefined`` and the reason: no input loses its row.

    Args:
        logits: Before any temperature.
        ids: Of the records.
        schema: Task and classes.
        calibration: Temperature and thresholds.
        nearest: The nearest training example of each record, of `TrainingExamples.nearest`.

    Example:
        >>> import torch
        >>> schema = Schema(task="multiclass", classes=("good", "pit", "scratch"), negative_class="good")
        >>> calibration = Calibration(threshold=0.2)
        >>> [row] = predictions(torch.tensor([[1.0, 0.0, -1.0]]), ["a.png"], schema, calibration)
        >>> row.predicted, round(row.score, 3), row.decision
        ('good', 0.335, 'pit')
    """
    raw = logits.double().numpy().reshape(len(ids), schema.num_logits)
    finite = np.isfinite(raw).all(axis=1)
    values = np.where(finite[:, None], raw, 0.0)
    chosen = predicted_classes(values, schema)
    decided = decided_classes(values, schema, calibration)
    probs = probabilities(values, schema.task, calibration.temperature)
    scores = None
    if negative_index(schema) is not None:
        scores, _ = decision_score(values, schema, calibration.temperature)
    neighbours = [None] * len(ids) if nearest is None else nearest
    result = []
    for place, (key, neighbour) in enumerate(zip(ids, neighbours, strict=True)):
        if not finite[place]:
            result.append(Prediction(key, None, {}, None, "undefined", "the logits are not finite"))
            continue
        share = dict(zip(schema.classes, map(float, probs[place]), strict=True))
        if schema.task == "multilabel":
            labels, decided_labels = (
                tuple(name for name, called in zip(schema.classes, row[place], strict=True) if called)
                for row in (chosen, decided)
            )
            result.append(Prediction(key, labels, share, None, decided_labels, nearest=neighbour))
            continue
        predicted, decision = schema.classes[int(chosen[place])], schema.classes[int(decided[place])]
        score = None if scores is None else float(scores[place])
        result.append(Prediction(key, predicted, share, score, decision, nearest=neighbour))
    return result
