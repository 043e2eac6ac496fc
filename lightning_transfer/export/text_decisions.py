"""From logits of a text to a line of predictions: no torch, and no code of the checkpoint's, which it is checked by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.export.predict_onnx import judge

__all__ = ["KNN", "Examples", "decided", "unreadable"]

Array = NDArray[Any]

KNN = "knn"
"""The out-of-scope score that needs features of training texts."""


class Examples:
    """Features of training texts, to find the nearest one.

    Args:
        features: ``(N, F)``.
        ids: Of the texts.
        labels: Their queues.

    Example:
        >>> examples = Examples(np.eye(2), ["a", "b"], ["billing", "delivery"])
        >>> examples.nearest(np.array([3.0, 4.0]))
        {'id': 'b', 'queue': 'delivery', 'distance': 0.2}
        >>> round(examples.distance(np.array([3.0, 4.0])), 6)
        0.2
    """

    def __init__(self, features: Array, ids: list[str], labels: list[str]) -> None:
        wide = np.asarray(features, dtype=np.float64)
        self.directions = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        self.ids = ids
        self.labels = labels

    def nearest(self, features: Array) -> dict[str, Any] | None:
        """Return the text of the highest cosine; None for features without a direction."""
        found = self._distances(features)
        if found is None:
            return None
        place = int(found.argmin())
        return {"id": self.ids[place], "queue": self.labels[place], "distance": round(float(found[place]), 4)}

    def distance(self, features: Array) -> float:
        """Return one minus the cosine to the nearest text, in ``[0, 2]``; NaN for features without a direction."""
        found = self._distances(features)
        return float("nan") if found is None else float(found.min())

    def _distances(self, features: Array) -> Array | None:
        wide = np.asarray(features, dtype=np.float64)
        length = np.linalg.norm(wide)
        if not np.isfinite(length) or length == 0:
            return None
        distances: Array = np.clip(1.0 - self.directions @ (wide / length), 0.0, 2.0)
        return distances


def decided(
    name: str, logits: Array, features: Array, facts: Mapping[str, Any], examples: Examples | None, top: int
) -> dict[str, Any]:
    """Return the line of one text: its most probable queues, what to do with it, and why.

    Args:
        name: Id of the text.
        logits: ``(L,)``, before temperature.
        features: ``(F,)``.
        facts: Of the exported model; ``routing`` may be None, then every text goes to its most probable queue.
        examples: For the nearest training text, and the score ``knn``.
        top: Queues to name.

    Example:
        >>> facts = {"task": "multiclass", "classes": ["billing", "technical"], "negative_class": None,
        ...          "threshold": None, "temperature": 1.0, "routing": None}
        >>> line = decided("T-1", np.array([0.0, 1.0]), np.ones(2), facts, None, top=1)
        >>> line["queues"], line["decision"], line["queue"]
        ([{'queue': 'technical', 'probability': 0.731059}], 'route', 'technical')
    """
    shares, _, decision = judge(logits, facts)
    nearest = None if examples is None else examples.nearest(features)
    if shares[0] is None:
        return _line(name, decision="ask", reason="the logits are not finite", nearest=nearest)
    values = np.asarray(shares)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    line = _line(
        name,
        queues=[
            {"queue": facts["classes"][place], "probability": round(float(values[place]), 6)} for place in order[:top]
        ],
        confidence=float(ranked[0]),
        margin=float(ranked[0] - ranked[1]) if len(ranked) > 1 else float(ranked[0]),
        nearest=nearest,
    )
    policy = facts.get("routing")
    if policy is None or facts["task"] == "multilabel":
        line["decision"], line["queue"] = "route", decision or None
        line["reason"] = "the model has no routing policy: every text goes to its most probable queue"
        return line
    score = _out_of_scope(policy, logits, features, examples)
    line["out_of_scope_score"] = score if score is not None and np.isfinite(score) else None
    return {**line, **_routed(values, facts["classes"], policy, score)}


def unreadable(name: str, reason: str) -> dict[str, Any]:
    """Return the line of a text that could not be read.

    Example:
        >>> unreadable("T-2", "it is empty")["decision"]
        'unreadable'
    """
    return _line(name, decision="unreadable", reason=reason)


def _line(name: str, **known: Any) -> dict[str, Any]:  # noqa: ANN401 - cells of a line
    empty: dict[str, Any] = {
        "id": name,
        "queues": [],
        "decision": "",
        "queue": None,
        "confidence": None,
        "margin": None,
        "out_of_scope_score": None,
        "nearest": None,
        "label": None,
        "reason": "",
    }
    return {**empty, **known}


def _out_of_scope(policy: Mapping[str, Any], logits: Array, features: Array, examples: Examples | None) -> float | None:
    """Return the score of the policy's kind; None where it cannot be computed here."""
    values = logits.astype(np.float64)
    kind = policy["out_of_scope_score"]
    if kind == "max_logit":
        return float(-values.max())
    if kind == "energy":
        return float(-np.logaddexp.reduce(values))
    if kind == KNN and examples is not None:
        return examples.distance(features)
    return None


def _routed(shares: Array, classes: list[str], policy: Mapping[str, Any], score: float | None) -> dict[str, Any]:
    """Return decision, queue, confidence and reason by the policy."""
    kind, limit, cut = policy["out_of_scope_score"], policy["out_of_scope_threshold"], policy["threshold"]
    order = np.argsort(-shares, kind="stable")
    place, costs = int(order[0]), np.zeros(0)
    ask = 0.0
    if policy.get("costs"):
        ask = float(policy["costs"]["ask"])
        costs = shares @ np.array([[_cost(policy["costs"], truth, queue) for queue in classes] for truth in classes])
        place = int(costs.argmin())
    confidence = float(shares[place])

    def made(decision: str, reason: str) -> dict[str, Any]:
        queue = classes[place] if decision == "route" else None
        return {"decision": decision, "queue": queue, "confidence": confidence, "reason": reason}

    if limit is not None:
        if score is None:
            return made("ask", f"the score `{kind}` needs features of training texts: only the checkpoint has them")
        if not np.isfinite(score):
            return made("ask", "the features have no direction")
        if score > limit:
            high, low = _apart(score, limit)
            return made("out of scope", f"unlike all known tickets: {kind} {high} is above {low}")
    if len(costs):
        best, other = _apart(float(costs[place]), ask)
        if costs[place] > ask:
            return made("ask", f"asking costs {other}, `{classes[place]}` {best} on average")
        sure = f"costs {best} on average, asking {other}"
    elif cut is None:
        target = f"{policy['target_precision']:g}"
        return made("ask", f"no threshold proves a precision of {target}, so every ticket is asked about")
    else:
        share, least = _apart(confidence, cut)
        if confidence < cut:
            return made("ask", f"{share} is below {least}")
        sure = f"{share} is at least {least}"
    if len(order) > 1:
        first, second = (float(shares[one]) for one in order[:2])
        if first - second < policy["min_margin"]:
            return made("ask", f"{first:.2f} against {second:.2f} for `{classes[int(order[1])]}`: too close")
    return made("route", sure)


def _cost(costs: Mapping[str, Any], truth: str, queue: str) -> float:
    """Return what a text of ``truth`` costs in ``queue``: ``*`` is what is not named, and the right queue is free."""
    own, others = costs.get(truth, {}), costs.get("*", {})
    if queue in own:
        return float(own[queue])
    if queue == truth:
        return 0.0
    return float(own.get("*", others.get(queue, others.get("*"))))


def _apart(first: float, second: float) -> tuple[str, str]:
    """Write two numbers with two decimals, or with as many as tell them apart."""
    digits = 2
    while digits < 9 and first != second and f"{first:.{digits}f}" == f"{second:.{digits}f}":
        digits += 1
    return f"{first:.{digits}f}", f"{second:.{digits}f}"
