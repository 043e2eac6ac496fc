"""Leave out of training what nothing can be learnt from, and say how much and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

__all__ = ["leave_out_by_length", "leave_out_by_text", "leave_out_empty"]

_Kept = tuple[list[Record], list[Finding]]


def leave_out_by_length(records: Sequence[Record], shortest: float, longest: float) -> _Kept:
    """Return the records without training ones that are too short or too long, and what is to be said of it.

    A text belongs to the whole of its sound: of a long recording no piece could be learnt from. Other splits keep
    theirs.

    Args:
        records: With splits and ``meta["duration"]``.
        shortest: Least seconds.
        longest: Most seconds.

    Returns:
        The records, and ``too-long-for-training``, ``too-short-for-training``.

    Example:
        >>> rows = [Record(str(n), None, "a", "train", meta={"duration": n}) for n in (0.05, 3.0, 90.0)]
        >>> kept, findings = leave_out_by_length(rows, 0.1, 30.0)
        >>> [row.id for row in kept], [finding.code for finding in findings]
        (['3.0'], ['too-long-for-training', 'too-short-for-training'])
    """
    kept, long = _without(records, lambda record: record.meta["duration"] > longest)
    kept, short = _without(kept, lambda record: record.meta["duration"] < shortest)
    found = _said(
        long,
        records,
        "too-long-for-training",
        f"are longer than {longest:g} s",
        "Cut them at pauses, with their texts, or raise `data.max_seconds`, which takes memory.",
    )
    found += _said(
        short,
        records,
        "too-short-for-training",
        f"are shorter than {shortest:g} s",
        "Look whether they are cut off; `data.min_seconds` is the limit.",
    )
    return kept, found


def leave_out_by_text(records: Sequence[Record], spec: AudioPreprocessing) -> _Kept:
    """Return the records without training ones whose text is too long for its sound, and what is to be said of it.

    Args:
        records: With splits, transcripts and ``meta["duration"]``.
        spec: With its vocabulary, if the model has one.

    Returns:
        The records, and ``too-long-for-its-frames``.
    """
    kept, lost = _without(records, lambda row: spec.lacks_frames(str(row.label), row.meta["duration"]))
    return kept, _said(
        lost,
        records,
        "too-long-for-its-frames",
        "have more letters than their sound has frames, so that no path leads through them",
        "Listen to a few: transcripts and files may be mixed up, or the sound cut off.",
    )


def leave_out_empty(records: Sequence[Record], spec: AudioPreprocessing) -> _Kept:
    """Return the records without training ones of whose text normalising leaves nothing, and what is to be said of it.

    Returns:
        The records, and ``nothing-to-learn``.
    """
    kept, lost = _without(records, lambda row: not spec.text(str(row.label)))
    return kept, _said(
        lost,
        records,
        "nothing-to-learn",
        "have a text of which normalising leaves nothing",
        "Write down what is said, or leave them out.",
    )


def _without(records: Sequence[Record], test: Callable[[Record], bool]) -> tuple[list[Record], list[Record]]:
    lost = [record for record in records if record.split == "train" and test(record)]
    gone = {record.id for record in lost}
    return [record for record in records if record.id not in gone], lost


def _said(lost: Sequence[Record], records: Sequence[Record], code: str, why: str, advice: str) -> list[Finding]:
    if not lost:
        return []
    total = sum(record.split == "train" for record in records)
    share = len(lost) / total
    named = [f"{record.id} ({record.meta['duration']:.2f} s)" for record in lost]
    return [
        Finding(
            code,
            "warning" if share > 0.01 else "note",
            f"{len(lost)} of {total} training recordings ({share:.1%}) {why}: they are left out of training."
            f" {listing(named)}.",
            len(lost),
            tuple(named[:MAX_EXAMPLES]),
            advice,
        )
    ]
