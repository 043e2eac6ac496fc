"""Errors of recognised speech: words and characters aligned with what was said, and keywords found again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_transfer.errors import TransferError
from lightning_transfer.metrics.bootstrap import Float

__all__ = ["AlignedPart", "ErrorCounts", "KeywordCounts", "align", "character_errors", "error_rate", "keyword_counts"]
__all__ += ["word_errors"]

Units = Literal["words", "characters"]


@dataclass(frozen=True)
class ErrorCounts:
    """How a hypothesis differs from its reference, in words or in characters.

    Attributes:
        hits: Units of the reference that were recognised.
        substitutions: Units of the reference that became others.
        insertions: Units of the hypothesis that nobody said.
        deletions: Units of the reference that are missing.

    Example:
        >>> counts = ErrorCounts(hits=2, substitutions=1, insertions=3, deletions=1)
        >>> counts.errors, counts.length, counts.rate
        (5, 4, 1.25)
        >>> (counts + counts).length
        8
    """

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions together."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def length(self) -> int:
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors over the units of the reference; above 1 with many insertions, None for an empty reference."""
        return self.errors / self.length if self.length else None

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
        )


@dataclass(frozen=True)
class AlignedPart:
    """A run of neighbouring units that have the same fate.

    Attributes:
        kind: ``equal``, ``substitute``, ``insert`` or ``delete``.
        reference: The units that were said; empty for ``insert``.
        hypothesis: The units that were recognised; empty for ``delete``.
    """

    kind: Literal["equal", "substitute", "insert", "delete"]
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


@dataclass(frozen=True)
class KeywordCounts:
    """How often a keyword was said and recognised, in each utterance.

    Attributes:
        said: Occurrences in the reference, ``(N,)``.
        recognised: Those of them that the hypothesis has too, ``(N,)``.
        false_alarms: Occurrences in the hypothesis beyond those that were said, ``(N,)``.
    """

    said: NDArray[np.int64]
    recognised: NDArray[np.int64]
    false_alarms: NDArray[np.int64]


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[ErrorCounts]:
    """Count the words of each hypothesis that differ from its reference, by a least-cost alignment (Levenshtein).

    Words are what blanks separate, compared as they are: normalise both sides alike first. An empty reference makes
    every word of its hypothesis an insertion.

    Args:
        references: What was said, ``(N,)``.
        hypotheses: What was recognised, ``(N,)``.

    Raises:
        TransferError: If jiwer is missing.
        ValueError: If the two are not of one length.

    Example:
        >>> word_errors(["a b c", ""], ["a x", "one two"])  # doctest: +NORMALIZE_WHITESPACE
        [ErrorCounts(hits=1, substitutions=1, insertions=0, deletions=1),
         ErrorCounts(hits=0, substitutions=0, insertions=2, deletions=0)]
    """
    return [_counted(parts) for parts in _aligned(references, hypotheses, "words")]


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[ErrorCounts]:
    """Count the characters of each hypothesis that differ from its reference; a blank between words is one of them.

    Args:
        references: What was said, ``(N,)``.
        hypotheses: What was recognised, ``(N,)``.

    Raises:
        TransferError: If jiwer is missing.
        ValueError: If the two are not of one length.

    Example:
        >>> character_errors(["cat"], ["cart"])
        [ErrorCounts(hits=3, substitutions=0, insertions=1, deletions=0)]
    """
    return [_counted(parts) for parts in _aligned(references, hypotheses, "characters")]


def align(reference: str, hypothesis: str, units: Units = "words") -> tuple[AlignedPart, ...]:
    """Lay a hypothesis beside its reference, run by run.

    Args:
        reference: What was said.
        hypothesis: What was recognised.
        units: ``words`` or ``characters``.

    Returns:
        The runs in order: the references of all, joined, are the reference, and so the hypotheses. A run of
        ``substitute`` has as many units on both sides.

    Raises:
        TransferError: If jiwer is missing.

    Example:
        >>> [(part.kind, part.reference, part.hypothesis) for part in align("call me back", "call my")]
        [('equal', ('call',), ('call',)), ('substitute', ('me',), ('my',)), ('delete', ('back',), ())]
    """
    return _aligned([reference], [hypothesis], units)[0]


def error_rate(errors: ArrayLike, lengths: ArrayLike, weights: ArrayLike | None = None) -> Float:
    """Return all errors over all units of the references: long utterances count as much as they are long.

    Args:
        errors: Of each utterance, ``(N,)``.
        lengths: Units of each reference, ``(N,)``.
        weights: How often each utterance counts, ``(B, N)``; None counts each once.

    Returns:
        One rate a row of ``weights``, ``(B,)``; NaN where its references have no units.

    Example:
        >>> error_rate([1, 3], [2, 6], [[1, 1], [2, 0]]).tolist()
        [0.5, 0.5]
    """
    wrong, units = np.asarray(errors, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    chosen = np.ones((1, len(units))) if weights is None else np.asarray(weights, dtype=np.float64)
    total = chosen @ units
    rates: Float = np.divide(chosen @ wrong, total, out=np.full(len(total), np.nan), where=total > 0)
    return rates


def keyword_counts(
    references: Sequence[str], hypotheses: Sequence[str], keywords: Iterable[str]
) -> dict[str, KeywordCounts]:
    """Count how often each keyword was said and recognised.

    In each utterance as many occurrences count as recognised as the hypothesis has, at most as many as were said.
    Where in the utterance they stand does not matter, so no tie between alignments decides.

    Args:
        references: What was said, ``(N,)``, normalised as the keywords are.
        hypotheses: What was recognised, ``(N,)``.
        keywords: Words, or several words in a row with blanks between.

    Raises:
        ValueError: If a keyword is empty, or the two are not of one length.

    Example:
        >>> counts = keyword_counts(["ask acme plus", "acme acme"], ["ask acme plus", "acme"], ["acme", "acme plus"])
        >>> counts["acme"].said.tolist(), counts["acme"].recognised.tolist()
        ([1, 2], [1, 1])
        >>> counts["acme plus"].said.tolist()
        [1, 0]
    """
    _check_pairs(references, hypotheses)
    said_words, found_words = [text.split() for text in references], [text.split() for text in hypotheses]
    counts = {}
    for keyword in keywords:
        phrase = keyword.split()
        if not phrase:
            raise ValueError(f"Expected keywords with at least one letter, got {keyword!r}. Leave it out of the list.")
        said = np.array([_occurrences(phrase, words) for words in said_words], dtype=np.int64)
        found = np.array([_occurrences(phrase, words) for words in found_words], dtype=np.int64)
        counts[keyword] = KeywordCounts(said, np.minimum(said, found), np.maximum(found - said, 0))
    return counts


def _aligned(references: Sequence[str], hypotheses: Sequence[str], units: Units) -> list[tuple[AlignedPart, ...]]:
    """Align all pairs in one call, which numbers the words once; pairs with an empty side need no alignment."""
    _check_pairs(references, hypotheses)
    if units not in ("words", "characters"):
        raise ValueError(f"Expected `units` to be 'words' or 'characters', got {units!r}.")
    jiwer = _import_jiwer()
    # Blanks of any kind and number separate words; jiwer splits at single spaces alone.
    pairs = [
        (" ".join(said.split()), " ".join(heard.split())) for said, heard in zip(references, hypotheses, strict=True)
    ]
    split = tuple if units == "characters" else (lambda text: tuple(text.split()))
    results: list[tuple[AlignedPart, ...]] = []
    full = [pair for pair in pairs if pair[0] and pair[1]]
    process = jiwer.process_words if units == "words" else jiwer.process_characters
    chunks = iter(process([said for said, _ in full], [heard for _, heard in full]).alignments if full else ())
    for said, heard in pairs:
        before, after = split(said), split(heard)
        if said and heard:
            results.append(tuple(_part(chunk, before, after) for chunk in next(chunks)))
        elif said or heard:
            results.append((AlignedPart("delete" if said else "insert", before, after),))
        else:
            results.append(())
    return results


def _part(chunk: object, before: tuple[str, ...], after: tuple[str, ...]) -> AlignedPart:
    said = before[chunk.ref_start_idx : chunk.ref_end_idx]  # type: ignore[attr-defined]
    return AlignedPart(chunk.type, said, after[chunk.hyp_start_idx : chunk.hyp_end_idx])  # type: ignore[attr-defined]


def _counted(parts: Iterable[AlignedPart]) -> ErrorCounts:
    counts = {"equal": 0, "substitute": 0, "insert": 0, "delete": 0}
    for part in parts:
        counts[part.kind] += max(len(part.reference), len(part.hypothesis))
    return ErrorCounts(counts["equal"], counts["substitute"], counts["insert"], counts["delete"])


def _occurrences(phrase: list[str], words: list[str]) -> int:
    return sum(words[start : start + len(phrase)] == phrase for start in range(len(words) - len(phrase) + 1))


def _check_pairs(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses):
        raise ValueError(
            f"Expected one hypothesis for each reference, got {len(hypotheses)} for {len(references)}. Give an empty "
            "text where nothing was recognised."
        )


def _import_jiwer() -> ModuleType:
    try:
        return import_module("jiwer")
    except ImportError as error:
        raise TransferError(
            f"Word errors need `jiwer`, which cannot be imported ({error}). Install the extra `speech`: "
            "`pip install 'lightning-transfer[speech]'`."
        ) from error
