from __future__ import annotations

import json

import pytest

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import ClassificationResult, format_table
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration


@pytest.fixture
def result():
    good = Interval(0.5, 0.4, 0.6, n=10, num_groups=5)
    missing = Interval(None, None, None, n=0, num_groups=0, reason="no record of `pit`")
    return ClassificationResult(
        task="multiclass",
        classes=("free", "pit"),
        metrics={"macro_f1": good, "recall_free": good, "recall_pit": missing},
        confusion=((9, 1), (0, 0)),
        calibration=Calibration(1.5, 0.25, "at most 0.05 of `free` rejected", 20),
        n=10,
        num_groups=5,
        negative_class="free",
        baselines={"majority": {"macro_f1": Interval(0.3, 0.2, 0.4, n=10, num_groups=5)}},
        differences={"majority": {"macro_f1": Interval(0.2, 0.1, 0.3, n=10, num_groups=5)}},
        descriptions={"majority": "frequencies"},
    )


def test_flat_names_every_number(result):
    flat = result.flat()
    assert list(flat) == ["macro_f1", "recall_free", "recall_pit", "macro_f1_of_majority", "macro_f1_minus_majority"]
    assert {key: flat["macro_f1"][key] for key in ("value", "low", "high", "n", "reason")} == {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 10,
        "reason": "",
    }
    assert flat["recall_pit"]["value"] is None
    assert flat["recall_pit"]["reason"] == "no record of `pit`"


def test_recalls_are_by_class(result):
    assert list(result.recalls) == ["free", "pit"]
    assert result.recalls["pit"].value is None


def test_json_is_whole_and_strict(result, tmp_path):
    path = result.write_json(tmp_path / "test" / "metrics.json")
    assert json.loads(path.read_text()) == result.flat()
    assert [item.name for item in path.parent.iterdir()] == ["metrics.json"]
    json.dumps(result.to_dict(), allow_nan=False)


def test_earlier_json_is_not_written_over(result, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("mine")
    with pytest.raises(TransferError, match=r"metrics\.json` exists"):
        result.write_json(path)
    assert path.read_text() == "mine"


def test_table_is_aligned_and_says_everything(result):
    assert format_table(result).splitlines() == [
        "10 records in 5 groups, 95% intervals by bootstrap over groups",
        "metric        n  model                     majority",
        "macro_f1     10  0.500 [0.400, 0.600]      0.300 [0.200, 0.400]",
        "recall_free  10  0.500 [0.400, 0.600]",
        "recall_pit    0  n/a (no record of `pit`)",
        "threshold 0.25: at most 0.05 of `free` rejected",
        "",
        "model minus  macro_f1",
        "majority     +0.200 [+0.100, +0.300]  frequencies",
    ]


def test_table_of_a_difference_without_interval(result):
    one = {"majority": {"macro_f1": Interval(0.2, None, None, n=10, num_groups=1, reason="1 group")}}
    text = format_table(ClassificationResult(**{**vars(result), "differences": one}))
    assert text.splitlines()[-1] == "majority     0.200 [n/a]  frequencies"
