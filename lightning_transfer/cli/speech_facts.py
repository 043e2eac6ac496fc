"""What ``data.json`` says of speech: utterances, hours and speakers of each split, and how often each accent comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import SPLITS, Record

__all__ = ["speech_facts"]

# A column with more different values is no accent or channel but a name, a number or a text.
_MOST_VALUES = 50


def speech_facts(records: Sequence[Record], columns: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the facts of each split as plain values.

    Args:
        records: Of all splits.
        columns: Names in ``Record.meta`` to count; those with very many values, or none, are left out.

    Returns:
        Split -> ``utterances``; ``seconds`` of those whose length is known, and the number of the others,
        ``unknown``; ``speakers``, None where no record names one; ``columns``: name -> value -> utterances.

    Example:
        >>> meta = {"duration": 2.5, "accent": "uk"}
        >>> record = Record("a", AudioSegment("a.wav"), split="train", group="ann", meta=meta)
        >>> speech_facts([record], ["accent"])["train"]
        {'utterances': 1, 'seconds': 2.5, 'unknown': 0, 'speakers': 1, 'columns': {'accent': {'uk': 1}}}
    """
    kept = [name for name in columns if name != "duration" and _few(records, name)]
    found: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        own = [record for record in records if record.split == split]
        if not own:
            continue
        lengths = [length for record in own if (length := _seconds(record)) is not None]
        speakers = {record.group for record in own if record.group is not None}
        found[split] = {
            "utterances": len(own),
            "seconds": round(sum(lengths), 3),
            "unknown": len(own) - len(lengths),
            "speakers": len(speakers) or None,
            "columns": {name: _counts(own, name) for name in kept},
        }
    return found


def _seconds(record: Record) -> float | None:
    """Return the length of a record: that of its piece of the file, else that of the file."""
    given = record.input.duration if isinstance(record.input, AudioSegment) else None
    length = record.meta.get("duration") if given is None else given
    return float(length) if isinstance(length, int | float) else None


def _counts(records: Sequence[Record], name: str) -> dict[str, int]:
    counts = Counter(str(record.meta[name]) for record in records if record.meta.get(name) not in (None, ""))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _few(records: Sequence[Record], name: str) -> bool:
    return 0 < len(_counts(records, name)) <= _MOST_VALUES
