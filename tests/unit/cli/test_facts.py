import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_transfer.callbacks import ForgettingMonitor
from lightning_transfer.callbacks.forgetting_report import ForgettingReport, SourceAccuracy
from lightning_transfer.cli.facts import fit_facts, read_facts, source_lines
from lightning_transfer.metrics import Interval


def _cli(*callbacks: object) -> Any:
    return SimpleNamespace(trainer=SimpleNamespace(callbacks=list(callbacks)))


def _monitor() -> ForgettingMonitor:
    monitor = ForgettingMonitor("noise")
    monitor._source = {"source_accuracy": SourceAccuracy(0.75, 101, chance=0.25, key="forgetting_accuracy")}
    for step, loss in ((0, 0.0), (10, 0.125), (20, 0.5)):
        monitor.history.append(ForgettingReport(step, 0, {"forgetting_accuracy": Interval(loss, None, None, 101)}))
    return monitor


def test_the_accuracy_is_that_of_the_kept_step() -> None:
    for step, after in ((10, 0.625), (20, 0.25)):
        facts = fit_facts(_cli(object(), _monitor()), step, seconds=12.5)
        assert facts["fit_seconds"].value == 12.5
        assert facts["source_accuracy_before"].value == 0.75
        assert facts["source_accuracy_after"].value == pytest.approx(after)
        margin = 1.96 * (after * (1 - after) / 100) ** 0.5
        assert facts["source_accuracy_after"].low == pytest.approx(after - margin)
    assert facts["source_accuracy_chance"].value == 0.25


def test_a_step_without_a_check_has_no_accuracy() -> None:
    facts = fit_facts(_cli(_monitor()), 15, seconds=1.0)
    assert facts["source_accuracy_after"].value is None
    [line] = source_lines(facts)
    assert line.endswith("before, n/a (not measured with these weights) after (chance 0.250)")


def test_what_was_written_is_read_and_anything_else_is_nothing(tmp_path: Path) -> None:
    facts = fit_facts(_cli(_monitor()), 10, seconds=12.5)
    assert read_facts(tmp_path) == {}
    (tmp_path / "metrics.json").write_text(json.dumps({name: item.to_dict() for name, item in facts.items()}))
    assert read_facts(tmp_path) == facts
    for other in ("[1]", '{"a": {"b": 1}}', '{"a": 1}', "no json"):
        (tmp_path / "metrics.json").write_text(other)
        assert read_facts(tmp_path) == {}
