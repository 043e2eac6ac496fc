"""The errors to look at first where a record has several labels: for each finding what was missed, and false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_transfer.reporting.scores import usable_text
from lightning_transfer.reporting.worst_errors import WorstError

__all__ = ["worst_misses"]

_UNDECIDED = frozenset({"undefined", "unreadable"})


def worst_misses(
    rows: Sequence[Mapping[str, str]], classes: Sequence[str], limit: int = 4
) -> dict[str, list[WorstError]]:
    """Choose the errors that the model was surest of, finding by finding.

    Missed: the record has the finding, which was not called; the lowest probability first. False alarm: the record is
    known not to have it; the highest first. Labels that are unknown or uncertain are neither.

    Args:
        rows: Of ``predictions.csv``, whose labels are ``1``, ``0`` or ``?`` in the order of the classes.
        classes: The findings.
        limit: Errors of each kind.

    Returns:
        Title -> errors, of those that there are.

    Example:
        >>> rows = [{"id": "a", "label": "1|0", "decision": "", "probability_Edema": "0.1", "probability_Mass": "0.2"},
        ...         {"id": "b", "label": "?|0", "decision": "Edema|Mass", "probability_Mass": "0.9"}]
        >>> {title: [error.id for error in errors] for title, errors in worst_misses(rows, ["Edema", "Mass"]).items()}
        {'Edema: missed, the surest first': ['a'], 'Mass: false alarms, the surest first': ['b']}
    """
    found: dict[str, list[WorstError]] = {}
    for place, name in enumerate(classes):
        missed, alarms = [], []
        for row in rows:
            labels, decision = row.get("label", "").split("|"), row.get("decision", "")
            if decision in _UNDECIDED or len(labels) != len(classes):
                continue
            called, truth = name in decision.split("|"), usable_text(labels[place])
            if truth == 1.0 and not called:
                missed.append(_error(row, name, "missed"))
            elif truth == 0.0 and called:
                alarms.append(_error(row, name, "false_alarms"))
        missed.sort(key=lambda error: (_sure(error), error.id))
        alarms.sort(key=lambda error: (-_sure(error), error.id))
        for title, errors in ((f"{name}: missed", missed), (f"{name}: false alarms", alarms)):
            if errors:
                found[f"{title}, the surest first"] = errors[:limit]
    return found


def _error(row: Mapping[str, str], name: str, kind: str) -> WorstError:
    return WorstError(
        kind=kind,
        id=row.get("id", ""),
        path=row.get("path", ""),
        label=name if kind == "missed" else f"no {name}",
        decision=f"no {name}" if kind == "missed" else name,
        confidence=usable_text(row.get(f"probability_{name}", "")),
        score=None,
        explained=name,
        nearest_path=row.get("nearest_path", ""),
        nearest_label=row.get("nearest_label", ""),
        nearest_distance=usable_text(row.get("nearest_distance", "")),
        map_key=f"{row.get('id', '')}|{name}",
    )


def _sure(error: WorstError) -> float:
    return 0.5 if error.confidence is None else error.confidence
