"""Write what a model predicted, one row for each input, unreadable ones too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_transfer.data.tables import Skipped, write_table
from lightning_transfer.types import Calibration, ModelOutput, Record, Schema

__all__ = ["prediction_columns", "write_predictions"]

_FIRST = ("id", "input", "label", "predicted")
_LAST = ("score", "threshold", "decision", "reason")


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns.

    Example:
        >>> prediction_columns(["good", "bad"])[4:6]
        ['probability_good', 'probability_bad']
    """
    return [*_FIRST, *(f"probability_{name}" for name in classes), *_LAST]


def write_predictions(
    path: str | Path,
    records: Sequence[Record],
    outputs: ModelOutput | Sequence[ModelOutput],
    schema: Schema,
    calibration: Calibration | None = None,
    *,
    skipped: Sequence[Skipped] = (),
    overwrite: bool = False,
) -> Path:
    """Write predictions as CSV or JSON lines; the file appears whole or not at all.

    ``predicted`` is the most probable class. ``score`` is one minus the probability of the negative class, and empty
    where there is none. With a threshold, ``decision`` is the negative class below it, else the most probable of the
    others; without one it is ``predicted``. Several classes of a multi-label record are joined by ``|``.
    ``unreadable`` and ``undefined`` (logits that are not finite) come with a reason.

    Args:
        path: Ends in ``.csv`` or ``.jsonl``.
        records: What was predicted; an output's ``index`` counts in this list.
        outputs: Of the model, in any order; an index that comes twice (padding of several processes) counts once.
        schema: Classes in the order of the logits.
        calibration: Temperature and threshold; None for neither.
        skipped: Inputs that could not be read; they get their rows at their places.
        overwrite: Replace a file that exists.

    Returns:
        The path.

    Raises:
        ValueError: If a record has no output, or the logits do not fit the classes.
        DataError: If the file exists and ``overwrite`` is False.
    """
    calibration = calibration or Calibration()
    rows = _rows(records, _logits(records, outputs, schema), schema, calibration)
    for skip in sorted(skipped, key=lambda item: len(rows) if item.position is None else item.position):
        empty = [None] * (len(schema.classes) + 2)
        row = [*_describe(skip.record), None, *empty, "unreadable", skip.reason]
        rows.insert(len(rows) if skip.position is None else skip.position, row)
    return write_table(path, rows, prediction_columns(schema.classes), overwrite=overwrite)


def _describe(record: Record) -> list[Any]:
    """Return id, input and label as text."""
    label: Any = record.label
    if isinstance(label, tuple):
        label = "|".join("?" if value is None else f"{value:g}" for value in label)
    return [record.id, str(record.input) if isinstance(record.input, str | Path) else None, label]


def _logits(records: Sequence[Record], outputs: ModelOutput | Sequence[ModelOutput], schema: Schema) -> Tensor:
    """Return the logits in the order of the records."""
    parts = [outputs] if isinstance(outputs, ModelOutput) else list(outputs)
    result = torch.full((len(records), schema.num_logits), torch.nan, dtype=torch.float64)
    seen = torch.zeros(len(records), dtype=torch.bool)
    for part in parts:
        logits = part.logits.detach().to("cpu", torch.float64).reshape(len(part.index), -1)
        if logits.shape[1] != schema.num_logits:
            raise ValueError(f"Expected {schema.num_logits} logits for {list(schema.classes)}, got {logits.shape[1]}.")
        result[part.index.cpu()] = logits
        seen[part.index.cpu()] = True
    if not seen.all():
        first = records[int(seen.int().argmin())].id
        raise ValueError(f"{int((~seen).sum())} of {len(records)} records have no output, `{first}` first.")
    return result


def _rows(records: Sequence[Record], logits: Tensor, schema: Schema, calibration: Calibration) -> list[list[Any]]:
    """Return one row a record."""
    logits = logits / calibration.temperature
    if schema.task == "multiclass":
        logs = logits.log_softmax(dim=1)
    else:
        logs = torch.nn.functional.logsigmoid(logits)
        if schema.task == "binary":
            logs = torch.cat([torch.nn.functional.logsigmoid(-logits), logs], dim=1)
    rows = []
    for record, values, finite in zip(records, logs, logits.isfinite().all(dim=1).tolist(), strict=True):
        last: list[Any]
        if finite:
            predicted, score, decision = _decide(values, schema, calibration.threshold)
            cells = [round(value, 6) for value in values.exp().tolist()]
            last = [predicted, *cells, score, calibration.threshold, decision, None]
        else:
            blank = [None] * (len(values) + 2)
            last = [*blank, calibration.threshold, "undefined", "the logits are not finite"]
        rows.append([*_describe(record), *last])
    return rows


def _decide(logs: Tensor, schema: Schema, threshold: float | None) -> tuple[str, float | None, str]:
    """Return predicted class, score and decision from the log-probabilities of one record."""
    classes = schema.classes
    if schema.task == "multilabel":
        chosen = "|".join(name for name, value in zip(classes, logs.exp().tolist(), strict=True) if value >= 0.5)
        return chosen, None, chosen
    best = int(logs[1] >= logs[0]) if schema.task == "binary" else int(logs.argmax())
    negative = 0 if schema.task == "binary" else None
    if schema.negative_class is not None:
        negative = classes.index(schema.negative_class)
    if negative is None:
        return classes[best], None, classes[best]
    others = logs.clone()
    others[negative] = -torch.inf
    # A sum of the others: exact where one minus the negative class would round to 0.
    score = float(others.logsumexp(dim=0).exp())
    if threshold is None:
        return classes[best], score, classes[best]
    return classes[best], score, classes[negative if score < threshold else int(others.argmax())]
