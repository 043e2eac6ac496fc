"""From logits and features to decisions: route, ask, or out of scope, each with its reason in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lightning_transfer.evaluation.neighbours import TrainingExamples
from lightning_transfer.evaluation.routing_policy import RoutingPolicy
from lightning_transfer.metrics import energy_score, knn_score, max_logit_score, probabilities
from lightning_transfer.metrics.routing_costs import cost_matrix
from lightning_transfer.types import Neighbour, Schema

__all__ = ["ASKED", "NEIGHBOURS", "OUT_OF_SCOPE", "ROUTED", "UNREADABLE", "Choices", "RoutingDecision", "choose"]
__all__ += ["decide", "out_of_scope_scores"]

ROUTED, ASKED, OUT_OF_SCOPE, UNREADABLE = "route", "ask", "out of scope", "unreadable"

NEIGHBOURS = 1
"""Which nearest training example ``knn`` measures to.

With 57 of the 77 intents of banking77 known, and MiniLM's frozen features, the AUROC was 0.897 for the nearest of some
59 examples a queue, 0.858 for the 5th and 0.813 for the 10th; with 10 examples a queue 0.845, 0.744 and 0.671. Each
kind of request has few near examples in a queue. Sun et al. took the 50th and later ones, of thousands a class.
"""

# Why, in the order of precedence from behind: each overrules those before it.
_SURE, _CLOSE, _BELOW, _UNREACHABLE, _CHEAPER, _FOREIGN, _UNDEFINED = range(7)
_DECISIONS = (ROUTED, ASKED, ASKED, ASKED, ASKED, OUT_OF_SCOPE, ASKED)
_CAUSES = (
    "sure enough",
    "too close",
    "below the threshold",
    "target out of reach",
    "asking costs less",
    "unlike all known tickets",
    "undefined",
)


class Choices(NamedTuple):
    """What a policy does with each ticket, as arrays ``(N,)``.

    Attributes:
        queue: Index of the queue that the ticket would be routed to.
        confidence: Probability of that queue after temperature.
        margin: Difference of the two largest probabilities.
        score: Out-of-scope score.
        cause: Number of the reason.
        probabilities: After temperature, ``(N, C)``.
        expected: Expected cost of each queue, ``(N, C)``; ``(N, 0)`` without costs.
    """

    queue: NDArray[np.int64]
    confidence: NDArray[np.float64]
    margin: NDArray[np.float64]
    score: NDArray[np.float64]
    cause: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    expected: NDArray[np.float64]

    @property
    def routed(self) -> NDArray[np.bool_]:
        """Which tickets are routed, ``(N,)``."""
        return np.asarray(self.cause == _SURE)

    @property
    def foreign(self) -> NDArray[np.bool_]:
        """Which tickets are called out of scope, ``(N,)``."""
        return np.asarray(self.cause == _FOREIGN)

    def causes(self) -> list[str]:
        """Return the reason of each ticket in short, one of a few."""
        return [_CAUSES[code] for code in self.cause.tolist()]

    def decisions(self) -> list[str]:
        """Return the decision of each ticket."""
        return [_DECISIONS[code] for code in self.cause.tolist()]


@dataclass(frozen=True)
class RoutingDecision:
    """What is done with one ticket, and why.

    Attributes:
        id: The record's.
        decision: ``route``, ``ask``, ``out of scope`` or ``unreadable``.
        queue: Where it goes; None unless it is routed.
        queues: The most probable queues with their probabilities, falling.
        confidence: Probability of the queue that it would go to; None if undefined.
        margin: Difference of the two largest probabilities; None if undefined.
        out_of_scope_score: The higher, the more foreign; None if undefined.
        nearest: The nearest training example; None where the model keeps none.
        reason: In plain words.
    """

    id: str
    decision: str
    queue: str | None
    queues: tuple[tuple[str, float], ...]
    confidence: float | None
    margin: float | None
    out_of_scope_score: float | None
    nearest: Neighbour | None
    reason: str

    def to_dict(self, label: str | None = None) -> dict[str, Any]:
        """Return plain values, as a line of ``predictions.jsonl`` holds them; ``label`` is the true queue if known."""
        near = self.nearest
        return {
            "id": self.id,
            "queues": [{"queue": name, "probability": round(share, 6)} for name, share in self.queues],
            "decision": self.decision,
            "queue": self.queue,
            "confidence": self.confidence,
            "margin": self.margin,
            "out_of_scope_score": self.out_of_scope_score,
            "nearest": None if near is None else {"id": near.path, "queue": near.label, "distance": near.distance},
            "label": label,
            "reason": self.reason,
        }


def out_of_scope_scores(
    names: Sequence[str], logits: ArrayLike, features: ArrayLike, examples: TrainingExamples | None
) -> dict[str, NDArray[np.float64]]:
    """Return the named scores ``(N,)``; ``knn`` is left out where the model keeps no training examples.

    Args:
        names: Of `SCORES`.
        logits: ``(N, C)``, before temperature: it would weigh them all alike, but it is fitted on tickets in scope.
        features: ``(N, F)``.
        examples: Features of training records.
    """
    found: dict[str, NDArray[np.float64]] = {}
    if "max_logit" in names:
        found["max_logit"] = max_logit_score(logits)
    if "energy" in names:
        found["energy"] = energy_score(logits)
    if "knn" in names and examples is not None and len(examples):
        found["knn"] = knn_score(features, examples.features.float().numpy(), NEIGHBOURS)
    return found


def choose(
    logits: ArrayLike, score: ArrayLike, classes: Sequence[str], temperature: float, policy: RoutingPolicy
) -> Choices:
    """Apply a policy to arrays; rows without finite logits or score are asked about.

    Args:
        logits: ``(N, C)``, before temperature.
        score: Out-of-scope score of the policy's kind ``(N,)``.
        classes: The queues.
        temperature: Fitted on calibration.
        policy: Thresholds and costs.

    Example:
        >>> policy = RoutingPolicy(0.95, threshold=0.8, min_margin=0.1, out_of_scope_threshold=0.5)
        >>> logits = np.log([[0.9, 0.1], [0.52, 0.48], [0.9, 0.1]])
        >>> choose(logits, [0.1, 0.1, 0.7], ("a", "b"), 1.0, policy).decisions()
        ['route', 'ask', 'out of scope']
    """
    raw, foreignness = np.asarray(logits, dtype=np.float64), np.asarray(score, dtype=np.float64)
    usable = np.isfinite(raw).all(axis=1) & np.isfinite(foreignness)
    probs = probabilities(np.where(usable[:, None], raw, 0.0), "multiclass", temperature)
    rows = np.arange(len(probs))
    queue = probs.argmax(axis=1)
    ranked = np.sort(probs, axis=1)
    margin = ranked[:, -1] - (ranked[:, -2] if probs.shape[1] > 1 else 0.0)
    cause = np.full(len(probs), _SURE)
    cause[margin < policy.min_margin] = _CLOSE
    expected = np.zeros((len(probs), 0))
    if policy.costs:
        matrix, ask = cost_matrix(policy.costs, classes)
        expected = probs @ matrix
        queue = expected.argmin(axis=1)
        cause[expected.min(axis=1) > ask] = _CHEAPER
    elif policy.threshold is None:
        cause[:] = _UNREACHABLE
    else:
        cause[probs[rows, queue] < policy.threshold] = _BELOW
    if policy.out_of_scope_threshold is not None:
        cause[foreignness > policy.out_of_scope_threshold] = _FOREIGN
    cause[~usable] = _UNDEFINED
    return Choices(queue, probs[rows, queue], margin, foreignness, cause, probs, expected)


def decide(
    logits: Tensor,
    features: Tensor,
    ids: Sequence[str],
    schema: Schema,
    temperature: float,
    policy: RoutingPolicy,
    examples: TrainingExamples | None = None,
    top: int = 3,
) -> list[RoutingDecision]:
    """Return a decision for each ticket, in order.

    Args:
        logits: ``(N, C)``, before temperature.
        features: ``(N, F)``, of the adapted model.
        ids: Of the tickets.
        schema: Names the queues.
        temperature: Fitted on calibration.
        policy: Of the checkpoint.
        examples: Of the checkpoint.
        top: Queues to name, with their probabilities.

    Raises:
        ValueError: If the policy measures the distance to training examples, and there are none.

    Example:
        >>> import torch
        >>> schema = Schema(task="multiclass", classes=("billing", "technical"))
        >>> policy = RoutingPolicy(0.95, threshold=0.81)
        >>> [row] = decide(torch.tensor([[0.5, 0.0]]), torch.ones(1, 2), ["T-1"], schema, 1.0, policy)
        >>> row.decision, row.queue, row.reason
        ('ask', None, '0.62 is below 0.81')
    """
    values, rows = logits.double().numpy(), features.double().numpy()
    finite = np.isfinite(values).all(axis=1)
    name = policy.out_of_scope_score
    scores = out_of_scope_scores([name], np.where(finite[:, None], values, 0.0), rows, examples)
    if name not in scores and policy.out_of_scope_threshold is not None:
        raise ValueError(
            f"The policy judges out-of-scope tickets by `{name}`, and the checkpoint keeps no training examples. Fit "
            "again with `--evaluation.nearest_examples`, or with another `--evaluation.out_of_scope_score`."
        )
    score = scores.get(name, np.zeros(len(values)))
    made = choose(values, score, schema.classes, temperature, policy)
    near: Sequence[Neighbour | None] = [None] * len(ids) if examples is None else examples.nearest(features)
    result = []
    for place, (key, decision) in enumerate(zip(ids, made.decisions(), strict=True)):
        reason = _reason(made, place, schema.classes, policy, bool(finite[place]))
        if made.cause[place] == _UNDEFINED:
            result.append(RoutingDecision(key, decision, None, (), None, None, None, near[place], reason))
            continue
        order = np.argsort(-made.probabilities[place], kind="stable")[:top].tolist()
        result.append(
            RoutingDecision(
                id=key,
                decision=decision,
                queue=schema.classes[int(made.queue[place])] if decision == ROUTED else None,
                queues=tuple((schema.classes[one], float(made.probabilities[place, one])) for one in order),
                confidence=float(made.confidence[place]),
                margin=float(made.margin[place]),
                out_of_scope_score=float(score[place]) if name in scores else None,
                nearest=near[place],
                reason=reason,
            )
        )
    return result


def _reason(made: Choices, place: int, classes: Sequence[str], policy: RoutingPolicy, finite: bool) -> str:
    cause, confidence, cut = int(made.cause[place]), float(made.confidence[place]), policy.threshold
    if cause == _UNDEFINED:
        return "the features have no direction" if finite else "the logits are not finite"
    if cause == _FOREIGN and policy.out_of_scope_threshold is not None:
        score, limit = _apart(float(made.score[place]), policy.out_of_scope_threshold)
        return f"unlike all known tickets: {policy.out_of_scope_score} {score} is above {limit}"
    if cause == _UNREACHABLE:
        return f"no threshold proves a precision of {policy.target_precision:g}, so every ticket is asked about"
    if cause == _BELOW and cut is not None:
        low, high = _apart(confidence, cut)
        return f"{low} is below {high}"
    order = np.argsort(-made.probabilities[place], kind="stable")
    if cause == _CLOSE:
        first, second = (float(made.probabilities[place, one]) for one in order[:2])
        return f"{first:.2f} against {second:.2f} for `{classes[int(order[1])]}`: too close"
    if policy.costs:
        return _reason_of_costs(made, place, classes, policy.costs, asked=cause == _CHEAPER)
    high, low = _apart(confidence, 0.0 if cut is None else cut)
    return f"{high} is at least {low}"


def _reason_of_costs(
    made: Choices, place: int, classes: Sequence[str], costs: Mapping[str, Any], *, asked: bool
) -> str:
    queue, likeliest = int(made.queue[place]), int(made.probabilities[place].argmax())
    ask, best = float(costs["ask"]), float(made.expected[place, queue])
    if asked:
        less, more = _apart(ask, best)
        return f"asking costs {less}, `{classes[queue]}` {more} on average"
    less, more = _apart(best, ask)
    if queue == likeliest:
        return f"costs {less} on average, asking {more}"
    other = float(made.expected[place, likeliest])
    return f"costs {less} on average, the likelier `{classes[likeliest]}` {other:.2f}, asking {more}"


def _apart(first: float, second: float) -> tuple[str, str]:
    """Write two numbers with two decimals, or with as many as tell them apart.

    Example:
        >>> _apart(0.62, 0.81), _apart(0.8096, 0.8103)
        (('0.62', '0.81'), ('0.8096', '0.8103'))
    """
    digits = 2
    while digits < 9 and first != second and f"{first:.{digits}f}" == f"{second:.{digits}f}":
        digits += 1
    return f"{first:.{digits}f}", f"{second:.{digits}f}"
