"""The plain data of speech: where a piece of sound lies, and what a recogniser heard in it. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["AudioSegment", "Transcript"]


@dataclass(frozen=True)
class AudioSegment:
    """A piece of an audio file: the input of a record of speech.

    Attributes:
        path: The file.
        start: Where the piece begins, in seconds.
        duration: Its length in seconds; None reads to the end.
        channel: Of a file with several, from 0; ``mix`` is their mean.

    Example:
        >>> str(AudioSegment("calls/a.wav", start=1.5))
        'calls/a.wav'
    """

    path: str
    start: float = 0.0
    duration: float | None = None
    channel: int | Literal["mix"] = "mix"

    def __str__(self) -> str:
        return self.path


class Transcript(NamedTuple):
    """What a recogniser heard in one record, or in one piece of a long one.

    A tuple with names, not a dataclass: Lightning moves what ``predict_step`` returns, and refuses frozen dataclasses.

    Attributes:
        index: Position of the record in its split.
        text: As it was decoded, before any normaliser.
        confidence: Geometric mean of the probabilities of the decoded tokens, in ``[0, 1]``; None where there is none.
        seconds: Length of the sound.
        problem: What is wrong with it in a few words (``only blanks``, ``repeats itself``); empty if nothing.
        piece: Number of the piece, from 0.
        num_pieces: Pieces of the record; 1 where it was heard whole.
        start: Where the piece begins in its record, in seconds.
        words: Each word of ``text`` with its begin and end, in seconds from the beginning of the piece; empty where the
            model gives no times.

    Example:
        >>> Transcript(0, "yes please", 0.9, seconds=1.5).num_pieces
        1
    """

    index: int  # type: ignore[assignment]  # a tuple's own `index` is of no use here
    text: str
    confidence: float | None
    seconds: float
    problem: str = ""
    piece: int = 0
    num_pieces: int = 1
    start: float = 0.0
    words: tuple[tuple[str, float, float], ...] = ()
