from pathlib import Path
from typing import Any

import pytest
from make_run import evaluation, make_fit, make_test, routing

from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.shapes import fitting


def test_what_the_verbs_write_has_the_form(tmp_path: Path) -> None:
    run = RunFiles.read(make_test(make_fit(tmp_path / "run")))
    assert run.problems == ()
    assert set(run.evaluation) == set(evaluation())


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("data", "counts", {"train": {"a": "3"}}),
        ("data", "classes", [1, 2]),
        ("plan", "stages", [{"epoch": "0", "opened": []}]),
        ("plan", "stages", [{"epoch": 0, "opened": [3]}]),
        ("plan", "learning_rates", [{"name": "a", "lr": "fast"}]),
        ("plan", "groups", [{"depth": 1}]),
        ("evaluation", "metrics", {"macro_f1": {"value": "high"}}),
        ("evaluation", "baselines", {"majority": {"macro_f1": 0.5}}),
        ("evaluation", "confusion", [[1, 2.5]]),
        ("evaluation", "slices", [{"column": "a", "metrics": {"macro_f1": 3}}]),
        ("evaluation", "calibration", {"points": [{"max_false_reject_rate": 0.05, "threshold_interval": [1]}]}),
        ("evaluation", "calibration", {"points": [{"threshold": 0.05}]}),
        ("evaluation", "reliability", {"before": [{"confidence": "x"}]}),
        ("evaluation", "n", True),
        ("evaluation", "calibration", {"label_thresholds": ["0.5"]}),
        ("evaluation", "confusion_pairs", [{"true": "a", "predicted": "b", "n": 1, "share": "x"}]),
        ("evaluation", "routing", {"aurc": {"value": "low"}}),
        ("evaluation", "routing", {"policy": {"costs": {"a": {"b": "dear"}}}}),
        ("evaluation", "routing", {"out_of_scope": {"scores": {"knn": {"auroc": 3}}}}),
        ("evaluation", "routing", {"risk_coverage": [{"risk": "x"}]}),
    ],
)
def test_an_entry_of_another_form_is_left_out_and_named(name: str, key: str, value: Any) -> None:
    problems: list[str] = []
    assert fitting(name, {key: value, "unknown": 1}, problems) == {"unknown": 1}
    assert problems == [f"`{key}` of {name}.json has another form than expected"]


def test_a_routing_as_the_test_writes_it_fits() -> None:
    problems: list[str] = []
    policy = {**routing()["policy"], "costs": {"ask": 1.0, "*": {"*": 5.0}}}
    for values in (routing(), routing(policy=policy), {}, dict.fromkeys(routing())):
        assert fitting("evaluation", {"routing": values}, problems) == {"routing": values}
    assert problems == []


def test_what_was_not_measured_is_no_problem() -> None:
    problems: list[str] = []
    assert fitting("evaluation", {"reliability": None, "latency": None}, problems) == {}
    assert problems == []
