from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import ClassificationResult, CurvePoint, Latency, LatencyRow, Slice, SliceTable
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration, OperatingPoint


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
        decisions=((8, 2), (1, 3)),
        escapes=("e.png",),
        negative_class="free",
        baselines={"majority": {"macro_f1": Interval(0.3, 0.2, 0.4, n=10, num_groups=5)}},
        differences={"majority": {"macro_f1": Interval(0.2, 0.1, 0.3, n=10, num_groups=5)}},
        descriptions={"majority": "frequencies"},
    )


def test_flat_names_every_number(result):
    flat = result.flat()
    assert list(flat) == [
        *("macro_f1", "recall_free", "recall_pit", "escapes", "threshold"),
        *("macro_f1_of_majority", "macro_f1_minus_majority"),
    ]
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


def test_escapes_are_a_count_among_the_defects(result):
    row = result.flat()["escapes"]
    assert (row["value"], row["n"], row["low"], row["reason"]) == (1.0, 4, None, "a count, without interval")
    assert result.to_dict()["escapes"] == ["e.png"]
    assert result.to_dict()["decisions"] == [[8, 2], [1, 3]]


def test_a_threshold_of_an_earlier_version_has_no_interval(result):
    row = result.flat()["threshold"]
    assert (row["value"], row["low"], row["n"]) == (0.25, None, 20)
    assert row["reason"] == "no interval was stored with this threshold"


def test_thresholds_keep_the_intervals_of_the_calibration_split(result):
    points = (
        OperatingPoint(0.05, 0.25, (0.2, 0.3), 0.04, (0.01, 0.09), 50, 20),
        OperatingPoint(0.01, 0.7, None, 0.0, (0.0, 0.07), 50, 20, note="too few"),
    )
    flat = replace(result, calibration=Calibration(1.5, 0.25, "rule", 70, points)).flat()
    expected = {
        "threshold": (0.25, 0.2, 0.3, ""),
        "threshold_at_false_reject_0.05": (0.25, 0.2, 0.3, ""),
        "expected_false_reject_rate_at_0.05": (0.04, 0.01, 0.09, ""),
        "threshold_at_false_reject_0.01": (0.7, None, None, "too few"),
        "expected_false_reject_rate_at_0.01": (0.0, 0.0, 0.07, "too few"),
    }
    for name, values in expected.items():
        row = flat[name]
        assert (row["value"], row["low"], row["high"], row["reason"]) == values, name
        assert (row["n"], row["num_groups"]) == (50, 20)


def _sliced(*values: float) -> SliceTable:
    rows = [
        Slice("line", name, 30, 10, 2, small, {"macro_f1": Interval(value, 0.0, 1.0, 30, 10)}, Interval(0.1, 0, 1, 30))
        for name, value, small in zip("abc", values, (True, False, False), strict=True)
    ]
    return SliceTable("macro_f1", tuple(rows), {"operator": "40 different values"}, "how to read it")


def test_slices_and_latency_are_one_line_each_in_the_flat_file_and_whole_in_the_other(result):
    row, last = LatencyRow(1, 2.5, 3.0, 400.0, 100), LatencyRow(32, 20.0, None, 1600.0, 7)
    latency = Latency("cpu", 1, (row, last), 12.0, "weights", 5.0, 1000)
    whole = replace(result, slices=_sliced(0.1, 0.4, 0.3), latency=latency, curve=(CurvePoint(0.5, 0.0, 1.0),))
    more = {name: item for name, item in whole.flat().items() if name not in result.flat()}
    assert list(more) == ["macro_f1_worst_slice", "latency_p50_ms_batch_1", "items_per_s_batch_32"]
    # The lowest of those that are not small.
    assert more["macro_f1_worst_slice"]["value"] == 0.3
    assert more["macro_f1_worst_slice"]["reason"] == "`line` is `c`: the lowest of 2 slices, by chance low too"
    assert more["latency_p50_ms_batch_1"]["value"] == 2.5
    assert more["items_per_s_batch_32"] | {"value": 0} == {
        **{"value": 0, "low": None, "high": None, "n": 1, "num_groups": None, "reason": "measured once on cpu"}
    }
    plain = json.loads(json.dumps(whole.to_dict(), allow_nan=False))
    assert [item["value"] for item in plain["slices"]] == ["a", "b", "c"]
    assert plain["slices_left_out"] == {"operator": "40 different values"}
    assert plain["slices_note"] == "how to read it"
    assert plain["curve"] == [{"threshold": 0.5, "false_reject_rate": 0.0, "recall": 1.0}]
    assert plain["latency"]["rows"][1]["p95_ms"] is None


def test_what_was_not_asked_for_is_empty(result):
    plain = result.to_dict()
    assert (plain["slices"], plain["reliability"], plain["curve"], plain["latency"]) == ([], None, [], None)


def test_the_headline_is_macro_f1_and_of_one_score_the_auroc_where_it_is_defined(result):
    assert result.headline == result.to_dict()["headline"] == "macro_f1"
    binary = replace(result, task="binary")
    assert binary.headline == "macro_f1"
    assert replace(binary, metrics={"auroc": Interval(None, None, None, 0)}).headline == "macro_f1"
    assert replace(binary, metrics={"auroc": Interval(0.9, 0.8, 1.0, 10)}).headline == "auroc"
