import json
from pathlib import Path
from typing import Any

import pytest
from make_run import evaluation, item, make_fit, make_test, routing, write

from lightning_transfer.evaluation import ClassificationResult
from lightning_transfer.metrics import Interval
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores, count_table
from lightning_transfer.types import Calibration, OperatingPoint


def read(folder: Path) -> Scores:
    found = Scores.read(RunFiles.read(folder))
    assert found is not None
    return found


def test_before_the_first_test_there_are_none(tmp_path: Path) -> None:
    assert Scores.read(RunFiles.read(make_fit(tmp_path / "run"))) is None


def test_the_evaluation_is_read(tmp_path: Path) -> None:
    found = read(make_test(make_fit(tmp_path / "run")))
    assert (found.headline, found.n, found.num_groups, found.threshold, found.temperature) == (
        "macro_f1", 60, 30, 0.4, 1.5,
    )  # fmt: skip
    assert found.best_baseline == "linear_probe"
    assert found.shown == ("macro_f1", "auroc", "accuracy")
    [point] = found.points
    assert (point.asked, point.chosen, point.threshold["low"], point.expected["high"]) == (0.05, True, 0.3, 0.1)
    assert point.recall is not None
    assert point.recall["value"] == 0.8


def test_a_run_without_evaluation_is_read_from_its_flat_metrics(tmp_path: Path) -> None:
    """Oracle: the result that the flat file was made from."""
    value = Interval(0.5, 0.4, 0.6, 10, 5)
    names = {"macro_f1": value, "auroc": value, "recall_a_of_b": value, "false_reject_rate_at_0.05": value}
    point = OperatingPoint(0.05, 0.3, (0.2, 0.4), 0.04, (0.0, 0.1), 40, 10, note="too few")
    result = ClassificationResult(
        "multiclass", ("good", "a_of_b"), {**names, "recall_good": value, "recall_at_false_reject_0.05": value},
        ((3, 1), (2, 4)), Calibration(1.0, 0.3, "r", 40, (point,)), n=10, num_groups=5, negative_class="good",
        baselines={"linear_probe": {"macro_f1": value}}, differences={"linear_probe": {"macro_f1": value}},
    )  # fmt: skip
    run = make_fit(tmp_path / "run", classes=("good", "a_of_b"))
    rows = ["id,label,predicted,decision,threshold"]
    rows += [f"{place},good,{word},good,0.3" for place, word in enumerate(["good"] * 3 + ["a_of_b"])]
    (run / "test").mkdir()
    (run / "test" / "predictions.csv").write_text("\n".join(rows) + "\n")
    write(run / "test" / "metrics.json", result.flat())
    found = read(run)
    assert set(found.metrics) == set(result.metrics)
    assert set(found.baselines) == {"linear_probe"}
    assert found.differences == {"linear_probe": {"macro_f1": value.to_dict()}}
    assert found.confusion == ((3, 1), (0, 0))
    assert found.decisions == ((4, 0), (0, 0))
    assert found.threshold == 0.3
    [known] = found.points
    assert (known.asked, known.chosen, known.note, known.expected["high"]) == (0.05, True, "too few", 0.1)
    assert (found.n, found.num_groups) == (10, 5)


def test_a_binary_task_looks_at_auroc_first(tmp_path: Path) -> None:
    run = make_test(make_fit(tmp_path / "run"))
    (run / "test" / "evaluation.json").unlink()
    data = json.loads((run / "data.json").read_text())
    write(run / "data.json", {**data, "task": "binary"})
    assert read(run).headline == "auroc"


@pytest.mark.parametrize(("value", "best"), [(None, "majority"), (float("nan"), "majority"), (0.1, "majority")])
def test_a_baseline_without_value_is_not_the_best(tmp_path: Path, value: Any, best: str) -> None:
    changed = evaluation()
    changed["baselines"]["linear_probe"]["macro_f1"] = item(value)
    run = make_test(make_fit(tmp_path / "run"), baselines=changed["baselines"])
    assert read(run).best_baseline == best


def test_labels_that_are_no_class_are_not_counted() -> None:
    assert count_table([{"label": "x", "decision": "a"}, {"label": "", "decision": "a"}], ["a"], "decision") == ()


def test_levels_labels_pairs_and_routing_are_read(tmp_path: Path) -> None:
    pair = {"true": "pit", "predicted": "good", "n": 2, "share": 0.1, "examples": ["a"]}
    metrics = {"macro_f1": item(0.5), **{f"accuracy_level_{depth}": item(0.9) for depth in (2, 1)}}
    metrics |= {"accuracy_level_x": item(0.9), "micro_f1": item(0.6), "top_3_accuracy": item(0.8)}
    calibration = {"temperature": 1.0, "label_thresholds": [0.2, 0.5, 0.4], "label_rules": ["a", "b", "c"]}
    found = read(make_test(make_fit(tmp_path / "run"), metrics=metrics, calibration=calibration,
                           confusion_pairs=[pair], routing=routing()))  # fmt: skip
    assert found.levels == (1, 2)
    assert found.label_thresholds == {"good": 0.2, "pit": 0.5, "scratch": 0.4}
    assert found.label_rules["scratch"] == "c"
    assert found.confusion_pairs == (pair,)
    assert found.routing == routing()
    assert found.shown == ("macro_f1", "micro_f1", "top_3_accuracy")
