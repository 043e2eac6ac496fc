"""The plain data of speech: where a piece of sound lies, and what a recogniser heard in it. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class Transcript:
    """What a recogniser heard in one record.

    Attributes:
        index: Position of the record in its split.
        text: As it was decoded, before any normaliser.
        confidence: Geometric mean of the probabilities of the decoded tokens, in ``[0, 1]``; None where there is none.
        seconds: Length of the sound.
        problem: What is wrong with it in a few words (``only blanks``, ``repeats itself``); empty if nothing.
    """

    index: int
    text: str
    confidence: float | None
    seconds: float
    problem: str = ""
