from __future__ import annotations

from dataclasses import replace

from lightning_transfer.evaluation import fit_routing, format_decisions, format_policy, format_routing, measure_routing
from tests.unit.evaluation.routing_toys import SCHEMA, records_of, strangers, tickets

POLICY = fit_routing(tickets(400, 0), SCHEMA, 1.0, foreign=strangers(60, 1), target_precision=0.9)


def measured(policy, outside):
    inside = tickets(200, 5)
    return measure_routing(
        inside, records_of(inside), SCHEMA, 1.0, policy, foreign=outside,
        foreign_records=() if outside is None else records_of(outside), n_resamples=50,
    )  # fmt: skip


def test_a_policy_says_its_threshold_and_what_it_rests_on():
    text = format_policy(POLICY)
    assert text.startswith(f"Routing: from a confidence of {POLICY.threshold:.4g} on, for a precision of 0.9 (lowest")
    assert POLICY.rule in text
    assert format_policy(replace(POLICY, costs={"ask": 1.0})).startswith("Routing: by misroute costs (")
    nothing = format_policy(replace(POLICY, threshold=None))
    assert nothing.startswith(
        "Routing: nothing is routed, every ticket is asked about; the target is a precision of 0.9"
    )


def test_unreadable_tickets_are_counted_and_none_at_all_divide_nothing():
    text = format_decisions({"route": 1, "ask": 1, "out of scope": 0, "unreadable": 2})
    assert text == "Routing of 4 tickets: 1 routed (0.250), 1 asked about, 2 unreadable"
    assert format_decisions({"route": 0, "ask": 0}) == "Routing of 0 tickets: 0 routed, 0 asked about"


def test_a_result_says_shares_and_precision():
    result = measured(POLICY, strangers(40, 6))
    text = format_routing(result)
    found = result.metrics
    assert f"{result.decisions['route']} routed" in text
    assert f"routed automatically: {found['routing_coverage']}" in text
    assert f"with a precision of {found['routing_precision']} (target 0.9)" in text
    assert f"of 40 out of scope: {found['out_of_scope_recall']} not routed" in text
    assert f"of 200 in scope: {found['in_scope_lost']} called out of scope" in text


def test_costs_and_missing_strangers():
    result = measured(replace(POLICY, costs={"ask": 1.5, "*": {"*": 3.0}}), None)
    text = format_routing(result)
    assert f"mean cost of a ticket in scope: {result.metrics['routing_mean_cost']}, asking costs 1.5" in text
    assert "target" not in text
    assert "not routed" not in text
