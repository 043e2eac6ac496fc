"""The model-based part of a check of the data: suspected label errors as findings and as rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.data import write_table
from lightning_transfer.errors import listing
from lightning_transfer.evaluation.suspects import Suspect, find_suspects, rank_groups
from lightning_transfer.evaluation.terminal import align
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record, Schema

__all__ = ["SUSPECT_COLUMNS", "LabelCheck", "check_labels", "format_suspects", "label_indices", "write_suspects"]

SUSPECT_COLUMNS = ("id", "path", "label", "suggested", "score", "likely")

# At least this share of the records is listed, so that who looks further finds the next ones.
_LISTED = 0.05
# Where votes across groups contradict more labels than this, they say more about the features than about the labels.
_MAX_CONTRADICTED = 0.1


@dataclass(frozen=True)
class LabelCheck:
    """What the neighbours say of the labels.

    Attributes:
        findings: Notes, never errors: a suspect is to be looked at.
        suspects: Rows with the keys of ``SUSPECT_COLUMNS``, the most suspicious first: all likely errors, and at least
            5% of the labelled records.
        num_labels: Labels that were judged; those of all classes for multi-label.
    """

    findings: tuple[Finding, ...]
    suspects: tuple[dict[str, Any], ...]
    num_labels: int


def check_labels(
    records: Sequence[Record], features: Tensor | NDArray[Any], schema: Schema, *, show_progress: bool = False
) -> LabelCheck:
    """Rank the labels of records by how much their neighbours in feature space contradict them.

    Records are judged by all others, near-copies too: see `find_suspects`. Where there are groups of several records,
    they are judged once more by other groups alone, and groups that look wrong as a whole become a finding of their
    own, unless the features tell new groups too poorly to say so. Multi-label: each class on its known labels, named
    ``crack`` or ``not crack``.

    Args:
        records: Of any splits; without a label they are left out.
        features: Of a frozen backbone, a row for each record.
        schema: Names task and classes.
        show_progress: Whether to show a bar.

    Raises:
        ValueError: If there is not one row for each record, or a feature is not finite.
    """
    if len(features) != len(records):
        raise ValueError(f"Expected one row of features for each of {len(records)} records, got {len(features)}.")
    groups = [record.group for record in records]
    suspects: list[Suspect] = []
    by_group: list[Suspect] = []
    sizes = Counter(name for name in groups if name is not None)
    grouped = len(sizes) > 1 and max(sizes.values()) > 1 and schema.task != "multilabel"
    for names, labels in _columns(records, schema):
        suspects += find_suspects(features, labels, names, show_progress=show_progress)
        if grouped:
            by_group += find_suspects(features, labels, names, groups=groups, show_progress=show_progress)
    suspects.sort(key=lambda item: (not item.likely, -round(item.score, 9), item.index))
    num_likely = sum(item.likely for item in suspects)
    rows = [_row(records[item.index], item) for item in suspects[: max(num_likely, int(_LISTED * len(suspects)))]]
    findings = []
    if num_likely:
        findings.append(
            Finding(
                "label-suspects",
                "note",
                f"{num_likely} of {len(suspects)} labels are contradicted by the nearest records in feature space.",
                num_likely,
                tuple(
                    f"{row['id']} ({row['label']}, probably {row['suggested']})" for row in rows[:20] if row["likely"]
                ),
                "Look at them in `suspects.csv`, the most suspicious first. Correct what is wrong; some are right and"
                " unusual.",
            )
        )
    if by_group:
        findings += _group_finding(by_group, groups)
    return LabelCheck(tuple(findings), tuple(rows), len(suspects))


def write_suspects(path: str | Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write the ranked rows as CSV or JSON lines; text that a spreadsheet would run as a formula is disarmed.

    Raises:
        DataError: If the file exists.
    """
    return write_table(path, [[row[name] for name in SUSPECT_COLUMNS] for row in rows], SUSPECT_COLUMNS)


def format_suspects(check: LabelCheck, limit: int = 10) -> str:
    """Return the first suspects as a table for the terminal, and how many are likely errors.

    Example:
        >>> row = {"id": "7.png", "path": "/data/7.png", "label": "free", "suggested": "pit"}
        >>> row |= {"score": 1.0, "likely": True}
        >>> print(format_suspects(LabelCheck((), (row,), num_labels=20)))
        Suspected label errors: 1 of 20 labels likely
          record  label  neighbours  score  likely
          7.png   free   pit         1.000  yes
    """
    num_likely = sum(row["likely"] for row in check.suspects)
    if not num_likely:
        return f"Suspected label errors: none of {check.num_labels} labels likely"
    table: list[tuple[str, ...]] = [("record", "label", "neighbours", "score", "likely")]
    for row in check.suspects[:limit]:
        # A text says more than its row number; a path ends in the id.
        name = row["id"] if row["path"].endswith(row["id"]) else row["path"] or row["id"]
        about = (_short(name), _short(row["label"]), _short(row["suggested"]))
        table.append((*about, f"{row['score']:.3f}", "yes" if row["likely"] else "no"))
    head = f"Suspected label errors: {num_likely} of {check.num_labels} labels likely"
    return "\n".join([head, *(f"  {line}" for line in align(table))])


def label_indices(records: Sequence[Record], schema: Schema) -> NDArray[np.int64]:
    """Return the class of each record as an index, -1 where it is unknown; not for multi-label.

    Example:
        >>> schema = Schema(task="multiclass", classes=("good", "pit"))
        >>> label_indices([Record(id="1", input=None, label="pit"), Record(id="2", input=None)], schema).tolist()
        [1, -1]
    """
    places = {name: place for place, name in enumerate(schema.classes)}
    return np.array([places.get(record.label, -1) for record in records], dtype=np.int64)  # type: ignore[arg-type]


def _columns(records: Sequence[Record], schema: Schema) -> list[tuple[tuple[str, ...], NDArray[np.int64]]]:
    """Return the questions to ask: names of the answers, and the answer that each record has."""
    if schema.task != "multilabel":
        return [(schema.classes, label_indices(records, schema))]
    columns: list[tuple[tuple[str, ...], NDArray[np.int64]]] = []
    for place, name in enumerate(schema.classes):
        values = [record.label[place] if isinstance(record.label, tuple) else None for record in records]
        labels = np.array([-1 if value is None else int(value) for value in values], dtype=np.int64)
        columns.append(((f"not {name}", name), labels))
    return columns


def _group_finding(suspects: Sequence[Suspect], groups: Sequence[str | None]) -> list[Finding]:
    contradicted = sum(item.likely for item in suspects) / len(suspects)
    if contradicted > _MAX_CONTRADICTED:
        return [
            Finding(
                "label-suspects-of-groups",
                "note",
                f"A group that is labelled wrong as a whole could not be told: judged by other groups alone,"
                f" {100 * contradicted:.0f}% of the labels are contradicted, which says more about the features.",
                0,
            )
        ]
    likely = [item for item in rank_groups(suspects, groups) if item.likely]
    if not likely:
        return []
    return [
        Finding(
            "label-suspects-of-groups",
            "note",
            f"{len(likely)} groups are labelled otherwise than the records of other groups suggest:"
            f" {listing(item.group for item in likely)}.",
            len(likely),
            tuple(
                f"{item.group} ({item.label}, probably {item.suggested}, {item.num_records} records)"
                for item in likely[:20]
            ),
            "Look whether the whole group got the wrong label.",
        )
    ]


def _row(record: Record, suspect: Suspect) -> dict[str, Any]:
    return {
        "id": record.id,
        "path": str(record.input) if isinstance(record.input, str | Path) else "",
        "label": suspect.label,
        "suggested": suspect.suggested,
        "score": round(suspect.score, 4),
        "likely": suspect.likely,
    }


def _short(text: str, width: int = 60) -> str:
    """Return one line of printable text that does not widen the table."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= width else f"{plain[: width - 3]}..."
