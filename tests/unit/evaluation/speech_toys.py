"""Utterances of a few speakers, with what a recogniser that errs at random makes of them."""

from __future__ import annotations

import numpy as np

from lightning_transfer.speech import AudioSegment, Transcript
from lightning_transfer.types import Record, Schema

SCHEMA = Schema(task="transcription", classes=("<pad>", "|", "a"), preprocessing={"kind": "audio"})
WORDS = ("order", "refund", "acme", "please", "cancel", "number")


def utterances(num_speakers: int = 8, each: int = 6, seed: int = 0) -> list[Record]:
    """Return records with accent, channel and duration; written with capitals and a full stop."""
    rng = np.random.default_rng(seed)
    records = []
    for place in range(num_speakers * each):
        speaker = place // each
        text = " ".join(rng.choice(WORDS, size=int(rng.integers(1, 6))))
        length = float(rng.uniform(0.5, 4.0))
        records.append(
            Record(
                id=f"u{place}",
                input=AudioSegment(f"s{speaker}/{place}.wav", start=0.5, duration=length),
                label=f"{text.capitalize()}.",
                split="test",
                group=f"s{speaker}",
                meta={"accent": "ab"[speaker % 2], "channel": "line", "duration": length},
            )
        )
    return records


def heard(records: list[Record], error_rate: float = 0.2, seed: int = 1) -> list[Transcript]:
    """Return transcripts in which words are left out, changed and doubled, of accent ``b`` twice as often; the last of
    each ten is silent."""
    rng = np.random.default_rng(seed)
    found = []
    for place, record in enumerate(records):
        rate = error_rate * (2 if record.meta["accent"] == "b" else 1)
        words: list[str] = []
        for word in str(record.label).lower().rstrip(".").split():
            kind = rng.integers(0, 3) if rng.random() < rate else 3
            words += [[], ["wrong"], [word, word], [word]][kind]
        words = [] if place % 10 == 9 else words
        found.append(Transcript(place, " ".join(words), 0.8, record.meta["duration"], "" if words else "only blanks"))
    return found


def plain(text: str) -> str:
    """Return lower case without full stops and commas."""
    return " ".join(text.lower().replace(".", " ").replace(",", " ").split())
