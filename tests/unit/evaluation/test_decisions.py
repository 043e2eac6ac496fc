from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as oracle

from lightning_transfer.errors import DataError
from lightning_transfer.evaluation import ClassificationResult, write_confusion
from lightning_transfer.evaluation.decisions import confusion_matrix, find_escapes
from lightning_transfer.types import Calibration, Record, Schema

SURFACE = Schema(task="multiclass", classes=("=crack", "free", "pit"), negative_class="free")


def result(decisions):
    return ClassificationResult(
        "multiclass", SURFACE.classes, {}, ((1, 2, 3), (4, 5, 6), (7, 8, 9)), Calibration(), 3, 3, decisions
    )


def test_confusion_is_sklearns():
    rng = np.random.default_rng(0)
    target, chosen = rng.integers(0, 3, 50), rng.integers(0, 2, 50)
    expected = oracle(target, chosen, labels=[0, 1, 2])
    assert np.array_equal(confusion_matrix(target, chosen, SURFACE), expected)
    assert confusion_matrix(target, chosen, Schema(task="multilabel", classes=("a", "b"))) == ()


@pytest.mark.parametrize(("threshold", "expected"), [(0.2, ()), (0.45, ("b",)), (0.7, ("b", "c")), (None, ("b", "c"))])
def test_escapes_are_the_defects_below_the_threshold_by_score(threshold, expected):
    # Scores: a 0.9, b 0.4, c 0.5 (with `free` the most probable single class), d is free.
    shares = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.25, 0.5, 0.25], [0.05, 0.9, 0.05]])
    records = [Record(id=name, input=None) for name in "cabd"]
    order = [2, 0, 1, 3]
    target = np.array([2, 0, 0, 1])
    calibration = Calibration(threshold=threshold)
    assert find_escapes(records, np.log(shares[order]), target, SURFACE, calibration) == expected


def test_without_a_negative_class_nothing_escapes():
    schema = Schema(task="multiclass", classes=("a", "b"))
    assert find_escapes([Record("1", None)], np.zeros((1, 2)), np.array([1]), schema, Calibration()) is None


def test_confusion_is_written_as_table_and_json(tmp_path):
    paths = write_confusion(result(((8, 1, 0), (0, 9, 0), (2, 0, 3))), tmp_path)
    assert [path.name for path in paths] == ["confusion.csv", "confusion.json"]
    with paths[0].open(newline="") as stream:
        rows = list(csv.reader(stream))
    # A class that a spreadsheet would run as a formula is text, in the header and in its row.
    assert rows == [
        ["true class", "'=crack", "free", "pit"],
        ["'=crack", "8", "1", "0"],
        ["free", "0", "9", "0"],
        ["pit", "2", "0", "3"],
    ]
    found = json.loads(paths[1].read_text())
    assert found["classes"] == list(SURFACE.classes)
    assert found["decision"] == [[8, 1, 0], [0, 9, 0], [2, 0, 3]]
    assert found["most_probable"] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    with pytest.raises(DataError, match=r"confusion\.csv` exists"):
        write_confusion(result(((8, 1, 0), (0, 9, 0), (2, 0, 3))), tmp_path)


def test_multilabel_has_no_confusion(tmp_path):
    assert write_confusion(result(()), tmp_path) == []
    assert list(tmp_path.iterdir()) == []
