"""From logits to classes, probabilities and the decision score: the one place that knows what each task means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.errors import TransferError, listing
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.metrics import log_probabilities
from lightning_transfer.types import Calibration, Schema

__all__ = ["decided_classes", "decision_score", "labels_of", "negative_index", "predicted_classes"]


def negative_index(schema: Schema) -> int | None:
    """Return which class means "nothing found": the schema's, or the first of two; None if there is none.

    Example:
        >>> negative_index(Schema(task="binary", classes=("good", "bad")))
        0
    """
    if schema.task == "multilabel":
        return None
    if schema.negative_class is not None:
        return schema.classes.index(schema.negative_class)
    return 0 if schema.task == "binary" else None


def labels_of(outputs: Outputs, schema: Schema) -> NDArray[Any]:
    """Return the labels as class indices ``(N,)`` with -1 for missing, or for multi-label ``(N, C)`` with NaN.

    A soft label, between 0 and 1, is for training: nothing can be judged by it, so it is missing here.

    Raises:
        TransferError: If there are no labels, or the shapes or values do not fit the schema.
    """
    if outputs.target is None:
        raise TransferError(
            f"The {len(outputs)} records have no labels, so there is nothing to compare with. Give the label column, "
            "or use `predict`."
        )
    if outputs.logits.ndim != 2 or outputs.logits.shape[1] != schema.num_logits:
        raise TransferError(
            f"The model returns logits of shape {tuple(outputs.logits.shape)}, and the data have {schema.num_classes} "
            f"classes ({listing(schema.classes)}), which need {schema.num_logits}. Use the data of this model."
        )
    wrong = np.flatnonzero(~np.isfinite(outputs.logits.numpy()).all(axis=1))
    if len(wrong):
        raise TransferError(
            f"The logits of {len(wrong)} of {len(outputs)} records are NaN or infinite, first at index "
            f"{int(outputs.index[wrong[0]])}. Training has diverged: lower the learning rate."
        )
    target = outputs.target.numpy()
    if schema.task == "multilabel":
        labels = target.astype(np.float64).reshape(len(outputs), schema.num_classes)
        return np.where((labels == 0.0) | (labels == 1.0), labels, np.nan)
    flat = target.reshape(len(outputs))
    if schema.task == "binary":
        flat = flat.astype(np.float64)
        flat = np.where((flat == 0.0) | (flat == 1.0), flat, -1.0)
    classes = flat.astype(np.int64)
    if len(classes) and classes.max() >= schema.num_classes:
        raise TransferError(f"A label has the number {classes.max()}, and there are {schema.num_classes} classes.")
    return np.asarray(np.where(classes < 0, -1, classes))


def predicted_classes(logits: NDArray[Any], schema: Schema) -> NDArray[np.int64]:
    """Return the most probable class ``(N,)``, or for multi-label 0 / 1 ``(N, C)``; no threshold plays a part."""
    if schema.task == "multiclass":
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)
    called = (logits >= 0).astype(np.int64)
    return called[:, 0] if schema.task == "binary" else called


def decision_score(
    logits: NDArray[Any], schema: Schema, temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``1 - p(negative class)`` and its log-odds, each ``(N,)``.

    The threshold is on the first. Curves rank by the second: in float64 it still tells records apart where the
    probability is rounded to 1.

    Raises:
        ValueError: If the schema has no negative class.

    Example:
        >>> schema = Schema(task="multiclass", classes=("good", "pit"), negative_class="good")
        >>> score, log_odds = decision_score(np.array([[100.0, 0.0]]), schema, temperature=1.0)
        >>> bool(score[0] > 0), log_odds.tolist()
        (True, [-100.0])
    """
    negative = negative_index(schema)
    if negative is None:
        raise ValueError(
            f"The classes {listing(schema.classes)} have no negative class, so there is no decision score."
        )
    log_probs = log_probabilities(logits, schema.task, temperature)
    others = np.logaddexp.reduce(np.delete(log_probs, negative, axis=1), axis=1)
    return np.exp(others), others - log_probs[:, negative]


def decided_classes(logits: NDArray[Any], schema: Schema, calibration: Calibration) -> NDArray[np.int64]:
    """Return the class that the stored threshold decides for ``(N,)``; multi-label: 0 / 1 ``(N, C)``.

    Below the threshold that is the negative class; from it on the most probable of the others, even where the negative
    class is more probable than each of them alone. Without a threshold the most probable class decides. Multi-label: a
    class is called where its probability reaches its own threshold, and one half where none are stored.

    Raises:
        TransferError: If there is not one stored threshold for each label.

    Example:
        >>> schema = Schema(task="multiclass", classes=("good", "pit", "dent"), negative_class="good")
        >>> logits = np.array([[1.0, 0.0, 0.5], [3.0, 0.0, 0.0]])
        >>> decided_classes(logits, schema, Calibration(threshold=0.4)).tolist()
        [2, 0]
    """
    if schema.task == "multilabel" and calibration.label_thresholds:
        if len(calibration.label_thresholds) != schema.num_classes:
            raise TransferError(
                f"The calibration has {len(calibration.label_thresholds)} label thresholds, and there are "
                f"{schema.num_classes} classes: {listing(schema.classes)}. Fit the calibration with these classes."
            )
        probs = np.exp(log_probabilities(logits, schema.task, calibration.temperature))
        return (probs >= np.array(calibration.label_thresholds)).astype(np.int64)
    negative = negative_index(schema)
    if negative is None or calibration.threshold is None:
        return predicted_classes(logits, schema)
    score, _ = decision_score(logits, schema, calibration.temperature)
    log_probs = log_probabilities(logits, schema.task, calibration.temperature).copy()
    log_probs[:, negative] = -np.inf
    return np.where(score >= calibration.threshold, log_probs.argmax(axis=1), negative)
