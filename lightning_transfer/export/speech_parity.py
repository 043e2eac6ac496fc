"""Compare an exported recogniser with its checkpoint on real samples, and refuse it where it writes anything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.errors import listing
from lightning_transfer.export.parity import TOLERANCE, ParityError

__all__ = ["SpeechParity"]

Array = NDArray[Any]


@dataclass
class SpeechParity:
    """How far an exported recogniser is from its checkpoint; fed piece by piece, since logits of all would be too many.

    Two tokens that the checkpoint holds equally likely, but for rounding, may change places. What is written then
    differs in one letter, by nobody's fault; such recordings are counted as ties, and not as changed.

    Attributes:
        n: Recordings.
        max_difference: Of logits, the largest.
        largest_logit: Of the checkpoint, by absolute value.
        changed: Ids of recordings with another text.
        ties: Ids of recordings whose text differs where two tokens are equally likely alone.

    Example:
        >>> parity = SpeechParity()
        >>> parity.add("a", "yes", "yes", [(np.array([[0.0, 5.0]]), np.array([[0.0, 5.0001]]))])
        >>> round(parity.max_difference, 6), parity.tolerance
        (0.0001, 0.0005)
    """

    n: int = 0
    max_difference: float = 0.0
    largest_logit: float = 0.0
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    ties: list[str] = field(default_factory=list)

    @property
    def tolerance(self) -> float:
        """What the logits may differ by, see `TOLERANCE`."""
        return TOLERANCE * max(1.0, self.largest_logit)

    def add(self, name: str, wanted: str, found: str, logits: Iterable[tuple[Array, Array]]) -> None:
        """Take a recording into account.

        Args:
            name: Its id.
            wanted: What the checkpoint writes.
            found: What the exported model writes.
            logits: Of each of its pieces, ``(frames, L)``: the checkpoint's, and the exported model's.

        Raises:
            ParityError: If the checkpoint's own logits are not finite, or the two have another number of frames.
        """
        self.n += 1
        ties = others = 0
        for ours, theirs in logits:
            if ours.shape != theirs.shape:
                raise ParityError(
                    f"The exported model makes {len(theirs)} frames of `{name}`, and the checkpoint {len(ours)}. "
                    "Nothing was kept."
                )
            if not ours.size:
                continue
            if not np.isfinite(ours).all():
                raise ParityError(
                    f"The checkpoint's own logits of `{name}` are not finite. Its training has diverged: there is "
                    "nothing to export."
                )
            # NaN must stay, and `max` forgets it.
            self.max_difference = float(np.maximum(self.max_difference, np.abs(ours - theirs).max()))
            self.largest_logit = max(self.largest_logit, float(np.abs(ours).max()))
            best, other = ours.argmax(axis=1), theirs.argmax(axis=1)
            frames = np.flatnonzero(best != other)
            margin = ours[frames, best[frames]] - ours[frames, other[frames]]
            ties += int((margin <= 2 * self.tolerance).sum())
            others += int((margin > 2 * self.tolerance).sum())
        if wanted != found:
            if ties and not others:
                self.ties.append(name)
            else:
                self.changed[name] = (wanted, found)

    def check(self, name: str) -> None:
        """Refuse a model that is not the checkpoint's.

        Raises:
            ParityError: If logits differ by more than rounding, or a text differs by more than a tie.
        """
        problems = []
        if not self.max_difference <= self.tolerance:  # so that NaN is refused
            problems.append(f"logits differ by up to {self.max_difference:.3g} (allowed: {self.tolerance:.3g})")
        if self.changed:
            first = next(iter(self.changed))
            wanted, found = self.changed[first]
            problems.append(
                f"{len(self.changed)} texts differ: {listing(self.changed)}; of `{first}` it writes `{found}` and not "
                f"`{wanted}`"
            )
        if problems:
            raise ParityError(
                f"`{name}` does not write what the checkpoint writes on {self.n} recordings, so it was not kept: "
                f"{'; '.join(problems)}."
            )

    def joined(self, others: Sequence[SpeechParity]) -> SpeechParity:
        """Return the largest differences of several comparisons of the same recordings, in batches of several kinds."""
        found = [self, *others]
        return SpeechParity(
            self.n,
            float(np.max([item.max_difference for item in found])),
            max(item.largest_logit for item in found),
            {name: texts for item in found for name, texts in item.changed.items()},
            list(dict.fromkeys(name for item in found for name in item.ties)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``export.json``."""
        return {
            "n": self.n,
            "max_difference": self.max_difference,
            "tolerance": self.tolerance,
            "same_texts": self.n - len(self.changed) - len(self.ties),
            "changed_texts": list(self.changed)[:20],
            "ties": self.ties[:20],
        }

    def text(self, name: str, size_mb: float) -> str:
        """Return what the terminal shows of the file of that name."""
        same = self.n - len(self.changed) - len(self.ties)
        tied = f" ({len(self.ties)} differ where two letters are equally likely)" if self.ties else ""
        return (
            f"{name}: {size_mb:.1f} MB; logits differ by at most {self.max_difference:.1e} (allowed "
            f"{self.tolerance:.1e}); {same} of {self.n} texts are the checkpoint's{tied}"
        )
