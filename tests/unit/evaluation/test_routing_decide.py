"""Oracles: a decision made by hand with softmax, one ticket at a time; Chow's rule for equal costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_transfer.evaluation import RoutingPolicy, TrainingExamples, decide
from lightning_transfer.evaluation.routing_decide import choose, out_of_scope_scores
from lightning_transfer.metrics import energy_score, knn_score, max_logit_score
from lightning_transfer.types import Neighbour, Schema

QUEUES = ("billing", "technical", "delivery")
SCHEMA = Schema(task="multiclass", classes=QUEUES)


def logits_of(*rows):
    return torch.log(torch.tensor(rows, dtype=torch.float64)).float()


def one(row, policy, temperature=1.0, examples=None, features=None):
    features = torch.ones(1, 2) if features is None else features
    [found] = decide(logits_of(row), features, ["T-1"], SCHEMA, temperature, policy, examples)
    return found


def test_each_reason_in_plain_words():
    policy = RoutingPolicy(0.95, threshold=0.4, min_margin=0.1)
    sure = one([0.93, 0.04, 0.03], policy)
    assert (sure.decision, sure.queue, sure.reason) == ("route", "billing", "0.93 is at least 0.40")
    close = one([0.45, 0.48, 0.07], policy)
    assert (close.decision, close.queue) == ("ask", None)
    assert close.reason == "0.48 against 0.45 for `billing`: too close"
    unsure = one([0.36, 0.33, 0.31], policy)  # also too close: what is below the threshold is said first
    assert (unsure.decision, unsure.reason) == ("ask", "0.36 is below 0.40")
    foreign = one([0.93, 0.04, 0.03], RoutingPolicy(0.95, 0.4, out_of_scope_threshold=0.05))
    assert (foreign.decision, foreign.queue) == ("out of scope", None)
    # Logits are logarithms of probabilities here, so the largest is the logarithm of 0.93.
    assert foreign.reason == "unlike all known tickets: max_logit 0.07 is above 0.05"
    none = one([0.93, 0.04, 0.03], RoutingPolicy(0.95, threshold=None))
    assert (none.decision, none.queue) == ("ask", None)
    assert none.reason == "no threshold proves a precision of 0.95, so every ticket is asked about"


def test_numbers_that_round_alike_are_told_apart():
    found = one([0.8096, 0.1, 0.0904], RoutingPolicy(0.95, threshold=0.8103))
    assert found.reason == "0.8096 is below 0.8103"


def test_a_ticket_at_the_thresholds_is_routed():
    policy = RoutingPolicy(0.9, threshold=0.5, min_margin=0.25, out_of_scope_threshold=0.0)
    made = choose(np.zeros((1, 2)), [0.0], ("a", "b"), 1.0, RoutingPolicy(0.9, 0.5, out_of_scope_threshold=0.0))
    assert made.routed.all()
    above = choose(np.log([[0.75, 0.25]]), [np.nextafter(0, 1)], ("a", "b"), 1.0, policy)
    assert above.foreign.all()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_decisions_are_those_made_by_hand(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 3)) * 3
    score = rng.random(200)
    policy = RoutingPolicy(0.95, threshold=0.6, min_margin=0.3, out_of_scope_threshold=0.9)
    made = choose(logits, score, QUEUES, temperature, policy)
    for place in range(200):
        probs = np.exp(logits[place] / temperature) / np.exp(logits[place] / temperature).sum()
        first, second = sorted(probs, reverse=True)[:2]
        if score[place] > 0.9:
            expected = "out of scope"
        else:
            expected = "route" if first >= 0.6 and first - second >= 0.3 else "ask"
        assert made.decisions()[place] == expected
        assert (made.confidence[place], made.margin[place]) == pytest.approx((first, first - second))
        assert made.queue[place] == probs.argmax()
    assert set(made.causes()) == {
        "sure enough", "below the threshold", "too close", "unlike all known tickets",
    }  # fmt: skip


def test_equal_costs_are_chows_rule():
    """With one cost for every misroute, asking is cheaper below a confidence of 1 - ask / cost (Chow 1970)."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 3)) * 2
    policy = RoutingPolicy(0.95, threshold=None, costs={"ask": 1.0, "*": {"*": 4.0}})
    made = choose(logits, np.zeros(300), QUEUES, 1.0, policy)
    assert (made.queue == logits.argmax(axis=1)).all()
    assert (made.routed == (made.confidence >= 0.75)).all()
    assert 20 < made.routed.sum() < 280


def test_the_queue_of_the_lowest_expected_cost_is_chosen():
    policy = RoutingPolicy(0.95, threshold=0.99, costs={"ask": 3.0, "*": {"*": 1.0}, "technical": {"*": 10.0}})
    found = one([0.6, 0.3, 0.1], policy)
    # billing: 0.3 * 10 + 0.1 = 3.1; technical: 0.6 + 0.1 = 0.7
    assert (found.decision, found.queue) == ("route", "technical")
    assert found.confidence == pytest.approx(0.3)
    assert found.reason == "costs 0.70 on average, the likelier `billing` 3.10, asking 3.00"
    assert found.queues[0] == ("billing", pytest.approx(0.6))
    likely = one([0.9, 0.01, 0.09], policy)
    assert (likely.queue, likely.reason) == ("billing", "costs 0.19 on average, asking 3.00")


def test_asking_has_its_own_cost():
    found = one([0.6, 0.3, 0.1], RoutingPolicy(0.95, 0.1, costs={"ask": 0.3, "*": {"*": 1.0}}))
    assert (found.decision, found.queue) == ("ask", None)
    assert found.reason == "asking costs 0.30, `billing` 0.40 on average"


def test_the_top_queues_and_the_nearest_example():
    examples = TrainingExamples(torch.eye(2).half(), ("T-7", "T-8"), ("billing", "technical"))
    policy = RoutingPolicy(0.95, 0.1, out_of_scope_score="knn", out_of_scope_threshold=0.9)
    found = one([0.2, 0.5, 0.3], policy, examples=examples, features=torch.tensor([[3.0, 4.0]]))
    assert [name for name, _ in found.queues] == ["technical", "delivery", "billing"]
    assert [share for _, share in found.queues] == pytest.approx([0.5, 0.3, 0.2])
    assert found.nearest == Neighbour("T-8", "technical", 0.2)
    assert found.out_of_scope_score == pytest.approx(0.2)  # the nearest has the cosine 0.8
    line = found.to_dict(label="technical")
    assert line["nearest"] == {"id": "T-8", "queue": "technical", "distance": 0.2}
    assert line["queues"][0] == {"queue": "technical", "probability": 0.5}
    assert list(line) == [
        "id", "queues", "decision", "queue", "confidence", "margin", "out_of_scope_score", "nearest", "label", "reason",
    ]  # fmt: skip


def test_rows_without_finite_numbers_are_asked_about():
    examples = TrainingExamples(torch.eye(2).half(), ("T-7", "T-8"), ("billing", "technical"))
    policy = RoutingPolicy(0.95, 0.1, out_of_scope_score="knn", out_of_scope_threshold=0.9)
    logits = torch.tensor([[float("nan"), 0, 0], [9.0, 0, 0], [9.0, 0, 0]])
    features = torch.tensor([[1.0, 0], [0, 0], [1, 0]])
    broken, lost, fine = decide(logits, features, ["1", "2", "3"], SCHEMA, 1.0, policy, examples)
    assert (broken.decision, broken.reason) == ("ask", "the logits are not finite")
    assert (broken.queues, broken.confidence, broken.margin, broken.out_of_scope_score) == ((), None, None, None)
    assert (lost.decision, lost.reason) == ("ask", "the features have no direction")
    assert (fine.decision, fine.queue) == ("route", "billing")


def test_a_distance_needs_examples():
    policy = RoutingPolicy(0.95, 0.1, out_of_scope_score="knn", out_of_scope_threshold=0.9)
    with pytest.raises(ValueError, match="by `knn`, and the checkpoint keeps no training examples"):
        one([0.2, 0.5, 0.3], policy)
    # Where nothing is called out of scope, none are needed.
    assert one([0.2, 0.5, 0.3], RoutingPolicy(0.95, 0.1, out_of_scope_score="knn")).out_of_scope_score is None


def test_the_scores_are_those_of_the_metrics():
    rng = np.random.default_rng(0)
    logits, features = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    stored = torch.tensor(rng.normal(size=(6, 4))).half()
    examples = TrainingExamples(stored, tuple("abcdef"), ("billing",) * 6)
    found = out_of_scope_scores(("max_logit", "energy", "knn"), logits, features, examples)
    assert found["max_logit"] == pytest.approx(max_logit_score(logits))
    assert found["energy"] == pytest.approx(energy_score(logits))
    assert found["knn"] == pytest.approx(knn_score(features, stored.float().numpy(), 1))
    assert list(out_of_scope_scores(("energy", "knn"), logits, features, None)) == ["energy"]


def test_no_tickets_no_decisions():
    assert decide(torch.empty(0, 3), torch.empty(0, 2), [], SCHEMA, 1.0, RoutingPolicy(0.95, 0.5)) == []
