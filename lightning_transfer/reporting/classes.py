"""Sections on the classes: which is taken for which, and how well each is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_transfer.reporting.numbers import usable
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.verdict import FEW_RECORDS

__all__ = ["MANY_CLASSES", "MOST_IN_MATRIX", "classes_section", "confusion_section"]

Section = dict[str, Any]

MANY_CLASSES = 20
"""With more classes than these the worst come first, and the others are folded."""

MOST_IN_MATRIX = 30
"""A wider matrix cannot be read: its pairs say what there is to see."""

_SHOWN_CLASSES = 10
_SHOWN_PAIRS = 10


def confusion_section(scores: Scores) -> Section:
    """Return the most frequent pairs, and the two tables: true class by what was most probable, and what was decided.

    Of many classes the tables are left out; ``confusion.csv`` beside the test has them.
    """
    tables = [("The most probable class", scores.confusion)]
    if scores.threshold is not None and scores.decisions != scores.confusion:
        tables.append((f"Decided at the threshold {scores.threshold:.4g}", scores.decisions))
    found = [
        {"title": title, "rows": [list(row) for row in table], "totals": [sum(row) for row in table]}
        for title, table in tables
        if table
    ]
    wide = len(scores.classes) > MOST_IN_MATRIX
    wrong = sum(sum(row) - row[place] for place, row in enumerate(scores.confusion))
    # Of two classes the table says it as shortly.
    pairs = [dict(pair) for pair in scores.confusion_pairs] if len(scores.classes) > 2 else []
    return {
        "missing": "" if found else "Not known: the test left no confusion matrix and no predictions with labels.",
        "classes": list(scores.classes),
        "tables": [] if wide else found,
        "pairs": pairs[:_SHOWN_PAIRS],
        "more_pairs": pairs[_SHOWN_PAIRS:],
        "num_errors": wrong,
        "num_in_pairs": sum(pair["n"] for pair in pairs),
        "note": f"The matrix of {len(scores.classes)} classes is too wide for this page: see `confusion.csv`."
        if wide and found
        else "",
    }


def classes_section(scores: Scores, run: RunFiles) -> Section:
    """Return recall and precision of each class, without and with the threshold, beside its numbers of records.

    Many classes are ordered by their recall, the worst first. Labels of a multi-label task have those at their own
    thresholds.
    """
    rows = [_row(place, scores, run) for place in range(len(scores.classes))]
    if len(rows) > MANY_CLASSES:
        rows.sort(key=lambda row: _lowest(row["recall"]))
    shown = _SHOWN_CLASSES if len(rows) > MANY_CLASSES else len(rows)
    known = any(row["recall"] for row in rows)
    return {
        "missing": "" if known else "Not measured: the test has no recall of single classes.",
        "rows": rows[:shown],
        "more": rows[shown:],
        "few": FEW_RECORDS,
        "negative_class": scores.negative_class,
        "thresholds": bool(scores.label_thresholds),
    }


def _row(place: int, scores: Scores, run: RunFiles) -> dict[str, Any]:
    name = scores.classes[place]
    train: Mapping[str, int] = (run.data.get("counts") or {}).get("train") or {}
    own = "_at_threshold" if scores.label_thresholds else ""
    recall = scores.metrics.get(f"recall{own}_{name}")
    said = [row[place] for row in scores.confusion] if scores.confusion else []
    num = int((recall or {}).get("n") or 0)
    return {
        "name": name,
        "num_train": train.get(name),
        "n": num,
        "num_groups": (recall or {}).get("num_groups"),
        "small": num < FEW_RECORDS,
        "recall": recall,
        "precision": scores.metrics.get(f"precision{own}_{name}"),
        "recall_at_threshold": None if own else scores.metrics.get(f"recall_at_threshold_{name}"),
        "threshold": scores.label_thresholds.get(name),
        "rule": scores.label_rules.get(name, ""),
        "num_predicted": sum(said) if said else None,
        "num_predicted_right": said[place] if said else None,
    }


def _lowest(recall: Mapping[str, Any] | None) -> tuple[bool, float]:
    value = usable((recall or {}).get("value"))
    return value is None, 0.0 if value is None else value
