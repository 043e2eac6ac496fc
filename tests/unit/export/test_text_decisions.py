import json

import numpy as np
import pytest
import torch

from lightning_transfer.evaluation import RoutingPolicy, TrainingExamples, decide
from lightning_transfer.export.text_decisions import Examples, decided, unreadable
from lightning_transfer.types import Schema

FACTS = {
    "task": "multiclass", "classes": ["a", "b", "c"], "negative_class": None, "threshold": None, "temperature": 2.0,
    "label_thresholds": [],
}  # fmt: skip
POLICY = {
    "target_precision": 0.95, "threshold": 0.6, "min_margin": 0.0, "out_of_scope_score": "max_logit",
    "out_of_scope_threshold": None, "costs": {},
}  # fmt: skip
KEYS = {
    "id", "queues", "decision", "queue", "confidence", "margin", "out_of_scope_score", "nearest", "label", "reason"
}  # fmt: skip


def line(shares, *, examples=None, features=(1.0, 0.0), facts=FACTS, **policy):
    """Of probabilities after temperature; the largest logit is 4 more than it was."""
    logits = 2.0 * np.log(np.asarray(shares)) + 4.0
    made = decided("T", logits, np.asarray(features), {**facts, "routing": {**POLICY, **policy}}, examples, 3)
    assert set(made) == KEYS
    json.dumps(made, allow_nan=False)
    return made


def test_probabilities_are_those_after_temperature():
    found = line([0.7, 0.1, 0.2])
    assert found["queues"] == [
        {"queue": "a", "probability": 0.7}, {"queue": "c", "probability": 0.2}, {"queue": "b", "probability": 0.1},
    ]  # fmt: skip
    assert (found["decision"], found["queue"]) == ("route", "a")
    assert found["confidence"] == pytest.approx(0.7)
    assert found["margin"] == pytest.approx(0.5)
    assert found["out_of_scope_score"] == pytest.approx(-(2.0 * np.log(0.7) + 4.0))


@pytest.mark.parametrize(
    ("shares", "policy", "decision", "reason"),
    [
        ([0.7, 0.2, 0.1], {}, "route", "0.70 is at least 0.60"),
        ([0.59, 0.31, 0.1], {}, "ask", "0.59 is below 0.60"),
        ([0.5999, 0.3001, 0.1], {}, "ask", "0.5999 is below 0.6000"),
        ([0.7, 0.2, 0.1], {"threshold": None}, "ask", "no threshold proves a precision of 0.95"),
        ([0.65, 0.3, 0.05], {"min_margin": 0.4}, "ask", "0.65 against 0.30 for `b`: too close"),
        ([0.55, 0.4, 0.05], {"min_margin": 0.4}, "ask", "0.55 is below 0.60"),
        ([0.9, 0.05, 0.05], {"out_of_scope_threshold": -3.0}, "route", "0.90 is at least"),
        ([0.6, 0.3, 0.1], {"out_of_scope_threshold": -3.0}, "out of scope", "max_logit -2.98 is above -3.00"),
        ([0.4, 0.3, 0.3], {"out_of_scope_threshold": -3.0, "threshold": None}, "out of scope", "unlike all known"),
    ],
)
def test_the_policy_decides_and_says_why(shares, policy, decision, reason):
    found = line(shares, **policy)
    assert found["decision"] == decision
    assert reason in found["reason"]
    assert (found["queue"] is not None) == (decision == "route")


def test_energy_is_the_free_energy_at_temperature_one():
    found = line([0.6, 0.3, 0.1], out_of_scope_score="energy")
    logits = 2.0 * np.log([0.6, 0.3, 0.1]) + 4.0
    assert found["out_of_scope_score"] == pytest.approx(-np.log(np.exp(logits).sum()))


def test_the_distance_needs_training_texts():
    examples = Examples(np.array([[0.0, 2.0], [3.0, 4.0]]), ["x", "y"], ["a", "b"])
    policy = {"out_of_scope_score": "knn", "out_of_scope_threshold": 0.3}
    near, far = (
        line([0.7, 0.2, 0.1], examples=examples, features=(0.0, 1.0), **policy),
        line([0.7, 0.2, 0.1], examples=examples, features=(1.0, 0.0), **policy),
    )
    assert (near["decision"], near["out_of_scope_score"]) == ("route", pytest.approx(0.0))
    assert near["nearest"] == {"id": "x", "queue": "a", "distance": 0.0}
    assert (far["decision"], far["out_of_scope_score"]) == ("out of scope", pytest.approx(0.4))
    without = line([0.7, 0.2, 0.1], **policy)
    assert without["decision"] == "ask"
    assert "the score `knn` needs features of training texts" in without["reason"]
    assert without["out_of_scope_score"] is None
    nowhere = line([0.7, 0.2, 0.1], examples=examples, features=(0.0, 0.0), **policy)
    assert (nowhere["decision"], nowhere["nearest"]) == ("ask", None)


def test_costs_decide_instead_of_the_threshold():
    costs = {"ask": 1.0, "*": {"*": 2.0}, "c": {"*": 30.0}}
    asked = line([0.7, 0.2, 0.1], costs=costs)
    # 0.7 right, 0.2 at 2, 0.1 at 30: 3.4 on average, more than asking.
    assert (asked["decision"], asked["queue"]) == ("ask", None)
    assert asked["confidence"] == pytest.approx(0.1)
    # Of `c` the expected cost is 0.9 * 2, still the least.
    assert asked["reason"] == "asking costs 1.00, `c` 1.80 on average"
    routed = line([0.52, 0.47, 0.01], costs=costs)
    assert (routed["decision"], routed["reason"]) == ("ask", "asking costs 1.00, `a` 1.24 on average")
    cheap = line([0.8, 0.19, 0.01], costs=costs)
    assert (cheap["decision"], cheap["queue"]) == ("route", "a")
    assert cheap["reason"] == "costs 0.68 on average, asking 1.00"


def test_without_a_policy_every_text_goes_to_its_most_probable_queue():
    made = decided("T", np.array([1.0, 5.0, 0.0]), np.ones(2), {**FACTS, "routing": None}, None, 1)
    assert (made["decision"], made["queue"], len(made["queues"])) == ("route", "b", 1)
    assert "no routing policy" in made["reason"]


def test_several_labels_are_named_together():
    facts = {**FACTS, "task": "multilabel", "routing": None, "label_thresholds": [0.5, 0.9, 0.5]}
    made = decided("T", np.array([2.0, 2.0, 6.0]), np.ones(2), facts, None, 3)
    assert made["queue"] == "a|c"
    none = decided("T", np.array([-2.0, -2.0, -6.0]), np.ones(2), facts, None, 3)
    assert none["queue"] is None


def test_rows_without_finite_logits_and_unreadable_ones_keep_their_line():
    made = decided("T", np.array([np.nan, 1.0, 0.0]), np.ones(2), {**FACTS, "routing": POLICY}, None, 3)
    assert (made["decision"], made["reason"], made["queues"]) == ("ask", "the logits are not finite", [])
    assert set(unreadable("x", "why")) == set(made) == KEYS


@pytest.mark.parametrize("score", ["max_logit", "energy", "knn"])
@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 0.6},
        {"threshold": None},
        {"threshold": 0.4, "min_margin": 0.2},
        {"threshold": 0.6, "costs": {"ask": 1.0, "*": {"*": 2.5}, "c": {"*": 9.0, "a": 4.0}}},
        {"threshold": 0.6, "min_margin": 0.3, "costs": {"ask": 1.0, "*": {"*": 2.5}}},
    ],
    ids=str,
)
def test_every_line_is_the_packages(score, limit, changes):
    """Decision, queue, numbers and words: two pieces of code that share only the matrix of costs."""
    generator = torch.Generator().manual_seed(0)
    logits, features = torch.randn(200, 3, generator=generator) * 2, torch.randn(200, 4, generator=generator)
    known = torch.randn(20, 4, generator=generator)
    known = (known / known.norm(dim=1, keepdim=True)).half()
    scores = {"max_logit": -logits.amax(dim=1), "energy": -logits.logsumexp(dim=1), "knn": torch.rand(200)}
    cut = None if limit is None else limit if score == "knn" else float(scores[score].median())
    policy = RoutingPolicy(0.95, **changes, out_of_scope_score=score, out_of_scope_threshold=cut)
    names = tuple(f"T-{place}" for place in range(20))
    examples = TrainingExamples(known, names, ("a",) * 20)
    schema = Schema("multiclass", ("a", "b", "c"))
    expected = decide(logits, features, [str(place) for place in range(200)], schema, 2.0, policy, examples)
    facts = {**FACTS, "routing": policy.to_dict()}
    beside = Examples(known.numpy(), list(names), ["a"] * 20)
    for place, wanted in enumerate(expected):
        found = decided(str(place), logits[place].numpy(), features[place].numpy(), facts, beside, 3)
        plain = wanted.to_dict()
        for key in ("confidence", "margin", "out_of_scope_score"):
            assert found.pop(key) == pytest.approx(plain.pop(key), abs=1e-6)
        assert found.pop("nearest")["id"] == plain.pop("nearest")["id"]
        for mine, theirs in zip(found.pop("queues"), plain.pop("queues"), strict=True):
            assert mine == {"queue": theirs["queue"], "probability": pytest.approx(theirs["probability"], abs=1e-5)}
        assert found == plain
    assert len({row.decision for row in expected}) >= (1 if changes["threshold"] is None else 2)
