"""Write what a recogniser heard as JSON lines: one for each input, in order, unreadable ones too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_transfer import metrics
from lightning_transfer.data import Skipped, write_table
from lightning_transfer.data.predictions import insert_skipped
from lightning_transfer.speech import AudioSegment, Transcript
from lightning_transfer.types import Record

__all__ = ["TRANSCRIPT_COLUMNS", "write_transcripts"]

TRANSCRIPT_COLUMNS = (
    "id",
    "path",
    "start",
    "duration",
    "speaker",
    "text",
    "reference",
    "text_normalised",
    "reference_normalised",
    "wer",
    "confidence",
    "seconds",
    "problem",
    "reason",
)
"""Keys of each line."""


def write_transcripts(
    path: str | Path,
    records: Sequence[Record],
    transcripts: Sequence[Transcript],
    normalise: Callable[[str], str],
    skipped: Sequence[Skipped] = (),
) -> Path:
    """Write ``predictions.jsonl``; the file appears whole or not at all.

    ``wer`` is that of the normalised texts, empty where the reference has no words or there is none. ``reason`` says
    why an input could not be read.

    Args:
        path: Of the file, ending in ``.jsonl``.
        records: All records of the split; ``Transcript.index`` points into them.
        transcripts: What was heard, in the order of the records, one each.
        normalise: The scoring normaliser.
        skipped: Inputs that could not be read; they get their lines at their places.

    Returns:
        The path.

    Raises:
        DataError: If the file exists.
    """
    chosen = [records[item.index] for item in transcripts]
    heard = [normalise(item.text) for item in transcripts]
    said = [normalise(record.label) if isinstance(record.label, str) else None for record in chosen]
    rates = _rates(said, heard)
    rows = [
        [
            *_describe(record),
            item.text,
            record.label,
            plain,
            reference,
            None if rate is None else round(rate, 6),
            None if item.confidence is None else round(item.confidence, 6),
            round(item.seconds, 3),
            item.problem or None,
            None,
        ]
        for record, item, plain, reference, rate in zip(chosen, transcripts, heard, said, rates, strict=True)
    ]
    nothing = [None] * 6
    insert_skipped(
        rows, skipped, lambda skip: [*_describe(skip.record), None, skip.record.label, *nothing, skip.reason]
    )
    return write_table(path, rows, TRANSCRIPT_COLUMNS)


def _rates(said: Sequence[str | None], heard: Sequence[str]) -> list[float | None]:
    """Return the WER of each text that has a reference; without any, jiwer is not needed."""
    known = [place for place, text in enumerate(said) if text is not None]
    rates: list[float | None] = [None] * len(said)
    if known:
        counts = metrics.word_errors([said[place] or "" for place in known], [heard[place] for place in known])
        for place, item in zip(known, counts, strict=True):
            rates[place] = item.rate
    return rates


def _describe(record: Record) -> list[Any]:
    """Return id, path, start, duration and speaker."""
    known = record.meta.get("duration")
    if not isinstance(record.input, AudioSegment):
        path = str(record.input) if isinstance(record.input, str | Path) else None
        return [record.id, path, None, known, record.group]
    segment = record.input
    return [record.id, segment.path, segment.start, segment.duration or known, record.group]
