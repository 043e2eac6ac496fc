"""The section ``evaluation`` of a config. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["EvaluationOptions", "ScratchOptions"]

Baselines = list[Literal["majority", "plain", "knn", "linear_probe", "scratch"]]


def _cheap_baselines() -> Baselines:
    return ["majority", "plain", "knn", "linear_probe"]


@dataclass
class ScratchOptions:
    """How the baseline ``scratch`` trains the same network from random weights.

    Attributes:
        learning_rates: Of AdamW, to choose from on validation.
        trial_epochs: Epochs after which the rates are compared; then the best one starts again and trains until
            validation stalls. None trains each of them until then, which is surer and takes longer.
        patience: Epochs in which neither validation score nor loss gets better. The first and the second time the rate
            falls to a fifth, the third time training ends.
        max_epochs: Bound, should validation never stall.
    """

    learning_rates: list[float] = field(default_factory=lambda: [3e-4, 1e-3, 3e-3])
    trial_epochs: int | None = None
    patience: int = 10
    max_epochs: int = 300


@dataclass
class EvaluationOptions:
    """How a trained model is calibrated and judged.

    Attributes:
        max_false_reject_rate: Share of good items that the threshold may reject, measured on the calibration split.
            After the fit: one of the rates that have a threshold (the fit's, 1, 2 and 5%).
        baselines: Plain methods that ``test`` puts beside the model; they read the training split again. ``plain`` is
            the domain's own, without any network; ``scratch`` trains the same network from random weights, which takes
            as long as training does.
        scratch: How it does that.
        nearest_examples: Training records whose features travel in ``model.ckpt``, so that each prediction can name
            the most similar one; with more records a share of each class. 0 keeps none.
        slices: Columns of the data by which ``test`` cuts the records into slices; ``all`` takes every column, ``[]``
            none.
        shortcut_columns: Columns of which ``test`` asks whether the features tell them, and whether they alone would
            explain the label, such as the hospital; ``auto`` takes site, hospital, location, scanner, view and sex
            where the data have them, ``[]`` none.
        latency_batch_sizes: Items in a forward pass that ``test`` times, about two seconds each; ``[]`` times nothing.
        save_maps: Write a heat map of each image that ``test`` or ``predict`` reads, where the head makes one.
        target_precision: Share of what is routed automatically that must reach its queue, in recipes that route. After
            the fit: one of those that have a threshold (the fit's, 0.9, 0.95 and 0.99).
        min_margin: Smallest difference of the two largest probabilities with which is routed.
        misroute_costs: What a record costs in a wrong queue, true queue -> queue it is routed to -> cost, and ``ask``,
            the cost of asking a person; ``*`` stands for all queues that are not named. Or a YAML file of them. Then
            costs decide, not ``target_precision``.
        out_of_scope_score: How foreign records are told; ``auto`` takes the best on the calibration data.

    Raises:
        ValueError: If a number is out of range: better before the fit than after it.
    """

    max_false_reject_rate: float = 0.05
    baselines: Baselines = field(default_factory=_cheap_baselines)
    scratch: ScratchOptions = field(default_factory=ScratchOptions)
    nearest_examples: int = 10_000
    slices: Literal["all"] | list[str] = "all"
    shortcut_columns: Literal["auto"] | list[str] = "auto"
    latency_batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 32])
    save_maps: bool = False
    target_precision: float = 0.95
    min_margin: float = 0.0
    misroute_costs: dict[str, Any] | str | None = None
    out_of_scope_score: Literal["auto", "max_logit", "energy", "knn"] = "auto"

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_false_reject_rate <= 1.0:
            raise ValueError(
                f"Expected `max_false_reject_rate` in [0, 1], got {self.max_false_reject_rate}. 0.05 rejects up to one "
                "good part in twenty."
            )
        if self.nearest_examples < 0:
            raise ValueError(f"Expected `nearest_examples` of at least 0, got {self.nearest_examples}. 0 keeps none.")
        if min(self.latency_batch_sizes, default=1) < 1:
            raise ValueError(
                f"Expected `latency_batch_sizes` of at least 1, got {self.latency_batch_sizes}. [] times nothing."
            )
        self._check_routing()

    def _check_routing(self) -> None:
        if not 0.0 < self.target_precision < 1.0:
            raise ValueError(
                f"Expected `target_precision` in (0, 1), got {self.target_precision}. 0.95 lets one routed record in "
                "twenty go astray."
            )
        if not 0.0 <= self.min_margin < 1.0:
            raise ValueError(f"Expected `min_margin` in [0, 1), got {self.min_margin}. 0 asks for none.")
        if self.out_of_scope_score == "knn" and self.nearest_examples == 0:
            raise ValueError(
                "`out_of_scope_score: knn` measures the distance to training examples, and `nearest_examples: 0` keeps "
                "none. Keep some, or choose another score."
            )
