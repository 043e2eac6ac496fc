"""The routing policy, and what it did, as plain text for the terminal."""

from __future__ import annotations

from lightning_transfer.evaluation.routing_metrics import RoutingResult
from lightning_transfer.evaluation.routing_policy import RoutingPolicy

__all__ = ["format_decisions", "format_policy", "format_routing"]


def format_policy(policy: RoutingPolicy) -> str:
    """Return what was fitted, for a fit and a prediction.

    Example:
        >>> print(format_policy(RoutingPolicy(0.95, 0.81, rule="fitted on 60 tickets")))
        Routing: from a confidence of 0.81 on, for a precision of 0.95 (fitted on 60 tickets)
    """
    if policy.costs:
        head = "Routing: by misroute costs"
    elif policy.threshold is None:
        head = "Routing: nothing is routed, every ticket is asked about; the target is a precision of "
        head += f"{policy.target_precision:g}"
    else:
        head = (
            f"Routing: from a confidence of {policy.threshold:.4g} on, for a precision of {policy.target_precision:g}"
        )
    return f"{head} ({policy.rule})"


def format_decisions(decisions: dict[str, int]) -> str:
    """Return how many tickets got which decision.

    Example:
        >>> format_decisions({"route": 6, "ask": 3, "out of scope": 1, "unreadable": 0})
        'Routing of 10 tickets: 6 routed (0.600), 3 asked about, 1 out of scope'
    """
    total = sum(decisions.values())
    words = {"route": "routed", "ask": "asked about", "out of scope": "out of scope", "unreadable": "unreadable"}
    parts = [f"{count} {words[name]}" for name, count in decisions.items() if count or name in ("route", "ask")]
    if total:
        parts[0] += f" ({decisions['route'] / total:.3f})"
    return f"Routing of {total} tickets: {', '.join(parts)}"


def format_routing(result: RoutingResult) -> str:
    """Return what the policy did to a labelled split."""
    found, policy = result.metrics, result.policy
    target = "" if policy.costs else f" (target {policy.target_precision:g})"
    lines = [
        format_decisions(dict(result.decisions)),
        f"  routed automatically: {found['routing_coverage']}, with a precision of "
        f"{found['routing_precision']}{target}",
    ]
    if result.n_out_of_scope:
        name = policy.out_of_scope_score
        lines += [
            f"  in scope alone: {found['routing_coverage_in_scope']} routed, with a precision of "
            f"{found['routing_precision_in_scope']}",
            f"  of {result.n_out_of_scope} out of scope: {found['out_of_scope_recall']} not routed; AUROC of `{name}` "
            f"{found[f'out_of_scope_auroc_{name}']}",
        ]
    lines.append(f"  of {result.n} in scope: {found['in_scope_lost']} called out of scope")
    if "routing_mean_cost" in found:
        cost = found["routing_mean_cost"]
        lines.append(f"  mean cost of a ticket in scope: {cost}, asking costs {policy.costs['ask']:g}")
    return "\n".join(lines)
