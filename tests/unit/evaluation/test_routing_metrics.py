"""Oracles: counting the decisions one by one, scikit-learn's curves, a bootstrap of whole groups by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import decide, fit_routing, measure_routing
from lightning_transfer.evaluation.routing_decide import out_of_scope_scores
from lightning_transfer.metrics import probabilities
from tests.unit.evaluation.routing_toys import SCHEMA, records_of, strangers, tickets, training_examples

EXAMPLES = training_examples()
INSIDE, OUTSIDE = tickets(300, 10), strangers(60, 11)
POLICY = fit_routing(
    tickets(500, 0), SCHEMA, 1.2, foreign=strangers(100, 1), examples=EXAMPLES, target_precision=0.9, min_margin=0.02
)


def measured(policy=POLICY, inside=INSIDE, outside=OUTSIDE, group=None, n_resamples=200, examples=EXAMPLES):
    return measure_routing(
        inside, records_of(inside, group), SCHEMA, 1.2, policy, foreign=outside,
        foreign_records=() if outside is None else records_of(outside, group, "o"),
        examples=examples, n_resamples=n_resamples,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result():
    return measured()


@pytest.fixture(scope="module")
def decided():
    parts = []
    for outputs, prefix in ((INSIDE, "t"), (OUTSIDE, "o")):
        records = records_of(outputs, prefix=prefix)
        ids = [record.id for record in records]
        rows = decide(outputs.logits, outputs.features, ids, SCHEMA, 1.2, POLICY, EXAMPLES)
        parts.append(list(zip(rows, [record.label for record in records], strict=True)))
    return parts


def share(flags):
    return pytest.approx(np.mean(list(flags)))


def test_the_numbers_count_the_decisions(result, decided):
    found = {name: item.value for name, item in result.metrics.items()}
    inside, outside = decided
    rows = inside + outside
    assert (result.n, result.n_out_of_scope) == (300, 60)
    assert found["routing_coverage"] == share(row.decision == "route" for row, _ in rows)
    assert found["routing_precision"] == share(row.queue == label for row, label in rows if row.queue)
    assert found["routing_coverage_in_scope"] == share(row.decision == "route" for row, _ in inside)
    assert found["routing_precision_in_scope"] == share(row.queue == label for row, label in inside if row.queue)
    assert found["in_scope_lost"] == share(row.decision == "out of scope" for row, _ in inside)
    assert found["in_scope_accuracy"] == share(
        row.decision != "out of scope" and row.queues[0][0] == label for row, label in inside
    )
    assert found["out_of_scope_recall"] == share(row.decision != "route" for row, _ in outside)
    assert found["out_of_scope_called"] == share(row.decision == "out of scope" for row, _ in outside)
    for name in ("route", "ask", "out of scope"):
        assert result.decisions[name] == sum(row.decision == name for row, _ in rows) > 0
    assert sum(result.reasons.values()) == 360
    assert result.reasons["unlike all known tickets"] == result.decisions["out of scope"]
    # So that the tests of this file mean something.
    assert found["routing_precision"] < found["routing_precision_in_scope"]


def test_every_score_has_its_curve(result):
    truth = np.arange(360) >= 300
    for name in ("max_logit", "energy", "knn"):
        scores = np.concatenate(
            [
                out_of_scope_scores([name], part.logits.numpy(), part.features.numpy(), EXAMPLES)[name]
                for part in (INSIDE, OUTSIDE)
            ]
        )
        area = result.metrics[f"out_of_scope_auroc_{name}"]
        assert area.value == pytest.approx(roc_auc_score(truth, scores))
        assert area.low <= area.value <= area.high
        passed, accepted, _ = roc_curve(~truth, -scores, drop_intermediate=False)
        assert result.metrics[f"out_of_scope_fpr95_{name}"].value == pytest.approx(passed[accepted >= 0.95].min())


def test_risk_and_coverage_are_of_tickets_in_scope_alone(result):
    probs = probabilities(INSIDE.logits.numpy(), "multiclass", 1.2)
    sure, right = probs.max(axis=1), probs.argmax(axis=1) == INSIDE.target.numpy()
    order = np.argsort(-sure)
    risks = np.cumsum(~right[order]) / np.arange(1, 301)
    assert result.metrics["routing_aurc"].value == pytest.approx(risks.mean())
    assert len(result.risk_coverage) == 200
    assert result.risk_coverage[0]["coverage"] == pytest.approx(1 / 300)
    assert result.risk_coverage[-1]["coverage"] == 1.0
    for point in result.risk_coverage[::20]:
        taken = sure >= point["threshold"]
        assert (point["coverage"], point["risk"]) == pytest.approx((taken.mean(), (~right[taken]).mean()))
    for key, cut in POLICY.in_scope_thresholds.items():
        if cut is None:
            assert result.coverage_at_precision[key] is result.precision_reached[key] is None
        else:
            assert result.coverage_at_precision[key] == pytest.approx((sure >= cut).mean())
            assert result.precision_reached[key] == pytest.approx(right[sure >= cut].mean())
    assert any(cut is not None for cut in POLICY.in_scope_thresholds.values())


def test_intervals_draw_whole_groups():
    # Copies of one ticket say no more than the ticket, if they are one group.
    times = torch.arange(300).repeat_interleave(4)
    copied = replace(
        INSIDE, logits=INSIDE.logits[times], features=INSIDE.features[times], target=INSIDE.target[times],
        index=torch.arange(1200),
    )  # fmt: skip
    single = measured(outside=None, n_resamples=1000).metrics
    alone = measured(inside=copied, outside=None, n_resamples=1000).metrics
    grouped = measured(inside=copied, outside=None, group=4, n_resamples=1000).metrics
    for name in ("routing_coverage", "routing_precision", "routing_aurc"):
        width = {key: item[name].high - item[name].low for key, item in (("s", single), ("a", alone), ("g", grouped))}
        assert width["g"] == pytest.approx(width["s"], rel=0.15)
        assert width["a"] == pytest.approx(width["s"] / 2, rel=0.15)
    assert grouped["routing_coverage"].num_groups == 300


def test_a_share_of_none_keeps_an_open_end():
    policy = replace(POLICY, threshold=1.0)
    found = measured(policy)
    assert found.metrics["routing_coverage"].value == 0.0
    assert found.metrics["routing_coverage"].high > 0.0
    assert found.metrics["routing_precision"].value is None
    assert found.metrics["routing_precision"].reason == "no ticket is routed"
    assert found.metrics["out_of_scope_recall"].value == 1.0
    assert found.metrics["out_of_scope_recall"].low < 1.0


def test_costs_are_the_mean_of_what_each_ticket_costs():
    costs = {"ask": 0.5, "*": {"*": 2.0}, "billing": {"*": 7.0}}
    policy = replace(POLICY, costs=costs)
    result = measured(policy)
    ids = [str(place) for place in range(300)]
    rows = decide(INSIDE.logits, INSIDE.features, ids, SCHEMA, 1.2, policy, EXAMPLES)
    paid = []
    for row, place in zip(rows, INSIDE.target.tolist(), strict=True):
        truth = SCHEMA.classes[place]
        wrong = 7.0 if truth == "billing" else 2.0
        paid.append(0.5 if row.queue is None else 0.0 if row.queue == truth else wrong)
    assert len(set(paid)) == 3
    assert result.metrics["routing_mean_cost"].value == pytest.approx(np.mean(paid))
    assert result.to_dict()["mean_cost"]["n"] == 300


def test_without_foreign_tickets_nothing_is_said_of_them():
    result = measured(outside=None)
    assert result.to_dict()["out_of_scope"] is None
    assert not any(name.startswith("out_of_scope") for name in result.metrics)
    assert result.metrics["routing_coverage"].value == result.metrics["routing_coverage_in_scope"].value
    assert result.to_dict()["mean_cost"] is None


def test_the_agreed_keys_in_plain_values(result):
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert {"policy", "n", "n_out_of_scope", "coverage_at_target", "precision_of_routed", "aurc", "risk_coverage",
            "coverage_at_precision", "out_of_scope", "decisions", "mean_cost", "reasons"} <= set(values)  # fmt: skip
    assert set(values["out_of_scope"]) >= {"scores", "recall", "in_scope_accuracy", "in_scope_lost"}
    assert [name for name, row in values["out_of_scope"]["scores"].items() if row["chosen"]] == ["knn"]
    assert values["coverage_at_target"]["value"] == result.metrics["routing_coverage"].value
    assert values["policy"] == json.loads(json.dumps(POLICY.to_dict()))


def test_part_of_a_split_and_unlabelled_tickets():
    target = INSIDE.target.clone()
    target[:50] = -1
    part = replace(INSIDE, target=target).only(range(200))
    result = measure_routing(part, records_of(INSIDE), SCHEMA, 1.2, POLICY, examples=EXAMPLES, n_resamples=20)
    assert result.n == 150
    with pytest.raises(TransferError, match="None of the 50 tickets has a label"):
        measured(inside=part.only(range(50)))
