"""Write routing decisions as JSON lines: one for each input, in order, unreadable ones too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_transfer.data import Skipped
from lightning_transfer.data.predictions import insert_skipped
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation.routing_decide import UNREADABLE, RoutingDecision
from lightning_transfer.files import write_text
from lightning_transfer.types import Record

__all__ = ["write_decisions"]


def write_decisions(
    path: str | Path, records: Sequence[Record], decisions: Sequence[RoutingDecision], skipped: Sequence[Skipped] = ()
) -> Path:
    """Write ``predictions.jsonl``; the file appears whole or not at all.

    Args:
        path: Of the file.
        records: What was decided about.
        decisions: One for each record, in their order.
        skipped: Inputs that could not be read; they get their lines at their places.

    Returns:
        The path.

    Raises:
        ValueError: If a decision is not that of its record.
        DataError: If the file exists.
    """
    file = Path(path)
    if file.exists():
        raise DataError(f"`{file}` exists and is not written over. Choose another path or move it away.")
    rows = []
    for record, decision in zip(records, decisions, strict=True):
        if record.id != decision.id:
            raise ValueError(f"The decision of `{decision.id}` stands where that of `{record.id}` belongs.")
        rows.append(decision.to_dict(_label(record)))

    def unreadable(skip: Skipped) -> Any:  # noqa: ANN401 - plain values
        nothing = RoutingDecision(skip.record.id, UNREADABLE, None, (), None, None, None, None, skip.reason)
        return nothing.to_dict(_label(skip.record))

    insert_skipped(rows, skipped, unreadable)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
    return file


def _label(record: Record) -> Any:  # noqa: ANN401 - a class name, or None
    return record.label
