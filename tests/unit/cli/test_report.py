import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_transfer import reporting

Toy = Callable[..., Any]


def test_fit_leaves_a_model_card_and_test_a_report(toy: Toy, finished: Path) -> None:
    assert "- Not tested yet." in (finished / "model_card.md").read_text()
    assert not (finished / "report.html").exists()
    done = toy("test", finished, "--evaluation.baselines", "[majority]")
    assert done.code == 0, done.err
    assert f"Report: {finished / 'report.html'}" in done.out
    found = json.loads((finished / "report.json").read_text())
    accuracy = json.loads((finished / "test" / "metrics.json").read_text())["accuracy"]
    assert found["sections"]["scores"]["metrics"]["accuracy"]["value"] == accuracy["value"]
    assert not [section for section in found["sections"].values() if section["problem"]]
    assert "Not tested yet" not in (finished / "model_card.md").read_text()


def test_a_report_that_fails_costs_no_result(toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> Path:
        raise ZeroDivisionError("no page today")

    monkeypatch.setattr(reporting, "write_report", fails)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = toy("test", finished, "--evaluation.baselines", "[majority]")
    assert done.code == 0
    assert any("Report was not written (ZeroDivisionError: no page today)" in str(item.message) for item in caught)
    assert (finished / "test" / "metrics.json").is_file()
    assert "macro_f1" in done.out


def test_the_verb_writes_the_page_again(toy: Toy, finished: Path) -> None:
    done = toy("report", finished)
    assert (done.code, done.run) == (0, finished)
    assert "Not measured: run" in (finished / "report.html").read_text()
    (finished / "report.html").write_text("old")
    again = toy("report", finished / "model.ckpt")
    assert again.code == 0, again.err
    assert (finished / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_sound_comes_with_a_word_on_who_may_hear_it(toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    write = reporting.write_report
    monkeypatch.setattr(
        reporting, "write_report", lambda run, **options: (asked.append(options["audio"]), write(run, **options))[1]
    )
    assert "voices of people" not in toy("report", finished).out
    assert "The page may hold voices of people" in toy("report", finished, "--audio", "true").out
    assert asked == [False, True]


def test_several_runs_are_compared(toy: Toy, finished: Path, tmp_path: Path) -> None:
    done = toy("report", finished, finished, "--output", tmp_path / "out" / "two.html")
    assert done.code == 0, done.err
    assert f"Comparison: {tmp_path / 'out' / 'two.html'}" in done.out
    assert "Comparison of 2 runs" in (tmp_path / "out" / "two.html").read_text()
    assert toy("report", finished, finished).code == 0
    assert Path("comparison.html").is_file()


def test_what_cannot_be_meant_is_said(toy: Toy, finished: Path, tmp_path: Path, small: str) -> None:
    def error(*words: object) -> str:
        done = toy("report", *words)
        assert done.code == 2
        message: str = done.err
        return message

    assert "`report` needs a run folder: `python -m toy_recipe report RUN`" in error()
    assert "Did you mean" in error(str(finished)[:-1])
    assert "has no `config.yaml`" in error(tmp_path)
    assert "takes run folders, not configs" in error(finished, "--config", small)
    assert "unrecognized arguments: --nothing" in error(finished, "--nothing").lower()
    assert "`--output` is for the comparison" in error(finished, "--output", "x.html")
    assert "choose from" in error(finished, "--grad_cam", "maybe")
    assert "choose from" in error(finished, "--audio", "loud")


def test_help_says_what_there_is(toy: Toy) -> None:
    done = toy("report", "--help")
    assert done.code == 0
    assert "RUN [RUN ...] [--output FILE] [--data_root DIR] [--grad_cam false] [--audio true]" in done.out
