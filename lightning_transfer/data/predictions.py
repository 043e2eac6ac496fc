"""Write what a model predicted, one row for each input, unreadable ones too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_transfer.data.tables import Skipped, write_table
from lightning_transfer.types import Calibration, Prediction, Record, Schema

__all__ = ["insert_skipped", "prediction_columns", "write_predictions"]

_FIRST = ("id", "path", "label", "group", "predicted")
_LAST = ("score", "threshold", "decision", "nearest_path", "nearest_label", "nearest_distance", "reason")


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns.

    Example:
        >>> prediction_columns(["good", "bad"])[5:7]
        ['probability_good', 'probability_bad']
    """
    return [*_FIRST, *(f"probability_{name}" for name in classes), *_LAST]


def write_predictions(
    path: str | Path,
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    schema: Schema,
    calibration: Calibration | None = None,
    *,
    skipped: Sequence[Skipped] = (),
    overwrite: bool = False,
) -> Path:
    """Write predictions as CSV or JSON lines; the file appears whole or not at all.

    ``path`` is the input where that was a file or a text, ``group`` what belongs together; ``nearest_path``, ``_label``
    and ``_distance`` describe the training example that is most alike, if the model keeps any. Several classes of a
    multi-label record are joined by ``|``. What could not be read has the decision ``unreadable``, and its reason.

    Args:
        path: Ends in ``.csv`` or ``.jsonl``.
        records: What was predicted.
        predictions: One for each record, in their order.
        schema: The classes.
        calibration: Says the threshold that was applied.
        skipped: Inputs that could not be read; they get their rows at their places.
        overwrite: Replace a file that exists.

    Returns:
        The path.

    Raises:
        ValueError: If a prediction is not that of its record.
        DataError: If the file exists and ``overwrite`` is False.
    """
    threshold = None if calibration is None else calibration.threshold
    rows = []
    for record, prediction in zip(records, predictions, strict=True):
        if record.id != prediction.id:
            raise ValueError(f"The prediction of `{prediction.id}` stands where that of `{record.id}` belongs.")
        shares = [prediction.probabilities.get(name) for name in schema.classes]
        rows.append(
            [
                *_describe(record),
                _joined(prediction.predicted),
                *(None if share is None else round(share, 6) for share in shares),
                prediction.score,
                threshold,
                _joined(prediction.decision),
                *_nearest(prediction),
                prediction.reason or None,
            ]
        )
    empty = [None] * (len(schema.classes) + 2)
    insert_skipped(
        rows,
        skipped,
        lambda skip: [*_describe(skip.record), None, *empty, "unreadable", None, None, None, skip.reason],
    )
    return write_table(path, rows, prediction_columns(schema.classes), overwrite=overwrite)


def insert_skipped(rows: list[Any], skipped: Sequence[Skipped], make: Callable[[Skipped], Any]) -> None:
    """Put a row for each input that could not be read at its place among the others; those without a place go last.

    Args:
        rows: Of what could be read, in order; gets the others.
        skipped: What could not.
        make: Its row.

    Example:
        >>> rows = ["a", "c"]
        >>> insert_skipped(rows, [Skipped(Record("b", None), "empty", 1)], lambda skip: skip.record.id)
        >>> rows
        ['a', 'b', 'c']
    """
    # By rising place, so that each comes to stand where it was: those before it are there already.
    for skip in sorted(skipped, key=lambda item: float("inf") if item.position is None else item.position):
        rows.insert(len(rows) if skip.position is None else skip.position, make(skip))


def _describe(record: Record) -> list[Any]:
    """Return id, path, label and group as text."""
    label: Any = record.label
    if isinstance(label, tuple):
        label = "|".join("?" if value is None else f"{value:g}" for value in label)
    return [record.id, str(record.input) if isinstance(record.input, str | Path) else None, label, record.group]


def _nearest(prediction: Prediction) -> list[Any]:
    near = prediction.nearest
    return [None, None, None] if near is None else [near.path, near.label, near.distance]


def _joined(classes: str | tuple[str, ...] | None) -> str | None:
    return "|".join(classes) if isinstance(classes, tuple) else classes
