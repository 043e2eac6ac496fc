from __future__ import annotations

import torch

from lightning_transfer.evaluation import BaselineOutputs, ClassificationResult, Outputs, format_overview
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration

EMPTY = Outputs(torch.zeros(0, 2), torch.zeros(0, 2), None, torch.zeros(0, dtype=torch.long))


def _interval(value: float) -> Interval:
    return Interval(value, value - 0.1, value + 0.1, n=40)


def _result(**baselines: dict[str, Interval]) -> ClassificationResult:
    own = {"macro_f1": _interval(0.8), "auroc": _interval(0.9)}
    return ClassificationResult("multiclass", ("a", "b"), own, (), Calibration(), 40, 10, baselines=baselines)


def _rows(**seconds: float | None) -> dict[str, BaselineOutputs]:
    return {name: BaselineOutputs(EMPTY, Calibration(), "", took) for name, took in seconds.items()}


def test_each_method_has_a_row_in_a_fixed_order_with_its_scores_and_seconds() -> None:
    scores = {"macro_f1": _interval(0.3), "auroc": _interval(0.5)}
    result = _result(scratch=scores, linear_probe=scores, majority=scores)
    took = Interval(20.0, None, None, 1)
    text = format_overview(result, _rows(scratch=31.25, linear_probe=1.0, majority=None), {"fit_seconds": took})
    head, *rows = text.splitlines()
    assert head.split() == ["macro_f1", "auroc", "seconds"]
    assert [row[:14].strip() for row in rows] == ["majority class", "from scratch", "linear probe,", "this model"]
    assert [row.split()[-1] for row in rows] == ["0.600]", "31.2", "1.0", "20.0"]
    assert "0.300 [0.200, 0.400]  0.500 [0.400, 0.600]" in rows[1]
    assert "0.800 [0.700, 0.900]" in rows[3]


def test_a_frozen_backbone_keeps_the_source_accuracy_and_one_from_scratch_never_had_it() -> None:
    scores = {"macro_f1": _interval(0.3), "auroc": _interval(0.5)}
    facts = {
        "source_accuracy_before": _interval(0.75),
        "source_accuracy_after": _interval(0.5625),
        "source_accuracy_chance": Interval(0.125, None, None, 40),
    }
    text = format_overview(_result(scratch=scores, knn=scores), _rows(scratch=1.0), facts)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "0.750" in rows["neighbours, frozen backbone"]
    assert "0.750" not in rows["from scratch"]
    assert "0.562" in rows["this model"]
    assert text.endswith("source accuracy: 0.750 [0.650, 0.850] before adapting, chance 0.125")


def test_weights_that_were_not_measured_say_so() -> None:
    facts = {"source_accuracy_before": _interval(0.75)}
    facts["source_accuracy_after"] = Interval(None, None, None, 40, reason="not measured with these weights")
    assert "n/a (not measured with these weights)" in format_overview(_result(), {}, facts)
