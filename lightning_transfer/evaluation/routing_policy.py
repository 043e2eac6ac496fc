"""What was fitted on the calibration split for routing: plain values that travel in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_transfer.metrics import PrecisionThreshold

__all__ = ["ROUTING_KEY", "SCORES", "RoutingPolicy"]

ROUTING_KEY = "routing"
"""Where a checkpoint keeps the policy, beside schema and calibration."""

SCORES = ("max_logit", "energy", "knn")
"""Out-of-scope scores: minus the largest logit, the free energy, and the cosine distance to a training example."""


@dataclass(frozen=True)
class RoutingPolicy:
    """When a ticket is routed, when a person is asked, and when it is none of the known kinds.

    A ticket whose out-of-scope score is above its threshold is out of scope. Of the others, those with a probability of
    at least ``threshold`` and a margin of at least ``min_margin`` are routed, and a person is asked about the rest.
    Where there are costs, these decide instead of ``threshold`` (Chow 1970): the queue of the lowest expected cost is
    chosen, and a person is asked where that would be cheaper.

    Attributes:
        target_precision: Share of the routed tickets that must reach their queue.
        threshold: On the largest probability after temperature; None: no threshold proves the target, so all is asked.
        min_margin: Smallest difference of the two largest probabilities.
        out_of_scope_score: One of `SCORES`; the higher, the more foreign.
        out_of_scope_threshold: A score above it is out of scope; None: none is.
        out_of_scope_auroc: Score -> AUROC on the calibration data; None where there were no out-of-scope tickets.
        costs: Of `check_costs`; empty where there are none.
        rule: In words, how it was chosen.
        n: Calibration tickets in scope.
        n_out_of_scope: Tickets out of scope that the score was chosen with.
        points: Thresholds for several precisions, that of ``threshold`` first.
        in_scope_thresholds: Precision -> threshold for tickets in scope alone, without any look at out-of-scope
            scores; None where none proves it.
    """

    target_precision: float
    threshold: float | None
    min_margin: float = 0.0
    out_of_scope_score: str = "max_logit"
    out_of_scope_threshold: float | None = None
    out_of_scope_auroc: Mapping[str, float | None] = field(default_factory=dict)
    costs: Mapping[str, Any] = field(default_factory=dict)
    rule: str = "not fitted"
    n: int = 0
    n_out_of_scope: int = 0
    points: tuple[PrecisionThreshold, ...] = ()
    in_scope_thresholds: Mapping[str, float | None] = field(default_factory=dict)

    def at(self, target_precision: float) -> RoutingPolicy:
        """Return the policy with the threshold of another precision that was fitted.

        Raises:
            ValueError: If no threshold was fitted for that precision.

        Example:
            >>> point = PrecisionThreshold(0.9, 0.6, 0.95, (0.9, 0.98), 0.8, 80, 100, "fitted")
            >>> policy = RoutingPolicy(0.95, 0.8, points=(point,))
            >>> policy.at(0.9).threshold
            0.6
        """
        if abs(self.target_precision - target_precision) < 1e-9:
            return self
        for point in self.points:
            if abs(point.min_precision - target_precision) < 1e-9:
                rest = tuple(item for item in self.points if item is not point)
                return replace(
                    self,
                    target_precision=point.min_precision,
                    threshold=point.threshold,
                    rule=point.rule,
                    points=(point, *rest),
                )
        fitted = ", ".join(f"{point.min_precision:g}" for point in self.points) or "none"
        raise ValueError(
            f"The model has no threshold for the precision {target_precision:g}. Fitted: {fitted}. Take one of these, "
            "or fit again with `--evaluation.target_precision`."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts, numbers and strings, fit for JSON and ``torch.load(weights_only=True)``."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["out_of_scope_auroc"] = dict(self.out_of_scope_auroc)
        plain["in_scope_thresholds"] = dict(self.in_scope_thresholds)
        plain["costs"] = {
            key: dict(value) if isinstance(value, Mapping) else value for key, value in self.costs.items()
        }
        plain["points"] = [point.to_dict() for point in self.points]
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoutingPolicy:
        """Rebuild from `to_dict`; unknown keys, of a later version, are ignored.

        Example:
            >>> policy = RoutingPolicy(0.95, 0.8, out_of_scope_auroc={"knn": 0.9})
            >>> RoutingPolicy.from_dict(policy.to_dict()) == policy
            True
        """
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        points = tuple(PrecisionThreshold.from_dict(item) for item in known.get("points", ()))
        return cls(**{**known, "points": points})
