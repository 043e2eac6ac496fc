"""What the decisions did: who was taken for whom, and which defects were let through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.data import write_table
from lightning_transfer.evaluation.scores import decided_classes, decision_score, negative_index
from lightning_transfer.files import write_json
from lightning_transfer.types import Calibration, Record, Schema

if TYPE_CHECKING:
    from lightning_transfer.evaluation.results import ClassificationResult

__all__ = ["confusion_matrix", "find_escapes", "write_confusion"]


def confusion_matrix(target: NDArray[Any], chosen: NDArray[np.int64], schema: Schema) -> tuple[tuple[int, ...], ...]:
    """Return how many records of each true class (rows) got each class (columns); empty for multi-label.

    Example:
        >>> schema = Schema(task="binary", classes=("good", "bad"))
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), schema)
        ((1, 1), (0, 1))
    """
    if schema.task == "multilabel":
        return ()
    table = np.zeros((schema.num_classes, schema.num_classes), dtype=np.int64)
    np.add.at(table, (target, chosen), 1)
    return tuple(tuple(row) for row in table.tolist())


def find_escapes(
    records: Sequence[Record], logits: NDArray[Any], target: NDArray[Any], schema: Schema, calibration: Calibration
) -> tuple[str, ...] | None:
    """Return the ids of the defects that are decided to be none, the lowest score first.

    Args:
        records: With a label, ``N`` of them.
        logits: ``(N, num_logits)``, before temperature.
        target: Class indices ``(N,)``.
        schema: Names the negative class; None is returned where it does not.
        calibration: Temperature and threshold; without a threshold the most probable class decides.
    """
    negative = negative_index(schema)
    if negative is None:
        return None
    score, _ = decision_score(logits, schema, calibration.temperature)
    missed = np.flatnonzero((target != negative) & (decided_classes(logits, schema, calibration) == negative))
    return tuple(records[place].id for place in missed[np.argsort(score[missed], kind="stable")])


def write_confusion(result: ClassificationResult, folder: str | Path) -> list[Path]:
    """Write ``confusion.csv``, the decisions as a table, and ``confusion.json``; nothing for multi-label.

    The JSON holds ``classes``, ``decision`` and ``most_probable``: rows are true classes, columns what was decided,
    with the stored threshold and without any.

    Returns:
        The files.

    Raises:
        DataError: If ``confusion.csv`` exists.
    """
    if not result.decisions:
        return []
    rows = [[name, *counts] for name, counts in zip(result.classes, result.decisions, strict=True)]
    table = write_table(Path(folder) / "confusion.csv", rows, ["true class", *result.classes])
    path = Path(folder) / "confusion.json"
    write_json(
        path,
        {
            "classes": list(result.classes),
            "rows": "true class",
            "columns": "decision",
            "decision": [list(row) for row in result.decisions],
            "most_probable": [list(row) for row in result.confusion],
        },
    )
    return [table, path]
