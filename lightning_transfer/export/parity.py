"""Compare an exported model with its checkpoint on real samples, and refuse it where it says anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.errors import listing
from lightning_transfer.export.predict_onnx import BATCH, join_tiles, judge
from lightning_transfer.types import Prediction

__all__ = ["TOLERANCE", "Parity", "ParityError", "Reference", "check_parity", "compare", "exported_logits"]
__all__ += ["worst"]

Array = NDArray[Any]
Run = Callable[[Array], Array]
"""Maps prepared images ``(N, C, H, W)`` to logits ``(N, L)``."""

TOLERANCE = 1e-4
"""Largest difference that rounding explains: of logits, in units of the largest logit or of 1, and of probabilities.

Another order of the same float32 sums moves a logit by some 1e-6 of its size (seen: 1e-7 to 2e-6 for ResNet, ConvNeXt,
ViT, Swin, MobileNet); a wrong operation, padding or BatchNorm moves it by more than 1e-2. Between them lies 1e-4. A
logit that is off by as much moves a probability by at most a quarter of that.
"""


class ParityError(Exception):
    """An exported model that does not say what the checkpoint says."""


@dataclass(frozen=True)
class Reference:
    """What the checkpoint says of the samples.

    Attributes:
        ids: Names of the samples, for messages.
        logits: ``(N, L)``, before temperature.
        predictions: With probabilities and decisions.
    """

    ids: tuple[str, ...]
    logits: Array
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class Parity:
    """How far an exported model is from its checkpoint.

    Attributes:
        n: Samples.
        max_difference: Of logits, the largest.
        largest_logit: Of the checkpoint, by absolute value.
        max_probability_difference: The largest, that of the scores included.
        changed: Ids of the samples with another decision.
    """

    n: int
    max_difference: float
    largest_logit: float
    max_probability_difference: float
    changed: tuple[str, ...]

    @property
    def tolerance(self) -> float:
        """What the logits may differ by."""
        return TOLERANCE * max(1.0, self.largest_logit)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``export.json``."""
        return {
            "n": self.n,
            "max_difference": self.max_difference,
            "tolerance": self.tolerance,
            "max_probability_difference": self.max_probability_difference,
            "probability_tolerance": TOLERANCE,
            "same_decisions": self.n - len(self.changed),
            "changed_decisions": list(self.changed[:20]),
        }

    def text(self, name: str, size_mb: float) -> str:
        """Return what the terminal shows of the file of that name."""
        return (
            f"{name}: {size_mb:.1f} MB; logits differ by at most {self.max_difference:.1e} (allowed "
            f"{self.tolerance:.1e}), probabilities by {self.max_probability_difference:.1e} (allowed "
            f"{TOLERANCE:.0e}); {self.n - len(self.changed)} of {self.n} decisions are the checkpoint's"
        )


def exported_logits(
    runs: Mapping[str, Run], samples: Iterable[Array], facts: Mapping[str, Any]
) -> Iterator[dict[str, Array]]:
    """Run several exported models over samples; yield for each sample the logits ``(L,)`` of each model.

    Args:
        runs: Name -> model.
        samples: Each prepared as ``(tiles, C, H, W)``; read once, few at a time.
        facts: Say how tiles are joined.

    Example:
        >>> facts = {"preprocessing": {"tiling": None}}
        >>> runs = {"sum": lambda images: images.sum(axis=(1, 2, 3))[:, None]}
        >>> [row["sum"].tolist() for row in exported_logits(runs, np.ones((3, 1, 1, 2, 2)), facts)]
        [[4.0], [4.0], [4.0]]
    """
    for group in _grouped(samples):
        images = np.concatenate(group)
        ends = np.cumsum([len(sample) for sample in group])[:-1]
        found = {}
        for name, run in runs.items():
            parts = [run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
            found[name] = [join_tiles(rows, facts) for rows in np.split(np.concatenate(parts), ends)]
        for place in range(len(group)):
            yield {name: rows[place] for name, rows in found.items()}


def compare(reference: Reference, logits: Array, facts: Mapping[str, Any]) -> Parity:
    """Return how far logits ``(N, L)`` and the decisions made from them are from the checkpoint's.

    The decisions are those of ``predict_onnx.py``, which shares no code with the checkpoint's.

    Raises:
        ParityError: If a logit of the checkpoint is not finite, or only one of the two has a score.
    """
    wrong = np.flatnonzero(~np.isfinite(reference.logits).all(axis=1))
    if len(wrong):
        raise ParityError(
            f"The checkpoint's own logits of {len(wrong)} samples are not finite, first of "
            f"`{reference.ids[wrong[0]]}`. Its training has diverged: there is nothing to export."
        )
    changed, apart = [], 0.0
    for name, row, expected in zip(reference.ids, logits, reference.predictions, strict=True):
        probabilities, score, decision = judge(row, facts)
        if decision != _joined(expected.decision):
            changed.append(name)
        if not np.isfinite(row).all():
            apart = float("nan")
            continue
        found = [*probabilities, *([] if score is None else [score])]
        wanted = [expected.probabilities[key] for key in facts["classes"]]
        wanted += [] if expected.score is None else [expected.score]
        if len(found) != len(wanted):
            raise ParityError(f"Only one of the two has a score of `{name}`: their negative classes differ.")
        apart = float(np.maximum(apart, _largest(np.asarray(found, dtype=np.float64) - np.asarray(wanted))))
    return Parity(
        n=len(reference.ids),
        max_difference=_largest(logits.astype(np.float64) - reference.logits.astype(np.float64)),
        largest_logit=_largest(reference.logits),
        max_probability_difference=apart,
        changed=tuple(changed),
    )


def worst(parities: Sequence[Parity]) -> Parity:
    """Return the largest differences of several comparisons of the same samples, such as in batches of several sizes.

    Example:
        >>> found = worst([Parity(3, 1e-6, 5.0, 1e-7, ()), Parity(3, 2e-6, 5.0, 1e-8, ("a",))])
        >>> found.max_difference, found.changed
        (2e-06, ('a',))
    """
    changed = dict.fromkeys(name for parity in parities for name in parity.changed)
    return Parity(
        n=parities[0].n,
        # NaN must stay, and `max` forgets it.
        max_difference=float(np.max([parity.max_difference for parity in parities])),
        largest_logit=parities[0].largest_logit,
        max_probability_difference=float(np.max([parity.max_probability_difference for parity in parities])),
        changed=tuple(changed),
    )


def check_parity(name: str, parity: Parity) -> None:
    """Refuse a model that is not the checkpoint's.

    Raises:
        ParityError: If logits or probabilities differ by more than rounding, or any decision differs.
    """
    problems = []
    if not parity.max_difference <= parity.tolerance:  # so that NaN is refused
        problems.append(f"logits differ by up to {parity.max_difference:.3g} (allowed: {parity.tolerance:.3g})")
    if not parity.max_probability_difference <= TOLERANCE:
        problems.append(
            f"probabilities differ by up to {parity.max_probability_difference:.3g} (allowed: {TOLERANCE:.3g})"
        )
    if parity.changed:
        problems.append(f"{len(parity.changed)} decisions differ: {listing(parity.changed)}")
    if problems:
        raise ParityError(
            f"`{name}` does not say what the checkpoint says on {parity.n} samples, so it was not kept: "
            f"{'; '.join(problems)}."
        )


def _grouped(samples: Iterable[Array]) -> Iterator[list[Array]]:
    """Yield samples together up to a batch, so that batches of several sizes are tried, and few are in memory."""
    group: list[Array] = []
    for sample in samples:
        if group and sum(map(len, group)) + len(sample) > BATCH:
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def _joined(decision: str | Sequence[str]) -> str:
    return decision if isinstance(decision, str) else "|".join(decision)


def _largest(values: Array) -> float:
    return float(np.abs(values).max()) if values.size else 0.0
