from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import Outputs, compare_runs, evaluate_classification, format_comparison
from lightning_transfer.evaluation.baselines import BaselineOutputs
from lightning_transfer.types import Calibration, Schema
from tests.unit.evaluation.test_tested_runs import make_outputs, write_run

SCHEMA = Schema(task="multiclass", classes=("good", "pit", "dent"), negative_class="good")
FIRST, SECOND = Calibration(1.3, 0.5), Calibration(0.8, 0.7)


def _better(outputs: Outputs, gain: float = 0.7) -> Outputs:
    """The same records, as a somewhat better model with noise of its own sees them."""
    noise = 0.5 * np.random.default_rng(9).normal(size=tuple(outputs.logits.shape))
    return outputs.with_logits(outputs.logits + gain * torch.eye(3)[outputs.target] + torch.tensor(noise))


def test_the_same_records_give_the_paired_differences_of_the_evaluation(tmp_path: Path) -> None:
    outputs = make_outputs(SCHEMA)
    other = _better(outputs)
    records = write_run(tmp_path / "a", SCHEMA, outputs, FIRST)
    write_run(tmp_path / "b", SCHEMA, other, SECOND)
    found = compare_runs([tmp_path / "a", tmp_path / "b"], n_resamples=100)
    # The evaluation takes the other run for a baseline: model minus baseline, on the same draws.
    expected = evaluate_classification(
        other, records, SCHEMA, SECOND, baselines={"a": BaselineOutputs(outputs, FIRST)}, n_resamples=100
    )
    first, second = found.runs
    assert (first.name, second.name) == ("a", "b")
    assert (first.paired, second.paired) == (None, True)
    assert (second.n, second.num_groups) == (200, 20)
    assert first.difference == {}
    assert found.notes == ()
    for name in ("macro_f1", "accuracy", "balanced_accuracy", "auroc", "average_precision"):
        for item, truth in (
            (second.metrics[name], expected.metrics[name]),
            (first.metrics[name], expected.baselines["a"][name]),
            (second.difference[name], expected.differences["a"][name]),
        ):
            assert [item.value, item.low, item.high] == pytest.approx([truth.value, truth.low, truth.high], abs=1e-9)
    for name in ("recall_at_threshold", "false_reject_rate"):
        assert second.metrics[name].value == pytest.approx(expected.metrics[name].value)
        assert second.difference[name].value == pytest.approx(
            expected.metrics[name].value - expected.baselines["a"][name].value
        )


def test_another_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    outputs = make_outputs(SCHEMA)
    for name in ("a", "b", "c"):
        write_run(tmp_path / name, SCHEMA, outputs if name == "a" else _better(outputs), FIRST)
    path = tmp_path / "c" / "test" / "predictions.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(rows)]) + "\n")
    _, second, third = compare_runs([tmp_path / name for name in "abc"], n_resamples=50).runs
    assert second.difference == third.difference
    assert second.metrics == third.metrics


def test_a_paired_difference_is_surer_than_an_unpaired_one(tmp_path: Path) -> None:
    outputs = make_outputs(SCHEMA)
    write_run(tmp_path / "a", SCHEMA, outputs, FIRST)
    write_run(tmp_path / "same", SCHEMA, _better(outputs), FIRST)
    write_run(tmp_path / "other", SCHEMA, _better(outputs), FIRST)
    path = tmp_path / "other" / "test" / "predictions.csv"
    path.write_text(path.read_text().replace("\nr", "\nz"))
    found = compare_runs([tmp_path / name for name in ("a", "same", "other")], n_resamples=200)
    paired, unpaired = found.runs[1].difference["macro_f1"], found.runs[2].difference["macro_f1"]
    assert paired.value == pytest.approx(unpaired.value)
    assert unpaired.high - unpaired.low > 1.3 * (paired.high - paired.low)
    # Independent draws: the variances add up.
    own = [found.runs[place].metrics["macro_f1"] for place in (0, 2)]
    width = np.hypot(*(item.high - item.low for item in own))
    assert unpaired.high - unpaired.low == pytest.approx(width, rel=0.2)
    assert found.runs[2].paired is False
    assert (
        "`other` and `a` are compared unpaired: their 200 and 200 records are not the same (0 ids in" in found.notes[0]
    )
    assert "of several, the best looks better than it is" in found.notes[1]


def test_the_same_ids_with_other_labels_are_not_the_same_records(tmp_path: Path) -> None:
    outputs = make_outputs(SCHEMA)
    write_run(tmp_path / "a", SCHEMA, outputs, FIRST)
    turned = Outputs(outputs.logits, outputs.features, (outputs.target + 1) % 3, outputs.index)
    write_run(tmp_path / "b", SCHEMA, turned, FIRST)
    found = compare_runs([tmp_path / "a", tmp_path / "b"], n_resamples=2)
    assert found.runs[1].paired is False
    assert "records have other labels (200 ids in common)" in found.notes[0]


def test_runs_without_groups_and_rows_without_predictions_are_noted(tmp_path: Path) -> None:
    outputs = make_outputs(SCHEMA, n=30)
    outputs.logits[3] = torch.nan
    for name in ("a", "b"):
        write_run(tmp_path / name, SCHEMA, outputs, FIRST)
    path = tmp_path / "b" / "test" / "predictions.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join([*cells[:3], *cells[4:]]) for cells in rows) + "\n")
    notes = compare_runs([tmp_path / "a", tmp_path / "b"], n_resamples=2).notes
    assert "names no groups" in notes[0]
    assert [note for note in notes if "left out" in note] == [
        "1 rows of `a` have no label or no prediction, and are left out.",
        "1 rows of `b` have no label or no prediction, and are left out.",
    ]


def test_runs_of_other_classes_cannot_be_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "a", SCHEMA, make_outputs(SCHEMA, n=30), FIRST)
    write_run(tmp_path / "b", Schema("multiclass", ("x", "y", "z")), make_outputs(SCHEMA, n=30), Calibration())
    with pytest.raises(TransferError, match="`b` tells x, y, z apart"):
        compare_runs([tmp_path / "a", tmp_path / "b"])
    write_run(tmp_path / "c", Schema("multiclass", SCHEMA.classes), make_outputs(SCHEMA, n=30), Calibration())
    with pytest.raises(TransferError, match="negative class of `c` is `None`, and that of `a` is `good`"):
        compare_runs([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(TransferError, match="needs two runs or more, got 1"):
        compare_runs([tmp_path / "a"])


def test_equal_names_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for place in ("x", "y"):
        write_run(tmp_path / place / "run", SCHEMA, make_outputs(SCHEMA, n=30), FIRST)
    found = compare_runs([tmp_path / "x" / "run", tmp_path / "y" / "run"], n_resamples=2)
    assert [run.name for run in found.runs] == [str(tmp_path / "x" / "run"), str(tmp_path / "y" / "run")]


def test_the_text_has_scores_differences_costs_and_notes(tmp_path: Path) -> None:
    outputs = make_outputs(SCHEMA)
    write_run(tmp_path / "a", SCHEMA, outputs, FIRST)
    write_run(tmp_path / "b", SCHEMA, _better(outputs), FIRST)
    (tmp_path / "b" / "metrics.json").write_text(json.dumps({"fit_seconds": {"value": 12.5}}))
    (tmp_path / "b" / "test" / "evaluation.json").write_text('{"latency": {"num_parameters": 1291475}}')
    found = compare_runs([tmp_path / "a", tmp_path / "b"], n_resamples=50)
    text = format_comparison(found)
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert text.splitlines()[1].startswith("macro_f1 ")
    difference = found.runs[1].difference["macro_f1"]
    assert f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]" in text
    assert lines["minus a"].split() == ["minus", "a", "b"]
    assert lines["fit, s"].split()[2:] == ["n/a", "12.5"]
    assert lines["parameters"].split()[1:] == ["n/a", "1,291,475"]
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["reference"] == "a"
    assert values["headline"] == "macro_f1"
    assert values["runs"][1]["difference"]["macro_f1"]["value"] == difference.value
