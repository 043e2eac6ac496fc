"""From the logits of a CTC model to words, with their times and the model's confidence."""

from __future__ import annotations

import math
from itertools import groupby
from typing import NamedTuple

from torch import Tensor

from lightning_transfer.data.transcripts import CTCVocabulary

__all__ = ["Heard", "greedy_decode"]


class Heard(NamedTuple):
    """What a CTC model heard in one row.

    Attributes:
        text: Words with one space between.
        confidence: Geometric mean of the probabilities of its tokens, each at its surest frame; None without any.
        words: Each word with its first frame, and the frame behind its last.
        frames: Frames of sound.
        blanks: Those of them whose best token is the blank.
    """

    text: str
    confidence: float | None
    words: tuple[tuple[str, int, int], ...]
    frames: int
    blanks: int


def greedy_decode(logits: Tensor, lengths: Tensor, vocabulary: CTCVocabulary) -> list[Heard]:
    """Take the best token of each frame, make repeats one, and leave blanks out.

    Args:
        logits: ``(N, T, V)``, unnormalised.
        lengths: Frames of each row, ``(N,)``; what lies behind is padding.
        vocabulary: What the logits stand for.

    Example:
        >>> import torch
        >>> vocabulary = CTCVocabulary(("<pad>", "|", "a", "b"))
        >>> best = torch.tensor([[2, 2, 0, 2, 1, 3, 3, 3]])
        >>> logits = 9.0 * torch.nn.functional.one_hot(best, 4)
        >>> heard = greedy_decode(logits, torch.tensor([7]), vocabulary)[0]
        >>> heard.text, heard.words, heard.blanks
        ('aa b', (('aa', 0, 4), ('b', 5, 7)), 1)
    """
    chances, best = logits.detach().float().softmax(dim=-1).max(dim=-1)
    rows = zip(best.tolist(), chances.tolist(), lengths.tolist(), strict=True)
    return [_decode(tokens[:count], sure[:count], vocabulary) for tokens, sure, count in rows]


def _decode(best: list[int], sure: list[float], vocabulary: CTCVocabulary) -> Heard:
    delimiter = vocabulary.tokens.index(vocabulary.word_delimiter)
    words: list[tuple[str, int, int]] = []
    logs: list[float] = []
    open_word = False
    place = 0
    for token, run in groupby(best):
        count = len(list(run))
        letters = vocabulary.decode([token])
        if token == delimiter:
            open_word = False
            logs.append(math.log(max(max(sure[place : place + count]), 1e-30)))
        elif letters:
            text, first = (words[-1][0] + letters, words.pop()[1]) if open_word else (letters, place)
            words.append((text, first, place + count))
            open_word = True
            logs.append(math.log(max(max(sure[place : place + count]), 1e-30)))
        place += count
    return Heard(
        text=" ".join(word for word, _, _ in words),
        confidence=math.exp(sum(logs) / len(logs)) if logs else None,
        words=tuple(words),
        frames=len(best),
        blanks=best.count(vocabulary.blank_id),
    )
