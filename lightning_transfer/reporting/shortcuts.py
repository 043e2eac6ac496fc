"""The section on shortcuts, and the warning where one may explain the score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_transfer.reporting.numbers import interval, number
from lightning_transfer.reporting.scores import Scores

__all__ = ["shortcut_warnings", "shortcuts_section"]

Section = dict[str, Any]
Row = Mapping[str, Any]

# A verdict is read, not searched.
_MOST_WARNINGS = 2
_WHO = {"frozen": "a linear probe on them reaches", "adapted": "the model reaches"}


def shortcut_warnings(scores: Scores) -> Iterator[str]:
    """Yield a sentence for each column that the features know and that may explain a label, the strongest first.

    Example:
        >>> item = {"value": 0.8, "low": 0.7, "high": 0.9}
        >>> row = {"features": "frozen", "column": "site", "finding": "covid", "explains": True}
        >>> row |= {"told": item, "own": item, "within": item, "alone": item}
        >>> print(next(shortcut_warnings(Scores("auroc", {}, shortcuts={"shortcuts": [row]}))))
        A shortcut may explain the score: the frozen features tell `site` (AUROC 0.800 [0.700, 0.900]), and `site` alone
        predicts “covid” with AUROC 0.800 [0.700, 0.900], where a linear probe on them reaches 0.800; among records of
        the same `site` it is 0.800 [0.700, 0.900]. Judge the model on values of `site` that training lacks.
    """
    by_column: dict[str, list[Row]] = {}
    for row in _rows(scores):
        if row.get("explains"):
            by_column.setdefault(str(row.get("column")), []).append(row)
    for column, rows in list(by_column.items())[:_MOST_WARNINGS]:
        first = rows[0]
        findings = list(dict.fromkeys(str(row.get("finding")) for row in rows))
        more = "" if len(findings) < 2 else f" The same holds for {_listed(findings[1:])}."
        yield (
            f"A shortcut may explain the score: the {first.get('features')} features tell `{column}` (AUROC "
            f"{interval(first.get('told'))}), and `{column}` alone predicts “{findings[0]}” with AUROC "
            f"{interval(first.get('alone'))}, where {_WHO.get(str(first.get('features')), 'the model reaches')} "
            f"{number(_value(first.get('own')))}; among records of the same `{column}` it is "
            f"{interval(first.get('within'))}. Judge the model on values of `{column}` that training lacks.{more}"
        )
    if len(by_column) > _MOST_WARNINGS:
        names = _listed(f"`{name}`" for name in list(by_column)[_MOST_WARNINGS:])
        yield f"Further columns that may explain the score: {names}."


def shortcuts_section(scores: Scores) -> Section:
    """Return a table for each set of features: what it tells, and what that says of the finding."""
    rows = _rows(scores)
    tables = []
    for features, title in (("frozen", "Frozen features, all splits"), ("adapted", "Adapted features, test split")):
        own = [dict(row) for row in rows if row.get("features") == features]
        if own:
            tables.append({"features": features, "title": title, "rows": own})
    left_out = dict(scores.shortcuts.get("left_out") or {})
    return {
        "missing": "" if tables or left_out else "None of the columns could be probed.",
        "sentence": _sentence(rows),
        "tables": tables,
        "left_out": left_out,
        "notes": list(scores.shortcuts.get("notes") or ()),
    }


def _sentence(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    guilty = list(dict.fromkeys(str(row.get("column")) for row in rows if row.get("explains")))
    if guilty:
        return f"May explain a label: {_listed(f'`{name}`' for name in guilty)}."
    columns = _listed(f"`{name}`" for name in dict.fromkeys(str(row.get("column")) for row in rows))
    return f"None of {columns} was shown to explain a label. What is in no column was not asked."


def _rows(scores: Scores) -> Sequence[Row]:
    found = scores.shortcuts.get("shortcuts") if isinstance(scores.shortcuts, Mapping) else None
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, Sequence) else []


def _value(item: object) -> object:
    return item.get("value") if isinstance(item, Mapping) else None


def _listed(names: Any, most: int = 5) -> str:  # noqa: ANN401 - any iterable of texts
    found = list(names)
    more = "" if len(found) <= most else f" and {len(found) - most} more"
    return ", ".join(found[:most]) + more
