"""Values are checked against scikit-learn in `test_classification.py`; here: weights mean repeated records."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_transfer.evaluation.judges import judge
from lightning_transfer.types import Calibration, OperatingPoint, Schema

POINT = OperatingPoint(0.05, 0.7, None, 0.0, (0.0, 1.0), 10, 10)
CASES = {
    "surface": (
        Schema(task="multiclass", classes=("crack", "free", "pit"), negative_class="free"),
        Calibration(0.8, 0.5, points=(POINT,)),
    ),
    "plain": (Schema(task="multiclass", classes=("a", "b", "c")), Calibration(0.8)),
    "binary": (Schema(task="binary", classes=("good", "bad")), Calibration(2.0, 0.5, points=(POINT,))),
    "multilabel": (Schema(task="multilabel", classes=("a", "b", "c")), Calibration(1.5)),
}


def problem(schema, n=60):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, schema.num_logits)) * 2
    if schema.task == "multilabel":
        target = rng.integers(0, 2, (n, 3)).astype(float)
        target[rng.random((n, 3)) < 0.2] = np.nan
        target[np.isnan(target).all(axis=1), 0] = 1.0
        return logits, target
    return logits, rng.integers(0, schema.num_classes, n)


@pytest.mark.parametrize("name", CASES)
def test_a_weight_means_as_many_records(name):
    schema, calibration = CASES[name]
    logits, target = problem(schema)
    weights = np.random.default_rng(1).integers(0, 4, len(target))
    weighted = judge(logits, target, schema, calibration).statistic(weights[None].astype(float))
    chosen = np.repeat(np.arange(len(target)), weights)
    repeated = judge(logits[chosen], target[chosen], schema, calibration).statistic(np.ones((1, len(chosen))))
    assert list(weighted) == list(repeated)
    for key, value in weighted.items():
        assert value.shape == (1,)
        assert value[0] == pytest.approx(repeated[key][0]), key


@pytest.mark.parametrize("name", CASES)
def test_a_share_is_a_whole_number_of_its_records(name):
    schema, calibration = CASES[name]
    logits, target = problem(schema)
    found = judge(logits, target, schema, calibration)
    values = found.statistic(np.ones((1, len(target))))
    shares = found.shares - ({"accuracy"} if schema.task == "multilabel" else set())
    assert shares <= set(values)
    for key in shares:
        n = found.masks[key].sum() if key in found.masks else len(target)
        assert (values[key][0] * n) % 1 == pytest.approx(0, abs=1e-9) or (values[key][0] * n) % 1 == pytest.approx(1)
    assert ("escape_rate" in shares) == (calibration.threshold is not None)
