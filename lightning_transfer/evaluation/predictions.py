"""From logits to predictions: the one place that applies temperature and threshold to single records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.evaluation.scores import decision_score, negative_index, predicted_classes
from lightning_transfer.metrics import probabilities
from lightning_transfer.types import Calibration, Prediction, Schema

__all__ = ["predictions"]


def predictions(logits: Tensor, ids: Sequence[str], schema: Schema, calibration: Calibration) -> list[Prediction]:
    """Turn logits ``(N, num_logits)`` into predictions, with the stored temperature and threshold.

    A row whose logits are not finite stays, with the decision ``undefined`` and the reason: no input loses its row.

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
    probs = probabilities(values, schema.task, calibration.temperature)
    negative = negative_index(schema)
    scores = None if negative is None else decision_score(values, schema, calibration.temperature)[0]
    result = []
    for place, key in enumerate(ids):
        if not finite[place]:
            result.append(Prediction(key, None, {}, None, "undefined", "the logits are not finite"))
            continue
        share = dict(zip(schema.classes, map(float, probs[place]), strict=True))
        if schema.task == "multilabel":
            labels = tuple(name for name, called in zip(schema.classes, chosen[place], strict=True) if called)
            result.append(Prediction(key, labels, share, None, labels))
            continue
        predicted = schema.classes[int(chosen[place])]
        score = None if scores is None else float(scores[place])
        decision = predicted
        if score is not None and negative is not None and calibration.threshold is not None:
            decision = schema.classes[_decide(probs[place], negative, score >= calibration.threshold)]
        result.append(Prediction(key, predicted, share, score, decision))
    return result


def _decide(probs: NDArray[np.float64], negative: int, found: bool) -> int:
    others = np.where(np.arange(len(probs)) == negative, -1.0, probs)
    return int(others.argmax()) if found else negative
