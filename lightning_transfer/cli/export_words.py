"""What 8 bits lose in words: the quantised recogniser beside the float one, on the whole test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.data.transcripts import normaliser
from lightning_transfer.metrics import ErrorCounts, Interval
from lightning_transfer.types import Record

__all__ = ["WordLoss", "measure_word_loss"]


@dataclass(frozen=True)
class WordLoss:
    """Word error rates of both, and what lies between them.

    Attributes:
        n: Recordings with a transcript.
        same_texts: Recordings of which both write the same.
        rates: ``float`` and ``int8`` -> word error rate, with its interval over speakers.
        lost: Of 8 bits minus that of float, paired: positive is worse.
    """

    n: int
    same_texts: int
    rates: dict[str, Interval]
    lost: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``export.json``."""
        rates = {name: item.to_dict() for name, item in self.rates.items()}
        return {"n": self.n, "same_texts": self.same_texts, "wer": {**rates, "lost": self.lost.to_dict()}}

    def text(self, name: str, size_mb: float) -> str:
        """Return what the terminal shows."""
        share = self.same_texts / self.n if self.n else 1.0
        return (
            f"{name}: {size_mb:.1f} MB; {self.same_texts} of {self.n} texts on test as in float ({share:.1%})\n"
            f"  wer: {self.rates['float']} in float, {self.rates['int8']} in 8 bits, higher by {self.lost}"
        )


def measure_word_loss(
    records: Sequence[Record], in_float: Sequence[str], in_8_bits: Sequence[str], scoring: str
) -> WordLoss:
    """Compare the word errors of both; recordings without a transcript are left out.

    Args:
        records: Of the test split.
        in_float: What the float model writes of each.
        in_8_bits: What the 8-bit one writes.
        scoring: Name of the normaliser that all texts pass before words are compared.
    """
    score = normaliser(scoring)
    places = [place for place, record in enumerate(records) if isinstance(record.label, str)]
    said = [score(str(records[place].label)) for place in places]
    # A recording without a speaker is a group of its own.
    speakers = [records[place].group for place in places]
    counts = {
        name: metrics.word_errors(said, [score(texts[place]) for place in places])
        for name, texts in (("float", in_float), ("int8", in_8_bits))
    }
    rates = {name: metrics.cluster_bootstrap(_rate(items), speakers) for name, items in counts.items()}
    lost = metrics.paired_difference(_rate(counts["int8"]), _rate(counts["float"]), speakers)
    same = sum(in_float[place] == in_8_bits[place] for place in places)
    return WordLoss(len(places), same, rates, lost)


def _rate(counts: Sequence[ErrorCounts]) -> metrics.bootstrap.Statistic:
    errors = np.array([item.errors for item in counts], dtype=np.float64)
    words = np.array([item.length for item in counts], dtype=np.float64)

    def rate(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return metrics.error_rate(errors, words, weights)

    return rate
