"""From pieces to records: what was heard in the overlapping pieces of a long recording becomes one transcript."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from lightning_transfer.speech import Transcript

__all__ = ["join_transcripts"]

_log = logging.getLogger(__name__)

_Word = tuple[str, float, float]


def join_transcripts(
    pieces: Iterable[Transcript], starts: Mapping[int, Sequence[float]] | None = None
) -> list[Transcript]:
    """Return one transcript a record, in the order of the records, each once.

    Neighbouring pieces overlap, and say the same words there. Where words have times, the cut lies in the middle of the
    overlap, or at the nearest end of a word that it would go through: the edges of a piece, where words are cut in two,
    are left out. Without times the longest run of words that both say in the overlap is taken once.

    A record of which some pieces were not run (``limit_test_batches``) is left out. Repeats, which distributed samplers
    add, are dropped.

    Args:
        pieces: In any order; whole records pass as they are.
        starts: Record -> where each of its pieces begins, in seconds; None takes ``Transcript.start``.

    Raises:
        ValueError: If the pieces of a record do not begin one after the other.

    Example:
        >>> left = Transcript(0, "one two thr", 0.9, 3.0, "", 0, 2, 0.0, (("one", 0, 1), ("two", 1, 2), ("thr", 2, 3)))
        >>> right = Transcript(0, "o three", 0.9, 3.0, "", 1, 2, 1.0, (("o", 0, 0.9), ("three", 1, 2)))
        >>> [(joined.text, joined.seconds) for joined in join_transcripts([right, left])]
        [('one two three', 4.0)]
    """
    records: dict[int, dict[int, Transcript]] = {}
    for piece in pieces:
        records.setdefault(piece.index, {}).setdefault(piece.piece, piece)
    joined, missing = [], 0
    for index, found in sorted(records.items()):
        ordered = [found[number] for number in sorted(found)]
        if len(ordered) < ordered[0].num_pieces:
            missing += 1
            continue
        if starts is not None and index in starts:
            ordered = [piece._replace(start=starts[index][piece.piece]) for piece in ordered]
        joined.append(ordered[0] if len(ordered) == 1 else _join(ordered))
    if missing:
        _log.warning("%d of %d records are left out, as not all their pieces were run.", missing, len(records))
    return joined


def _join(pieces: Sequence[Transcript]) -> Transcript:
    """Join the pieces of one record, in order."""
    begins = [piece.start for piece in pieces]
    if any(later <= earlier for earlier, later in pairwise(begins)):
        raise ValueError(
            f"The pieces of record {pieces[0].index} begin at {begins} s. Give `starts`, where each begins, to tell "
            "how far they overlap."
        )
    timed = all(len(piece.words) == len(piece.text.split()) for piece in pieces)
    words = _absolute(pieces[0]) if timed else [(word, 0.0, 0.0) for word in pieces[0].text.split()]
    end = pieces[0].start + pieces[0].seconds
    for piece in pieces[1:]:
        overlap = max(0.0, end - piece.start)
        if timed:
            words = _cut(words, _absolute(piece), piece.start, end)
        else:
            words = _match(words, piece, overlap)
        end = max(end, piece.start + piece.seconds)
    return Transcript(
        index=pieces[0].index,
        text=" ".join(word for word, _, _ in words),
        confidence=_confidence(pieces),
        seconds=end - pieces[0].start,
        problem=_problem(pieces),
        words=tuple(words) if timed else (),
    )


def _absolute(piece: Transcript) -> list[_Word]:
    return [(word, begin + piece.start, end + piece.start) for word, begin, end in piece.words]


def _cut(left: list[_Word], right: list[_Word], begin: float, end: float) -> list[_Word]:
    """Take the words of ``left`` before a point in the overlap ``[begin, end]``, and those of ``right`` behind it."""
    middle = (begin + end) / 2 if end > begin else begin
    spans = [(low, high) for _, low, high in (*left, *right) if high > begin and low < end]
    low = high = middle
    # Words that overlap the span grow it, until it ends in silence on both sides.
    for _ in spans:
        wider = [span for span in spans if span[0] < high and span[1] > low]
        low, high = min([low, *(span[0] for span in wider)]), max([high, *(span[1] for span in wider)])
    inside = [point for point in (low, high) if begin < point < end]
    point = min(inside, key=lambda item: abs(item - middle)) if inside else middle
    before = [word for word in left if (word[1] + word[2]) / 2 < point]
    return before + [word for word in right if (word[1] + word[2]) / 2 >= point]


def _match(left: list[_Word], piece: Transcript, overlap: float) -> list[_Word]:
    """Join at the longest run of words that the end of one and the beginning of the other have in common."""
    right = [(word, 0.0, 0.0) for word in piece.text.split()]
    if overlap <= 0 or not piece.seconds:
        return left + right
    # As many words as the overlap may hold, at twice the pace of the piece.
    most = math.ceil(2 * len(right) * overlap / piece.seconds) + 1
    tail, head = [word for word, _, _ in left[-most:]], [word for word, _, _ in right[:most]]
    found = SequenceMatcher(None, tail, head, autojunk=False).find_longest_match(0, len(tail), 0, len(head))
    if not found.size:
        return left + right
    return left[: len(left) - len(tail) + found.a + found.size] + right[found.b + found.size :]


def _confidence(pieces: Sequence[Transcript]) -> float | None:
    """Return the geometric mean over the letters of all pieces; pieces in which nothing was heard have no say."""
    known = [(piece.confidence, len(piece.text)) for piece in pieces if piece.confidence is not None and piece.text]
    total = sum(size for _, size in known)
    if not total:
        return None
    return math.exp(sum(size * math.log(max(value, 1e-30)) for value, size in known) / total)


def _problem(pieces: Sequence[Transcript]) -> str:
    counts: dict[str, int] = {}
    for piece in pieces:
        if piece.problem:
            counts[piece.problem] = counts.get(piece.problem, 0) + 1
    if len(counts) == 1 and len(pieces) in counts.values():
        return next(iter(counts))
    return "; ".join(f"{problem} in {number} of {len(pieces)} pieces" for problem, number in counts.items())
