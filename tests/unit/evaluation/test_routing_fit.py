"""Oracles: scikit-learn's AUROC, counting on the calibration tickets, and new tickets of the same kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import Outputs, RoutingPolicy, fit_routing
from lightning_transfer.evaluation.routing_decide import choose, out_of_scope_scores
from lightning_transfer.metrics import fit_precision_threshold, probabilities
from lightning_transfer.types import Schema
from tests.unit.evaluation.routing_toys import SCHEMA, strangers, tickets, training_examples


def applied(policy, outputs, examples=None, temperature=1.0):
    logits, features = outputs.logits.double().numpy(), outputs.features.double().numpy()
    scores = out_of_scope_scores([policy.out_of_scope_score], logits, features, examples)
    return choose(logits, scores[policy.out_of_scope_score], SCHEMA.classes, temperature, policy)


def test_the_score_of_the_best_auroc_is_chosen_and_all_are_reported():
    inside, outside, examples = tickets(400, 0), strangers(80, 1), training_examples()
    policy = fit_routing(inside, SCHEMA, 1.0, foreign=outside, examples=examples)
    expected = {}
    for name in ("max_logit", "energy", "knn"):
        scores = [
            out_of_scope_scores([name], part.logits.numpy(), part.features.numpy(), examples)[name]
            for part in (inside, outside)
        ]
        expected[name] = roc_auc_score([0] * 400 + [1] * 80, np.concatenate(scores))
    assert policy.out_of_scope_auroc == pytest.approx(expected)
    assert policy.out_of_scope_score == max(expected, key=expected.get) == "knn"
    assert (policy.n, policy.n_out_of_scope) == (400, 80)
    assert f"the best AUROC of `max_logit` {expected['max_logit']:.3f}" in policy.rule
    asked = fit_routing(inside, SCHEMA, 1.0, foreign=outside, examples=examples, score="energy")
    assert asked.out_of_scope_score == "energy"
    assert asked.out_of_scope_auroc == pytest.approx({"energy": expected["energy"]})


def test_at_most_one_in_twenty_tickets_in_scope_is_called_foreign_and_no_lower_threshold_would_do():
    inside, examples = tickets(410, 0), training_examples()
    policy = fit_routing(inside, SCHEMA, 1.0, foreign=strangers(80, 1), examples=examples)
    called = applied(policy, inside, examples).foreign
    assert called.sum() == 20  # 0.05 * 410 is 20.5
    assert applied(policy, strangers(500, 7), examples).foreign.mean() > 0.8


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_the_threshold_is_fitted_on_what_remains_with_foreign_tickets_as_wrong(temperature):
    inside, outside = tickets(500, 0), strangers(100, 1)
    policy = fit_routing(inside, SCHEMA, temperature, foreign=outside, target_precision=0.9, min_margin=0.05)
    both = Outputs(
        torch.cat([inside.logits, outside.logits]),
        torch.cat([inside.features, outside.features]),
        torch.cat([inside.target, torch.full((100,), -1)]),
        torch.arange(600),
    )
    everything = replace(policy, threshold=0.0)
    made = applied(everything, both, temperature=temperature)
    remains = made.routed
    expected = fit_precision_threshold(made.confidence[remains], (made.queue == both.target.numpy())[remains], 0.9)
    assert policy.threshold == expected.threshold is not None
    assert 0 < made.foreign.sum()
    assert (made.margin < 0.05).any()
    routed = applied(policy, both, temperature=temperature).routed
    assert routed.sum() == policy.points[0].num_decided
    assert (made.queue == both.target.numpy())[routed].mean() == pytest.approx(policy.points[0].precision)
    assert routed[500:].any()  # so that they matter
    # Those of other splits choose the score, but do not come in with the calibration split's tickets.
    fewer = fit_routing(
        inside, SCHEMA, temperature, foreign=outside, target_precision=0.9, min_margin=0.05,
        counted=[place < 5 for place in range(100)],
    )  # fmt: skip
    assert fewer.out_of_scope_threshold == policy.out_of_scope_threshold
    assert fewer.threshold < policy.threshold


def test_the_promise_holds_on_new_tickets():
    new, odd = tickets(20_000, 100), strangers(4_000, 101)
    reached = []
    for seed in range(20):
        policy = fit_routing(tickets(500, seed), SCHEMA, 1.0, foreign=strangers(100, seed + 50), target_precision=0.9)
        made, foreign = applied(policy, new), applied(policy, odd)
        right = (made.queue == new.target.numpy()) & made.routed
        reached.append(right.sum() / (made.routed.sum() + foreign.routed.sum()))
    assert np.mean(np.array(reached) >= 0.9) >= 0.75
    assert np.mean(reached) < 0.95  # not by routing next to nothing


def test_without_foreign_tickets_it_says_so():
    policy = fit_routing(tickets(300, 0), SCHEMA, 1.0, examples=training_examples(), target_precision=0.9)
    assert policy.out_of_scope_score == "max_logit"
    assert policy.out_of_scope_auroc == {"max_logit": None, "energy": None, "knn": None}
    assert "there are no out-of-scope tickets, so nobody knows how many it finds" in policy.rule
    assert applied(policy, tickets(300, 0)).foreign.sum() == 15
    assert fit_routing(tickets(300, 0), SCHEMA, 1.0, score="energy").out_of_scope_score == "energy"


def test_foreign_tickets_that_look_known_are_not_guessed_at():
    inside, outside = tickets(200, 0), tickets(100, 1)
    surer = replace(outside, target=None, logits=outside.logits * 1.5)
    policy = fit_routing(inside, SCHEMA, 1.0, foreign=surer)
    assert policy.out_of_scope_threshold is None
    assert "no out-of-scope score tells anything: `max_logit` 0." in policy.rule
    assert not applied(policy, inside).foreign.any()


def test_an_unreachable_target_routes_nothing_and_says_what_to_do():
    policy = fit_routing(tickets(30, 0), SCHEMA, 1.0, target_precision=0.97)
    assert policy.threshold is None
    assert policy.rule.startswith("no threshold proves 0.97: at best ")
    assert "At least 53 are needed, all right" in policy.rule
    assert policy.at(0.9).threshold is not None
    nothing = fit_routing(tickets(300, 0), SCHEMA, 1.0, min_margin=0.9999999)
    assert nothing.threshold is None
    assert nothing.rule.startswith("no threshold: every calibration ticket is out of scope or too close")


def test_thresholds_for_other_precisions_and_for_tickets_in_scope_alone():
    inside = tickets(800, 0)
    policy = fit_routing(inside, SCHEMA, 1.3, foreign=strangers(100, 1), target_precision=0.92)
    assert [point.min_precision for point in policy.points] == [0.92, 0.9, 0.95, 0.99]
    sure = probabilities(inside.logits.numpy(), "multiclass", 1.3).max(axis=1)
    right = inside.logits.argmax(dim=1).eq(inside.target).numpy()
    for key, cut in policy.in_scope_thresholds.items():
        assert cut == fit_precision_threshold(sure, right, float(key)).threshold
    assert list(policy.in_scope_thresholds) == ["0.92", "0.9", "0.95", "0.99"]


def test_groups_that_resemble_themselves_prove_less():
    inside = tickets(300, 0)
    alone = fit_routing(inside, SCHEMA, 1.0, target_precision=0.9)
    few = fit_routing(inside, SCHEMA, 1.0, target_precision=0.9, groups=[place % 12 for place in range(300)])
    assert alone.threshold is not None
    assert few.threshold is None or few.threshold > alone.threshold


def test_costs_are_checked_and_decide():
    costs = {"ask": 1, "*": {"*": 4}}
    policy = fit_routing(tickets(300, 0), SCHEMA, 1.0, costs=costs)
    assert policy.costs == {"ask": 1.0, "*": {"*": 4.0}}
    assert policy.rule.startswith("the costs decide, not the threshold; ")
    with pytest.raises(ValueError, match="names the queue `bill`"):
        fit_routing(tickets(300, 0), SCHEMA, 1.0, costs={"ask": 1, "bill": {}, "*": {"*": 1}})


def test_records_without_label_are_left_out():
    inside = tickets(300, 0)
    target = inside.target.clone()
    target[250:] = -1
    policy = fit_routing(replace(inside, target=target), SCHEMA, 1.0, target_precision=0.9)
    assert policy == fit_routing(inside.only(range(250)), SCHEMA, 1.0, target_precision=0.9)
    assert policy.n == 250


def test_what_cannot_be_fitted_is_said():
    inside = tickets(40, 0)
    with pytest.raises(TransferError, match="this task is multilabel"):
        fit_routing(inside, Schema(task="multilabel", classes=SCHEMA.classes), 1.0)
    with pytest.raises(TransferError, match="None of the 40 calibration records has a label"):
        fit_routing(replace(inside, target=torch.full((40,), -1)), SCHEMA, 1.0)
    with pytest.raises(TransferError, match="`knn` needs training examples"):
        fit_routing(inside, SCHEMA, 1.0, score="knn")
    with pytest.raises(ValueError, match="for each of 40 records, got 2"):
        fit_routing(inside, SCHEMA, 1.0, groups=["a", "b"])
    broken = strangers(5, 0)
    with pytest.raises(TransferError, match="Some logits of 5 records are not finite"):
        fit_routing(inside, SCHEMA, 1.0, foreign=replace(broken, logits=broken.logits / 0))


def test_the_policy_is_plain():
    policy = fit_routing(tickets(300, 0), SCHEMA, 1.0, foreign=strangers(30, 1), examples=training_examples())
    assert RoutingPolicy.from_dict(policy.to_dict()) == policy
