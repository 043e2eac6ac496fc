from __future__ import annotations

import pytest

from lightning_transfer.metrics.routing_costs import check_costs, cost_matrix

QUEUES = ("billing", "cancellation", "delivery")
ALL = {"*": {"*": 5}}


def test_the_most_specific_cost_holds():
    costs = {"ask": 1, "*": {"*": 5, "delivery": 3}, "cancellation": {"*": 20, "billing": 8, "cancellation": 0.5}}
    matrix, ask = cost_matrix(check_costs(costs, QUEUES), QUEUES)
    assert ask == 1.0
    assert matrix.tolist() == [[0, 5, 3], [8, 0.5, 20], [5, 5, 0]]


def test_a_full_table_needs_no_star():
    costs = {"ask": 0, **{truth: {queue: 2 for queue in QUEUES if queue != truth} for truth in QUEUES}}
    matrix, _ = cost_matrix(check_costs(costs, QUEUES), QUEUES)
    assert matrix.tolist() == [[0, 2, 2], [2, 0, 2], [2, 2, 0]]


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (ALL, r"no `ask`, the cost of asking a person. Found: \*"),
        ({}, "Found: nothing"),
        ({"ask": -1, **ALL}, "`ask` in `misroute_costs`, got -1"),
        ({"ask": True, **ALL}, "got True"),
        ({"ask": 1, "*": {"*": "five"}}, "below `[*]` in `misroute_costs`, got 'five'"),
        ({"ask": 1, "*": {"*": float("nan")}}, "got nan"),
        ({"ask": 1, "billin": {"*": 2}, **ALL}, "names the queue `billin`.* Did you mean `billing`"),
        ({"ask": 1, "*": {"*": 5, "refunds": 2}}, "names the queue `refunds`.*Queues: billing, cancellation, delivery"),
        ({"ask": 1, "billing": 3, **ALL}, "below `billing` of `misroute_costs`, got 3"),
        ({"ask": 1, "billing": {"*": 2}}, r"ticket of `cancellation` costs in `billing` \(4 such pairs"),
    ],
)
def test_wrong_costs_are_named(costs, message):
    with pytest.raises(ValueError, match=message):
        check_costs(costs, QUEUES)


def test_a_queue_may_not_be_called_like_a_key():
    with pytest.raises(ValueError, match="The queue `ask` has the name of a key"):
        check_costs({"ask": 1, **ALL}, ("ask", "billing"))
