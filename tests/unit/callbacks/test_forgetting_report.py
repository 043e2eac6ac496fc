"""Reports, alarms and the summary as plain data."""

from __future__ import annotations

import json

import pytest

from lightning_transfer.callbacks.forgetting_report import (
    AlarmCounter,
    ForgettingReport,
    alarm_text,
    summarise,
    summary_lines,
)
from lightning_transfer.metrics.bootstrap import Interval

KEY = "forgetting_kl"


def reading(value, margin=0.1):
    return Interval(value, value - margin, value + margin, n=9)


def report(step, value, **options):
    taken = Interval(None, None, None, 9, reason="outputs are not finite") if value is None else reading(value)
    return ForgettingReport(step, step // 10, {KEY: taken}, **options)


def test_alarm_needs_the_lower_bound_past_the_tolerance_in_a_row():
    counter = AlarmCounter({KEY: 0.5}, confirm=2)
    # 0.55 is past the tolerance, but not surely.
    values = [0.7, 0.55, 0.7, 0.7, 0.7, 0.1, 0.7, 0.7]
    assert [bool(counter.update({KEY: reading(value)})) for value in values] == [
        False,
        False,
        False,
        True,
        False,
        False,
        False,
        True,
    ]


def test_each_key_counts_for_itself_and_others_are_ignored():
    counter = AlarmCounter({"a": 0.0, "b": 0.0}, confirm=2)
    bad, good = reading(1.0), reading(0.0)
    assert counter.update({"a": bad, "b": good, "c": bad}) == ()
    assert counter.update({"a": good, "b": bad, "c": bad}) == ()
    assert counter.update({"a": bad, "b": bad}) == ("b",)


def test_what_cannot_be_read_counts_as_past_and_reset_forgets():
    counter = AlarmCounter({KEY: 100.0}, confirm=1)
    assert counter.update(report(1, None).readings) == (KEY,)
    counter.reset()
    assert counter.strikes == {KEY: 0}


def test_a_reading_without_an_interval_is_not_sure():
    assert AlarmCounter({KEY: 0.0}, confirm=1).update({KEY: Interval(5.0, None, None, n=9)}) == ()


def test_summary():
    history = [report(0, 0.0), report(10, 0.3), report(20, 0.9, alarms=(KEY,)), report(30, 0.4)]
    summary = summarise(history, 2.0, 40.0)
    found = summary["metrics"][KEY]
    assert [found[name]["value"] for name in ("first", "worst", "last")] == [0.3, 0.9, 0.4]
    assert found["worst"]["step"] == 20
    assert summary["checks"] == 3
    assert summary["cost_percent"] == 5.0
    assert summary["alarms"] == [{"step": 20, "keys": [KEY]}]
    json.dumps(summary, allow_nan=False)
    text = summary_lines(summary)
    assert "3 checks took 2.0 s, 5.0 % of the run" in text
    assert f"{KEY}: first 0.3000 (step 10), worst 0.9000 (step 20), last 0.4000 (step 30)" in text


def test_the_curve_has_a_point_for_each_check():
    history = [
        report(0, 0.0),
        report(10, 0.3, scores={"val_f1": 0.5, "val_loss": float("nan")}),
        report(20, None, scores={"val_f1": 0.7}),
    ]
    points = summarise(history, 1.0, 2.0)["curve"]
    assert points == [
        {"step": 0, "epoch": 0, "forgetting": {KEY: 0.0}, "scores": {}},
        {"step": 10, "epoch": 1, "forgetting": {KEY: 0.3}, "scores": {"val_f1": 0.5, "val_loss": None}},
        {"step": 20, "epoch": 2, "forgetting": {KEY: None}, "scores": {"val_f1": 0.7}},
    ]
    assert json.loads(json.dumps(points, allow_nan=False)) == points


def test_summary_of_what_cannot_be_read_and_of_nothing():
    found = summarise([report(10, 0.3), report(20, None)], 1.0, 0.0)
    assert found["metrics"][KEY]["worst"]["step"] == 20
    assert "n/a, outputs are not finite" in summary_lines(found)
    assert summarise([], 0.0, 0.0)["metrics"] == {}
    assert summarise([report(0, 0.0)], 0.0, 1.0)["metrics"][KEY]["last"]["value"] == 0.0


def test_reports_survive_plain_data():
    whole = report(10, 0.25, scores={"val_f1": 0.5}, alarms=(KEY,), seconds=1.5)
    assert ForgettingReport.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


def test_alarm_text():
    text = alarm_text(report(7, 0.25), (KEY,), {KEY: 0.05}, 2)
    assert (
        text
        == "ForgettingMonitor, step 7: forgetting_kl is 0.250 [0.150, 0.350], tolerance 0.05, in 2 checks in a row."
    )
    with pytest.raises(KeyError):
        alarm_text(report(7, 0.25), ("other",), {}, 2)
