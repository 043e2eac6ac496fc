from __future__ import annotations

import io
import json

import pytest
import torch

from lightning_transfer.evaluation import RoutingPolicy
from lightning_transfer.metrics import PrecisionThreshold

POINTS = (
    PrecisionThreshold(0.95, 0.8, 0.97, (0.94, 0.99), 0.6, 60, 100, "at 0.95"),
    PrecisionThreshold(0.9, 0.5, 0.93, (0.88, 0.96), 0.8, 80, 100, "at 0.9"),
    PrecisionThreshold(0.99, None, None, None, 0.0, 0, 100, "no threshold"),
)
POLICY = RoutingPolicy(
    target_precision=0.95,
    threshold=0.8,
    min_margin=0.1,
    out_of_scope_score="knn",
    out_of_scope_threshold=0.4,
    out_of_scope_auroc={"knn": 0.9, "energy": None},
    costs={"ask": 1.0, "*": {"*": 5.0}},
    rule="at 0.95; out of scope above 0.4",
    n=100,
    n_out_of_scope=20,
    points=POINTS,
    in_scope_thresholds={"0.9": 0.4, "0.99": None},
)


def test_a_policy_survives_json_and_a_safe_checkpoint():
    assert RoutingPolicy.from_dict(json.loads(json.dumps(POLICY.to_dict()))) == POLICY
    stream = io.BytesIO()
    torch.save({"routing": POLICY.to_dict()}, stream)
    stream.seek(0)
    assert RoutingPolicy.from_dict(torch.load(stream, weights_only=True)["routing"]) == POLICY


def test_a_later_version_may_write_more():
    assert RoutingPolicy.from_dict({**POLICY.to_dict(), "colour": "red"}) == POLICY


def test_another_fitted_precision_changes_the_threshold_alone():
    other = POLICY.at(0.9)
    assert (other.target_precision, other.threshold, other.rule) == (0.9, 0.5, "at 0.9")
    assert (other.out_of_scope_threshold, other.min_margin) == (0.4, 0.1)
    assert other.at(0.95).threshold == 0.8
    assert POLICY.at(0.99).threshold is None
    assert POLICY.at(0.95) is POLICY


def test_a_precision_that_was_not_fitted_is_refused():
    with pytest.raises(ValueError, match=r"no threshold for the precision 0\.8\. Fitted: 0\.95, 0\.9, 0\.99"):
        POLICY.at(0.8)
