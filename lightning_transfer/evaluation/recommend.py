"""Is transfer learning right for these data, and how? Rules of thumb from numbers to a strategy, with its reasons.

Nothing is computed here: the numbers come from the schema, the plan, a check of the data and a linear probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from lightning_transfer.errors import listing
from lightning_transfer.evaluation.probe import ProbeScore

__all__ = ["DataFacts", "Recommendation", "Strategy", "format_recommendation", "recommend"]

Strategy = Literal["none", "feature_extraction", "partial", "gradual", "lp_ft", "peft"]

FEW_LABELS = 20
"""Median labels a class below which only a head is trained."""
MANY_LABELS = 1000
"""Median labels a class from which all layers may as well train together."""
NEAR_CEILING = 0.95
"""Macro-F1 of the probe from which fine-tuning has little left to win."""
LARGE_TRANSFORMER = 50_000_000
"""Parameters of a transformer from which adapters are worth their extra part."""

_TITLES: dict[str, str] = {
    "none": "no transfer from this backbone as it stands",
    "feature_extraction": "feature extraction (`schedule: feature_extraction`: the head alone)",
    "partial": "partial fine-tuning (`schedule: partial`: the head and the top groups)",
    "gradual": "gradual unfreezing (`schedule: gradual`)",
    "lp_ft": "the head first, then all layers (`schedule: lp_ft`)",
    "peft": "adapters (PEFT) on a frozen backbone",
}


@dataclass(frozen=True)
class DataFacts:
    """The numbers that a recommendation rests on; what is None was not measured, and no rule uses it.

    Attributes:
        counts: Labelled training records of each class.
        num_parameters: Of the backbone.
        pretrained: False for random weights.
        transformer: Whether the backbone has attention layers, which adapters were made for.
        num_groups: Independent groups (parts, patients) in training; None if unknown.
        errors: Codes of the errors that a check of the data found.
        num_labels: Labels that were checked for errors.
        likely_label_errors: Of these.
        probe: Cross-validated linear probe on the frozen backbone.
        plain: Macro-F1 of the domain's plain method on the same folds (TF-IDF and logistic regression for text).
        memory_full: Bytes to train all layers with one batch.
        memory_available: Bytes of the device.
    """

    counts: Mapping[str, int]
    num_parameters: int = 0
    pretrained: bool = True
    transformer: bool = False
    num_groups: int | None = None
    errors: tuple[str, ...] = ()
    num_labels: int | None = None
    likely_label_errors: int | None = None
    probe: ProbeScore | None = None
    plain: float | None = None
    memory_full: int | None = None
    memory_available: int | None = None

    @property
    def labels_per_class(self) -> float:
        """Median over the classes that training has; 0 without any."""
        present = [count for count in self.counts.values() if count]
        return float(median(present)) if present else 0.0


@dataclass(frozen=True)
class Recommendation:
    """A strategy with its reasons.

    Attributes:
        strategy: ``none``, ``peft``, or a schedule of `BackboneFreezeUnfreeze`.
        basis: ``counts``, or ``probe`` where one was measured.
        reasons: Sentences, each with the number that it rests on and its source, the deciding one first.
        cautions: What to mend or know before.
    """

    strategy: Strategy
    basis: Literal["counts", "probe"]
    reasons: tuple[str, ...]
    cautions: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        """The strategy in words."""
        return _TITLES[self.strategy]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        return {**values, "title": self.title, "reasons": list(self.reasons), "cautions": list(self.cautions)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recommendation:
        """Rebuild from `to_dict`."""
        return cls(values["strategy"], values["basis"], tuple(values["reasons"]), tuple(values["cautions"]))


def recommend(facts: DataFacts) -> Recommendation:
    """Choose a strategy by rules of thumb; the first that applies decides.

    1. Random weights: none. 2. A probe that is not surely better than the majority class, or not better than the plain
    method: none. 3. Fewer than 20 labels a class: feature extraction. 4. A probe near the ceiling: feature extraction.
    5. All layers do not fit into memory: adapters for a transformer, partial else. 6. A large transformer: adapters.
    7. At least 1000 labels a class: head first, then all layers. 8. Else: gradual.

    The numbers 20, 1000, 0.95 and 50 million are conventions, not measurements. A recommendation saves a bad first
    run; which strategy is best on your data, two runs and ``test`` tell.

    Args:
        facts: The numbers.

    Example:
        >>> recommend(DataFacts(counts={"good": 12, "pit": 9})).strategy
        'feature_extraction'
    """
    strategy, reasons = _decide(facts)
    return Recommendation(
        strategy, "counts" if facts.probe is None else "probe", tuple(reasons), tuple(_cautions(facts))
    )


def format_recommendation(recommendation: Recommendation, configured: str | None = None) -> str:
    """Return the recommendation as text.

    Args:
        recommendation: Of `recommend`.
        configured: What the config does: a schedule, ``peft``, or ``full``; None leaves the line out.

    Example:
        >>> found = Recommendation("gradual", "counts", ("50 labels a class (rule of thumb).",))
        >>> print(format_recommendation(found, "full"))
        Recommendation: gradual unfreezing (`schedule: gradual`)
          - 50 labels a class (rule of thumb).
          - From counts alone. `check-data --suspects` measures a probe, and knows more.
          This config does something else: all layers from the start (`full`).
    """
    lines = [f"Recommendation: {recommendation.title}"]
    lines += [f"  - {text}" for text in recommendation.reasons]
    if recommendation.basis == "counts":
        lines.append("  - From counts alone. `check-data --suspects` measures a probe, and knows more.")
    lines += [f"  Before: {text}" for text in recommendation.cautions]
    if configured is not None:
        name = "all layers from the start (`full`)" if configured == "full" else _TITLES.get(configured, configured)
        same = configured == recommendation.strategy
        lines.append(f"  This config does {'that' if same else f'something else: {name}'}.")
    return "\n".join(lines)


def _decide(facts: DataFacts) -> tuple[Strategy, list[str]]:
    probe, labels = facts.probe, facts.labels_per_class
    if not facts.pretrained:
        return "none", ["The backbone has random weights: there is nothing to transfer. Name pretrained weights."]
    reasons: list[str] = []
    if probe is not None:
        gain = probe.gain
        sure = gain.value is not None and (gain.low if gain.low is not None else gain.value) > 0
        measured = f"A linear probe on the frozen backbone has a macro-F1 of {probe.macro_f1} ({probe.num_folds} folds)"
        if not sure:
            return "none", [
                f"{measured}; over the majority class that is {gain}: its features say nothing sure of these classes."
                " Check the preprocessing against the backbone's card, and try one whose pretraining is nearer.",
                "Fine-tuning may still learn; compare with `scratch` in `evaluation.baselines`: on two fine-grained"
                " sets pretraining on ImageNet brought next to nothing (Kornblith et al. 2019, arXiv 1805.08974).",
            ]
        if facts.plain is not None and probe.macro_f1.value is not None and facts.plain >= probe.macro_f1.value:
            return "none", [f"{measured}, and the plain method {facts.plain:.3f}: take the plain method."]
        reasons.append(f"{measured}; over the majority class that is {gain}: the features fit.")
    if labels < FEW_LABELS:
        few = (
            f"{labels:g} labels a class (median), fewer than {FEW_LABELS}: with so few a linear head on a frozen"
            " backbone is hard to beat (Tian et al. 2020, arXiv 2003.11539)"
        )
        weights = f", and {facts.num_parameters:,} weights would fit them by heart" if facts.num_parameters else ""
        return "feature_extraction", [f"{few}{weights}.", *reasons]
    if probe is not None and probe.macro_f1.value is not None and probe.macro_f1.value >= NEAR_CEILING:
        left = 1.0 - probe.macro_f1.value
        return "feature_extraction", [
            *reasons,
            f"Only {left:.3f} of macro-F1 is left to win, and a frozen backbone forgets nothing. It is also the safer"
            " one where new data differ from these: fine-tuning lost 7 points there on average (Kumar et al. 2022,"
            " arXiv 2202.10054).",
        ]
    if _too_large(facts):
        need, have = (value / 2**30 for value in (facts.memory_full or 0, facts.memory_available or 0))
        text = f"All layers need about {need:.1f} GiB with this batch, and the device has {have:.1f} GiB"
        if facts.transformer:
            return "peft", [
                f"{text}; adapters need no gradients of the rest (Hu et al. 2021, arXiv 2106.09685).",
                *reasons,
            ]
        return "partial", [f"{text}: open the top groups, or make the batch smaller.", *reasons]
    if facts.transformer and facts.num_parameters >= LARGE_TRANSFORMER:
        return "peft", [
            f"A transformer of {facts.num_parameters:,} parameters: adapters train under a hundredth of them (Hu et al."
            " 2021, arXiv 2106.09685), learn a little less and forget less (Biderman et al. 2024, arXiv 2405.09673).",
            *reasons,
        ]
    if labels >= MANY_LABELS:
        return "lp_ft", [
            f"{labels:g} labels a class (median), at least {MANY_LABELS}: enough to change every layer. The head goes"
            " first, as a random one distorts the features (Kumar et al. 2022, arXiv 2202.10054).",
            *reasons,
            f"With {labels:g} labels a class the same network from scratch may come near: add `scratch` to"
            " `evaluation.baselines`.",
        ]
    return "gradual", [
        f"{labels:g} labels a class (median): between {FEW_LABELS} and {MANY_LABELS}, opening the layers one by one"
        " from the top keeps most of what they know (Howard and Ruder 2018, arXiv 1801.06146).",
        *reasons,
        "We measured it: on magnetic tiles (860 training images, 6 classes) gradual unfreezing had 0.092 [0.035, 0.147]"
        " more macro-F1 than the probe, `lp_ft` 0.078 [0.010, 0.141] (benchmarks/README.md).",
    ]


def _cautions(facts: DataFacts) -> list[str]:
    cautions = []
    if facts.errors:
        cautions.append(
            f"mend what the check of the data calls an error ({listing(dict.fromkeys(facts.errors))}); until then no"
            " score tells anything."
        )
    if facts.likely_label_errors and facts.num_labels:
        share = facts.likely_label_errors / facts.num_labels
        if share >= 0.01:
            cautions.append(
                f"look at the {facts.likely_label_errors} labels ({100 * share:.1f}%) that are probably wrong: a"
                " network that is fine-tuned learns them by heart (Zhang et al. 2017, arXiv 1611.03530)."
            )
    present = {name: count for name, count in facts.counts.items() if count}
    rare = {name: count for name, count in present.items() if count < 10}
    if rare and facts.labels_per_class >= FEW_LABELS:
        named = listing(f"`{name}` {count}" for name, count in rare.items())
        cautions.append(f"classes of fewer than 10 training records ({named}): their recall will have wide intervals.")
    if facts.num_groups is not None and present and facts.num_groups < 5 * len(present):
        cautions.append(
            f"{facts.num_groups} groups in training for {len(present)} classes: records of one group are not"
            " independent, so the labels count for less than they are."
        )
    return cautions


def _too_large(facts: DataFacts) -> bool:
    return (
        facts.memory_full is not None
        and facts.memory_available is not None
        and facts.memory_full > facts.memory_available
    )
