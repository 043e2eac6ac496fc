"""Tell a text that goes round in circles, as decoders write where they do not hear."""

from __future__ import annotations

import zlib

__all__ = ["compression_ratio", "repeats_itself"]

_MAX_RATIO = 2.4
"""Of text that compresses this well Whisper's authors say that it failed."""

_LONGEST = 10
"""Words of the longest loop that is looked for."""

_LEAST_WORDS, _LEAST_TIMES = 8, 3
"""A run of repeats is a loop from so many words on, and so many times: digits and "no, no, no" are spoken, too."""


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes a text, as Whisper's own check does; below 1 for short texts.

    Example:
        >>> compression_ratio("thank you " * 30) > 10
        True
    """
    written = text.encode()
    return len(written) / len(zlib.compress(written))


def repeats_itself(text: str) -> bool:
    """Say whether a text is a loop: it compresses too well, or the same words come again and again.

    Example:
        >>> repeats_itself("my number is seven seven seven double four")
        False
        >>> repeats_itself("so please so please so please so please")
        True
    """
    if not text.strip():
        return False
    if compression_ratio(text) > _MAX_RATIO:
        return True
    words = text.casefold().split()
    return any(_loop(words, size) for size in range(1, _LONGEST + 1))


def _loop(words: list[str], size: int) -> bool:
    """Say whether ``size`` words stand often enough in a row."""
    run = 0  # words that equal the one ``size`` places before, without a gap
    for place in range(size, len(words)):
        run = run + 1 if words[place] == words[place - size] else 0
        times = run // size + 1
        if times >= _LEAST_TIMES and times * size >= _LEAST_WORDS:
            return True
    return False
