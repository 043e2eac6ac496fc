"""References beside hypotheses, text by text: alignments, and counts of errors as arrays for a bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.metrics import AlignedPart, ErrorCounts

__all__ = ["ErrorArrays", "TextErrors", "compare_texts"]

_Int = NDArray[np.int64]


@dataclass(frozen=True)
class ErrorArrays:
    """Counts of each utterance, ``(N,)`` each.

    Attributes:
        substitutions: Units of the reference that became others.
        insertions: Units that nobody said.
        deletions: Units of the reference that are missing.
        lengths: Units of the reference.
    """

    substitutions: _Int
    insertions: _Int
    deletions: _Int
    lengths: _Int

    @classmethod
    def of(cls, counts: Sequence[ErrorCounts]) -> ErrorArrays:
        """Take the counts of a list apart."""
        rows = [(item.substitutions, item.insertions, item.deletions, item.length) for item in counts]
        return cls(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)

    @property
    def errors(self) -> _Int:
        """All three kinds together."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def total(self) -> ErrorCounts:
        """The counts of all utterances together."""
        substitutions, insertions, deletions = (
            int(item.sum()) for item in (self.substitutions, self.insertions, self.deletions)
        )
        return ErrorCounts(int(self.lengths.sum()) - substitutions - deletions, substitutions, insertions, deletions)

    def at(self, place: int) -> ErrorCounts:
        """Return the counts of one utterance."""
        found = (int(item[place]) for item in (self.substitutions, self.insertions, self.deletions, self.lengths))
        substitutions, insertions, deletions, length = found
        return ErrorCounts(length - substitutions - deletions, substitutions, insertions, deletions)


@dataclass(frozen=True)
class TextErrors:
    """What differs between references and hypotheses.

    Attributes:
        words: Errors in words.
        characters: Errors in characters, a blank between words is one.
        silent: Whether nothing was recognised, ``(N,)``.
        parts: Alignments in words; empty where they were not asked for.
    """

    words: ErrorArrays
    characters: ErrorArrays
    silent: NDArray[np.bool_]
    parts: tuple[tuple[AlignedPart, ...], ...] = ()


def compare_texts(references: Sequence[str], hypotheses: Sequence[str], *, parts: bool = True) -> TextErrors:
    """Align all pairs, and count.

    Args:
        references: What was said, ``(N,)``.
        hypotheses: What was recognised, ``(N,)``.
        parts: Whether to keep the alignments.

    Example:
        >>> found = compare_texts(["one two"], ["one too"])
        >>> found.words.total.rate, found.characters.errors.tolist()
        (0.5, [1])
    """
    return TextErrors(
        ErrorArrays.of(metrics.word_errors(references, hypotheses)),
        ErrorArrays.of(metrics.character_errors(references, hypotheses)),
        np.array([not text.strip() for text in hypotheses], dtype=bool),
        tuple(map(metrics.align, references, hypotheses)) if parts else (),
    )
