"""Read back what ``test`` wrote into a run's folder: enough to judge the same predictions again, without the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.data import read_csv
from lightning_transfer.errors import TransferError, listing
from lightning_transfer.evaluation.scores import decision_score, negative_index
from lightning_transfer.metrics import probabilities
from lightning_transfer.types import Calibration, Schema

__all__ = ["TestedRun", "read_facts", "read_tested_run"]

_PREDICTIONS = "predictions.csv"
# Probabilities are written with six digits: a zero there is less than half of the last one.
_LEAST = 5e-7


@dataclass(frozen=True, eq=False)
class TestedRun:
    """The labelled predictions of one test.

    Attributes:
        folder: That of the test, ``RUN/test``.
        schema: Task, classes and negative class.
        ids: Of the records, ``N``.
        groups: Of the records; None where the file does not say.
        target: Class indices ``(N,)``; multi-label ``(N, C)`` with NaN for missing.
        logits: ``(N, num_logits)`` that give the probabilities and scores as they were written, at temperature 1.
        calibration: Temperature 1, and a threshold that decides as the test did.
        num_left_out: Rows without label or without a finite prediction.
        facts: What it costs, as far as it was measured: ``fit_seconds``, ``num_parameters``, ``size_mb``, and
            ``latency_p50_ms`` of the smallest batch.
    """

    __test__ = False  # pytest would take the name for a test's

    folder: Path
    schema: Schema
    ids: tuple[str, ...]
    groups: tuple[str | None, ...] | None
    target: NDArray[Any]
    logits: NDArray[np.float64]
    calibration: Calibration
    num_left_out: int = 0
    facts: dict[str, float] = field(default_factory=dict)


def read_tested_run(folder: str | Path) -> TestedRun:
    """Read ``predictions.csv`` and ``data.json`` of a test.

    Args:
        folder: Of a run, whose ``test`` is taken, or of one test (``RUN/test-2``).

    Raises:
        TransferError: If the run was not tested, or no row of it has a label.
        DataError: If a file cannot be read.
    """
    place = _test_folder(Path(folder))
    schema = _schema(place)
    columns, cells = read_csv(place / _PREDICTIONS)
    missing = [name for name in ("id", "label", "predicted", "decision") if name not in columns]
    missing += [f"probability_{name}" for name in schema.classes if f"probability_{name}" not in columns]
    if missing:
        raise TransferError(
            f"`{place / _PREDICTIONS}` has no column {listing(f'`{name}`' for name in missing)}. Run `test` again."
        )
    rows = [dict(zip(columns, row, strict=True)) for row in cells]
    usable = [row for row in rows if row["label"] and row["decision"] not in ("undefined", "unreadable")]
    if not usable:
        raise TransferError(f"None of the {len(rows)} rows of `{place / _PREDICTIONS}` has a label and a prediction.")
    target, logits = _arrays(usable, schema)
    groups = tuple(row["group"] or None for row in usable) if "group" in columns else None
    return TestedRun(
        folder=place,
        schema=schema,
        ids=tuple(row["id"] for row in usable),
        groups=groups,
        target=target,
        logits=logits,
        calibration=_calibration(usable, logits, schema),
        num_left_out=len(rows) - len(usable),
        facts=read_facts(place),
    )


def _test_folder(folder: Path) -> Path:
    for place in (folder, folder / "test"):
        if (place / _PREDICTIONS).is_file() and (place / "data.json").is_file():
            return place
    if not folder.is_dir():
        raise TransferError(f"There is no folder `{folder}`. Give the folder that a run printed as `Run folder:`.")
    raise TransferError(f"`{folder}` was not tested: it has no `test/{_PREDICTIONS}`. Run `test {folder}` first.")


def _schema(place: Path) -> Schema:
    try:
        return Schema.from_dict(json.loads((place / "data.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise TransferError(f"`{place / 'data.json'}` does not describe the data of a run: {error}.") from error


def _arrays(rows: Sequence[dict[str, str]], schema: Schema) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the target, and logits that give the probabilities."""
    shares = np.array([[float(row[f"probability_{name}"]) for name in schema.classes] for row in rows])
    shares = np.clip(shares, _LEAST, 1.0 - _LEAST)
    if schema.task == "multilabel":
        cells = [[np.nan if cell == "?" else float(cell) for cell in row["label"].split("|")] for row in rows]
        return np.array(cells), np.log(shares) - np.log1p(-shares)
    target = np.array([_place(row["label"], schema) for row in rows])
    negative = negative_index(schema)
    if negative is not None and rows[0].get("score"):
        # The score has all its digits, the probabilities have six.
        score = np.clip(np.array([float(row["score"]) for row in rows]), 1e-300, None)
        rest = np.maximum(-np.expm1(np.log(score)), 1e-17)
        if schema.task == "binary":
            return target, (np.log(score) - np.log(rest))[:, None]
        others = np.delete(np.arange(schema.num_classes), negative)
        shares[:, others] *= (score / shares[:, others].sum(axis=1))[:, None]
        shares[:, negative] = rest
    elif schema.task == "binary":
        return target, (np.log(shares[:, 1]) - np.log(shares[:, 0]))[:, None]
    logits = np.log(shares)
    predicted = np.array([_place(row["predicted"], schema) for row in rows])
    each = np.arange(len(rows))
    # Where six digits tie, the class that was predicted stays ahead.
    logits[each, predicted] = np.maximum(logits[each, predicted], logits.max(axis=1) + 1e-12)
    return target, logits


def _place(text: str, schema: Schema) -> int:
    """Return the number of a class; tables put an apostrophe before what a spreadsheet would run."""
    name = text if text in schema.classes else text.removeprefix("'")
    if name not in schema.classes:
        raise TransferError(f"The class `{text}` is none of {listing(schema.classes, 20)}. Run `test` again.")
    return schema.classes.index(name)


def _calibration(rows: Sequence[dict[str, str]], logits: NDArray[np.float64], schema: Schema) -> Calibration:
    """Return the thresholds that part the decisions: the stored ones, but for the last digit of a score."""
    if schema.task == "multilabel":
        return _label_calibration(rows, logits, schema)
    negative = negative_index(schema)
    if negative is None or not rows[0].get("threshold"):
        return Calibration()
    score, _ = decision_score(logits, schema, temperature=1.0)
    called = np.array([_place(row["decision"], schema) != negative for row in rows])
    return Calibration(threshold=_between(score, called))


def _label_calibration(rows: Sequence[dict[str, str]], logits: NDArray[np.float64], schema: Schema) -> Calibration:
    """Multi-label: a threshold for each class, where any row is decided otherwise than at one half."""
    if all(row["decision"] == row["predicted"] for row in rows):
        return Calibration()
    probs = probabilities(logits, schema.task)
    called = np.zeros(probs.shape, dtype=bool)
    for place, row in enumerate(rows):
        for name in filter(None, row["decision"].split("|")):
            called[place, _place(name, schema)] = True
    columns = range(schema.num_classes)
    return Calibration(label_thresholds=tuple(_between(probs[:, place], called[:, place]) for place in columns))


def _between(score: NDArray[np.float64], called: NDArray[np.bool_]) -> float:
    """Return a threshold that calls these."""
    if called.all() or not called.any():
        return 0.0 if called.all() else 2.0
    return float((score[~called].max() + score[called].min()) / 2.0)


def read_facts(place: Path) -> dict[str, float]:
    """Return what a tested run costs, as far as it was measured; see `TestedRun`.

    Args:
        place: Folder of the test.
    """
    evaluation, fit = _json(place / "evaluation.json"), _json(place.parent / "metrics.json")
    latency = evaluation.get("latency") or {}
    found = {
        "fit_seconds": (fit.get("fit_seconds") or {}).get("value"),
        "num_parameters": latency.get("num_parameters"),
        "size_mb": latency.get("size_mb"),
        "latency_p50_ms": next((row["p50_ms"] for row in latency.get("rows") or ()), None),
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
