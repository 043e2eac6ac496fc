"""What a ticket in the wrong queue costs, and what asking costs: checked, and as a matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.errors import closest, listing

__all__ = ["ANY", "ASK", "check_costs", "cost_matrix"]

ASK = "ask"
"""Key of the cost of asking a person."""
ANY = "*"
"""Stands for every queue that is not named."""


def check_costs(costs: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return the costs as plain values, after looking for everything that could be wrong with them.

    Args:
        costs: True queue -> queue it is routed to -> cost, and ``ask`` -> cost of asking. ``*`` stands for the queues
            that are not named, in either place; the right queue costs nothing unless it is named.
        classes: The queues.

    Raises:
        ValueError: If ``ask`` or a pair of queues has no cost, a queue is unknown, or a cost is no number from 0.

    Example:
        >>> costs = {"ask": 1, "*": {"*": 5}, "cancellation": {"*": 20, "billing": 8}}
        >>> check_costs(costs, ("billing", "cancellation", "delivery"))["cancellation"]
        {'*': 20.0, 'billing': 8.0}
    """
    reserved = [name for name in classes if name in (ASK, ANY)]
    if reserved:
        raise ValueError(f"The queue `{reserved[0]}` has the name of a key of `misroute_costs`. Rename the queue.")
    if ASK not in costs:
        raise ValueError(
            f"`misroute_costs` has no `{ASK}`, the cost of asking a person. Found: {listing(costs) or 'nothing'}. "
            f"Write for example `{{{ASK}: 1, '{ANY}': {{'{ANY}': 5}}}}`."
        )
    plain: dict[str, Any] = {ASK: _cost(costs[ASK], f"`{ASK}`")}
    for truth, row in costs.items():
        if truth == ASK:
            continue
        _check_name(str(truth), classes)
        if not isinstance(row, Mapping):
            raise ValueError(f"Expected the costs of queues below `{truth}` of `misroute_costs`, got {row!r}.")
        for routed in row:
            _check_name(str(routed), classes)
        plain[str(truth)] = {str(routed): _cost(value, f"`{routed}` below `{truth}`") for routed, value in row.items()}
    missing = [
        (truth, routed)
        for truth in classes
        for routed in classes
        if truth != routed and _find(plain, truth, routed) is None
    ]
    if missing:
        truth, routed = missing[0]
        raise ValueError(
            f"`misroute_costs` does not say what a ticket of `{truth}` costs in `{routed}` ({len(missing)} such pairs "
            f"are missing). Add it, or `'{ANY}': {{'{ANY}': 5}}` for all that are not named."
        )
    return plain


def cost_matrix(costs: Mapping[str, Any], classes: Sequence[str]) -> tuple[NDArray[np.float64], float]:
    """Return the costs ``(true queue, routed queue)`` of `check_costs` as a matrix ``(C, C)``, and that of asking.

    Example:
        >>> matrix, ask = cost_matrix({"ask": 1.0, "*": {"*": 5.0}, "a": {"b": 9.0}}, ("a", "b"))
        >>> matrix.tolist(), ask
        ([[0.0, 9.0], [5.0, 0.0]], 1.0)
    """
    rows = [[_find(costs, truth, routed) or 0.0 for routed in classes] for truth in classes]
    return np.array(rows, dtype=np.float64), float(costs[ASK])


def _find(costs: Mapping[str, Any], truth: str, routed: str) -> float | None:
    """Return the most specific cost; the true queue's own row comes before the column of all others."""
    own, others = costs.get(truth, {}), costs.get(ANY, {})
    if routed in own:
        return float(own[routed])
    if truth == routed:
        return 0.0
    for row, key in ((own, ANY), (others, routed), (others, ANY)):
        if key in row:
            return float(row[key])
    return None


def _check_name(name: str, classes: Sequence[str]) -> None:
    if name != ANY and name not in classes:
        raise ValueError(
            f"`misroute_costs` names the queue `{name}`, which is not in the data.{closest(name, classes)} Queues: "
            f"{listing(classes, 20)}."
        )


def _cost(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"Expected a cost of at least 0 for {where} in `misroute_costs`, got {value!r}.")
    return float(value)
