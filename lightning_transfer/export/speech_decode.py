"""From logits of sound to text: no torch, and no code of the checkpoint's, which it is checked by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Heard", "Word", "greedy", "join"]

Array = NDArray[Any]


class Word(NamedTuple):
    """A word and when it was said, in seconds."""

    text: str
    begin: float
    end: float


class Heard(NamedTuple):
    """What was heard in a piece of sound.

    Attributes:
        words: With times from the beginning of the piece.
        confidence: Geometric mean of the probabilities of the tokens, each at its surest frame; None without any.
        seconds: Length of the piece.
    """

    words: tuple[Word, ...]
    confidence: float | None
    seconds: float

    @property
    def text(self) -> str:
        """The words."""
        return " ".join(word.text for word in self.words)


def greedy(logits: Array, vocabulary: Mapping[str, Any], step: float, seconds: float) -> Heard:
    """Return the words of the most probable token of each frame: repeats become one, blanks go.

    Args:
        logits: ``(frames, L)`` of one piece.
        vocabulary: ``tokens`` in the order of the logits, ``blank``, ``word_delimiter``, ``unknown``.
        step: Seconds from one frame to the next.
        seconds: Length of the piece.

    Example:
        >>> vocabulary = {"tokens": ["-", "|", "a", "b"], "blank": "-", "word_delimiter": "|", "unknown": None}
        >>> logits = np.eye(4)[[2, 2, 0, 2, 1, 3]]
        >>> heard = greedy(logits, vocabulary, step=0.1, seconds=0.6)
        >>> heard.text, [(round(word.begin, 3), round(word.end, 3)) for word in heard.words]
        ('aa b', [(0.0, 0.4), (0.5, 0.6)])
    """
    if not len(logits):
        return Heard((), None, seconds)
    tokens = vocabulary["tokens"]
    best = logits.argmax(axis=1)
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1) - np.logaddexp.reduce(wide, axis=1)
    words: list[Word] = []
    sure: list[float] = []
    letters, begin, end, frame = "", 0.0, 0.0, 0
    for number, run in groupby(best.tolist()):
        first, frame = frame, frame + len(list(run))
        token = tokens[number]
        if _stands_for_nothing(token, vocabulary):
            continue
        sure.append(float(highest[first:frame].max()))
        if token == vocabulary["word_delimiter"]:
            if letters:
                words.append(Word(letters, begin, end))
            letters = ""
            continue
        begin, end = begin if letters else first * step, min(frame * step, seconds)
        letters += token
    if letters:
        words.append(Word(letters, begin, end))
    return Heard(tuple(words), math.exp(sum(sure) / len(sure)) if sure else None, seconds)


def join(pieces: Sequence[Heard], starts: Sequence[float]) -> Heard:
    """Return what was heard in a recording whose pieces overlap.

    The cut between two neighbours lies in the middle of their overlap, or at the nearest end of a word that it would go
    through: at the edges of a piece words are cut in two.

    Args:
        pieces: In order.
        starts: Where each begins, in seconds.

    Example:
        >>> left = Heard((Word("one", 0, 1), Word("thr", 2, 3)), 0.9, 3.0)
        >>> right = Heard((Word("o", 0, 0.2), Word("three", 1, 2)), 0.9, 3.0)
        >>> join([left, right], [0.0, 1.0]).text
        'one three'
    """
    words = [_moved(word, starts[0]) for word in pieces[0].words]
    end = starts[0] + pieces[0].seconds
    for piece, start in zip(pieces[1:], starts[1:], strict=True):
        later = [_moved(word, start) for word in piece.words]
        cut = _cut([*words, *later], start, end)
        words = [word for word in words if _middle(word) < cut] + [word for word in later if _middle(word) >= cut]
        end = max(end, start + piece.seconds)
    sizes = [len(piece.text) if piece.confidence else 0 for piece in pieces]
    total = sum(
        size * math.log(piece.confidence)
        for size, piece in zip(sizes, pieces, strict=True)
        if size and piece.confidence
    )
    return Heard(tuple(words), math.exp(total / sum(sizes)) if sum(sizes) else None, end - starts[0])


def _stands_for_nothing(token: str, vocabulary: Mapping[str, Any]) -> bool:
    """Tell blanks and marks such as ``<s>`` or ``[PAD]`` from what is said."""
    if token in (vocabulary["blank"], vocabulary.get("unknown")):
        return True
    return len(token) > 2 and token[0] + token[-1] in ("<>", "[]")


def _cut(words: Sequence[Word], begin: float, end: float) -> float:
    """Return where to go from one piece to the next, whose overlap is from ``begin`` to ``end``."""
    if end <= begin:
        return begin
    middle = low = high = (begin + end) / 2
    crossed = True
    while crossed:  # until both sides of the words around the middle are silent
        crossed = False
        for word in words:
            inside = word.end > begin and word.begin < end
            if inside and word.begin < high and word.end > low and (word.begin < low or word.end > high):
                low, high, crossed = min(low, word.begin), max(high, word.end), True
    ends = [place for place in (low, high) if begin < place < end]
    return min(ends, key=lambda place: abs(place - middle), default=middle)


def _middle(word: Word) -> float:
    return (word.begin + word.end) / 2


def _moved(word: Word, seconds: float) -> Word:
    return Word(word.text, word.begin + seconds, word.end + seconds)
