from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.data import write_predictions
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import Outputs, evaluate_classification, fit_calibration, predictions
from lightning_transfer.evaluation.judges import judge
from lightning_transfer.evaluation.scores import decision_score
from lightning_transfer.evaluation.tested_runs import read_tested_run
from lightning_transfer.files import write_json
from lightning_transfer.types import Calibration, Record, Schema

THREE = Schema(task="multiclass", classes=("good", "=pit", "dent"), negative_class="good")
BINARY = Schema(task="binary", classes=("good", "bad"), negative_class="good")
PLAIN = Schema(task="multiclass", classes=("a", "b", "c"))


def write_run(
    folder: Path, schema: Schema, outputs: Outputs, calibration: Calibration, groups: int = 20
) -> list[Record]:
    """Write what the verb `test` would."""
    records = []
    for place, target in enumerate(outputs.target.tolist()):
        label = (
            tuple(None if np.isnan(cell) else cell for cell in target)
            if schema.task == "multilabel"
            else schema.classes[int(target)]
        )
        records.append(Record(id=f"r{place}", input=Path(f"{place}.png"), label=label, group=f"g{place % groups}"))
    rows = predictions(outputs.logits, [record.id for record in records], schema, calibration)
    write_predictions(folder / "test" / "predictions.csv", records, rows, schema, calibration)
    write_json(folder / "test" / "data.json", {"num_records": {"test": len(records)}, **schema.to_dict()})
    return records


def make_outputs(schema: Schema, n: int = 200, seed: int = 0, signal: float = 1.5) -> Outputs:
    rng = np.random.default_rng(seed)
    if schema.task == "multilabel":
        target = rng.integers(0, 2, (n, schema.num_classes)).astype(float)
        logits = rng.normal(size=target.shape) + signal * target
        target[rng.random(target.shape) < 0.1] = np.nan
    else:
        target = rng.integers(0, schema.num_classes, n)
        logits = rng.normal(size=(n, schema.num_classes)) + signal * np.eye(schema.num_classes)[target]
        if schema.task == "binary":
            logits, target = logits[:, 1:] - logits[:, :1], target.astype(float)
    return Outputs(torch.tensor(logits), torch.zeros(n, 1), torch.tensor(target), torch.arange(n))


@pytest.mark.parametrize("schema", [THREE, BINARY, PLAIN, Schema("multilabel", ("x", "y"))], ids=lambda s: s.task)
def test_what_is_read_back_scores_as_the_model_did(tmp_path: Path, schema: Schema) -> None:
    outputs = make_outputs(schema)
    calibration = fit_calibration(make_outputs(schema, seed=1), schema, n_resamples=0)
    records = write_run(tmp_path, schema, outputs, calibration)
    run = read_tested_run(tmp_path)
    assert run.schema == schema
    assert run.ids == tuple(record.id for record in records)
    assert run.groups == tuple(record.group for record in records)
    expected = evaluate_classification(outputs, records, schema, calibration, n_resamples=2).metrics
    found = judge(run.logits, run.target, run.schema, run.calibration).statistic(np.ones((1, 200)))
    # Probabilities have six digits: only what sums them differs, in the sixth.
    exact = {"macro_f1", "accuracy", "balanced_accuracy", "recall_at_threshold", "false_reject_rate", "auroc"}
    exact |= {"micro_f1", "macro_f1_at_thresholds", "micro_f1_at_thresholds", "recall_at_threshold_x"}
    assert ("micro_f1_at_thresholds" in found) == (schema.task == "multilabel")
    for name in exact & set(found) & set(expected):
        assert found[name][0] == pytest.approx(expected[name].value, abs=1e-12), name
    assert found["brier"][0] == pytest.approx(expected["brier"].value, abs=1e-5)


def test_sure_predictions_keep_their_order(tmp_path: Path) -> None:
    """Scores that differ in the tenth digit, probabilities that all read 1.0 or 0.0."""
    logits = torch.tensor([[0.0, 25.0], [0.0, 24.0], [0.0, 23.0], [0.0, 22.0]], dtype=torch.float64)
    schema = Schema(task="multiclass", classes=("good", "bad"), negative_class="good")
    outputs = Outputs(logits, torch.zeros(4, 1), torch.tensor([1, 0, 1, 0]), torch.arange(4))
    write_run(tmp_path, schema, outputs, Calibration())
    run = read_tested_run(tmp_path)
    found = judge(run.logits, run.target, schema, run.calibration).statistic(np.ones((1, 4)))
    assert found["auroc"] == pytest.approx(0.75)
    assert run.calibration.threshold is None
    _, log_odds = decision_score(run.logits, schema, temperature=1.0)
    assert log_odds == pytest.approx([25.0, 24.0, 23.0, 22.0], abs=1e-3)


def test_scores_rank_although_six_digits_of_the_probabilities_add_up_the_other_way(tmp_path: Path) -> None:
    shares = torch.tensor([[0.4999996, 0.2500002, 0.2500002], [0.4999998, 0.2500006, 0.2499996]], dtype=torch.float64)
    outputs = Outputs(shares.log(), torch.zeros(2, 1), torch.tensor([1, 0]), torch.arange(2))
    write_run(tmp_path, THREE, outputs, Calibration())
    run = read_tested_run(tmp_path)
    score, _ = decision_score(run.logits, THREE, temperature=1.0)
    assert score[0] > score[1]
    assert score == pytest.approx((1 - shares[:, 0]).tolist(), abs=1e-12)


@pytest.mark.parametrize(("threshold", "called"), [(0.0, 1.0), (2.0, 0.0)])
def test_a_threshold_below_or_above_all_scores_stays_there(tmp_path: Path, threshold: float, called: float) -> None:
    write_run(tmp_path, THREE, make_outputs(THREE), Calibration(threshold=threshold))
    run = read_tested_run(tmp_path)
    found = judge(run.logits, run.target, THREE, run.calibration).statistic(np.ones((1, 200)))
    assert (found["recall_at_threshold"], found["false_reject_rate"]) == (called, called)


def test_rows_without_label_or_prediction_are_left_out_and_counted(tmp_path: Path) -> None:
    outputs = make_outputs(PLAIN, n=5)
    outputs.logits[3] = torch.nan
    write_run(tmp_path, PLAIN, outputs, Calibration())
    path = tmp_path / "test" / "predictions.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:2], "", *cells[3:]])
    path.write_text("\n".join(lines) + "\n")
    run = read_tested_run(tmp_path)
    assert run.ids == ("r1", "r2", "r4")
    assert run.num_left_out == 2


def test_a_test_before_groups_were_written_has_none(tmp_path: Path) -> None:
    write_run(tmp_path, PLAIN, make_outputs(PLAIN, n=5), Calibration())
    path = tmp_path / "test" / "predictions.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join([*cells[:3], *cells[4:]]) for cells in rows) + "\n")
    assert read_tested_run(tmp_path).groups is None


def test_facts_are_those_that_were_measured(tmp_path: Path) -> None:
    write_run(tmp_path, PLAIN, make_outputs(PLAIN, n=5), Calibration())
    assert read_tested_run(tmp_path).facts == {}
    (tmp_path / "metrics.json").write_text(json.dumps({"fit_seconds": {"value": 3.5}}))
    latency = {"rows": [{"p50_ms": 1.5}, {"p50_ms": 2.5}], "size_mb": None, "num_parameters": 10}
    (tmp_path / "test" / "evaluation.json").write_text(json.dumps({"latency": latency}))
    run = read_tested_run(tmp_path / "test")
    assert run.facts == {"fit_seconds": 3.5, "num_parameters": 10.0, "latency_p50_ms": 1.5}
    (tmp_path / "test" / "evaluation.json").write_text("no json")
    assert read_tested_run(tmp_path).facts == {"fit_seconds": 3.5}


def test_what_was_not_tested_or_is_broken_says_so(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"There is no folder `.*none`"):
        read_tested_run(tmp_path / "none")
    with pytest.raises(TransferError, match=r"was not tested: it has no `test/predictions.csv`"):
        read_tested_run(tmp_path)
    write_run(tmp_path, PLAIN, make_outputs(PLAIN, n=5), Calibration())
    data = tmp_path / "test" / "data.json"
    data.write_text(json.dumps({**PLAIN.to_dict(), "classes": ["a", "b", "d"]}))
    with pytest.raises(TransferError, match="no column `probability_d`"):
        read_tested_run(tmp_path)
    data.write_text("[]")
    with pytest.raises(TransferError, match="does not describe the data of a run"):
        read_tested_run(tmp_path)
    write_json(data, PLAIN.to_dict())
    path = tmp_path / "test" / "predictions.csv"
    head = path.read_text().splitlines()[0]
    path.write_text(f"{head}\nr1,1.png,z,g1,a,1,0,0,,,a,,,,\n")
    with pytest.raises(TransferError, match="The class `z` is none of a, b, c"):
        read_tested_run(tmp_path)
    path.write_text(f"{head}\nr1,1.png,,g1,a,1,0,0,,,a,,,,\n")
    with pytest.raises(TransferError, match="None of the 1 rows"):
        read_tested_run(tmp_path)
