"""Check the recordings of records: lengths, speakers, sound that cannot be right, copies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

import numpy as np

from lightning_transfer.data.audio_facts import AudioFacts
from lightning_transfer.data.audit_duplicates import duplicate_findings
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import SPLITS, Record

__all__ = ["audio_findings", "by_split"]

_LONG = 600.0
"""Seconds from which a recording is called long: a call, not an utterance."""

_CLAIM_SECONDS, _CLAIM_SHARE = 0.1, 0.01
"""By so much, plus this share, may a list's duration differ: encoders pad, and people round."""

_EIGHT_BITS = ("PCM_U8", "PCM_S8")


def audio_findings(
    records: Sequence[Record], facts: Sequence[AudioFacts], claimed: Mapping[str, float], rate: int
) -> list[Finding]:
    """Return what is to be said of recordings, each decoded once before.

    Args:
        records: With splits, speakers, and ``meta["duration"]``.
        facts: Of each record.
        claimed: Id -> duration that the list gave.
        rate: That the network was trained with.

    Returns:
        ``audio-lengths``, ``speakers``, ``wrong-duration``, ``clipped-audio``, ``silent-audio``, ``low-bit-depth``,
        ``mixed-audio``, ``narrow-band``, ``mixed-down``, ``long-audio``, and what `duplicate_findings` says of sound.
    """
    if not records:
        return []
    findings = [_lengths(records), *_speakers(records), *_claims(records, claimed)]
    rows = list(zip(records, facts, strict=True))

    def some(
        code: str, severity: Literal["warning", "note"], text: str, advice: str, test: Callable[..., bool]
    ) -> None:
        found = [record.id for record, fact in rows if test(record, fact)]
        if found:
            share = f"{len(found)} of {len(records)} recordings"
            examples = tuple(found[:MAX_EXAMPLES])
            findings.append(Finding(code, severity, f"{share} {text}.", len(found), examples, advice))

    some(
        "clipped-audio",
        "warning",
        "are clipped: loud passages are cut off at full scale",
        "Lower the gain where they are recorded. Nothing brings back what is cut off, but a model can learn to live"
        " with it.",
        lambda record, fact: fact.is_clipped,
    )
    some(
        "silent-audio",
        "warning",
        "are silent: nothing is above -60 dB",
        "Look whether the right channel is read (`data.channel`), or remove them: their transcripts teach nonsense.",
        lambda record, fact: fact.is_silent,
    )
    some(
        "low-bit-depth",
        "note",
        "have 8 bits a sample without companding, which hisses where speech is quiet",
        "",
        lambda record, fact: fact.file.encoding in _EIGHT_BITS,
    )
    wide = any(fact.file.rate >= rate for fact in facts)
    some(
        "narrow-band",
        "note",
        f"have fewer than the {rate} samples a second that the network was trained with: their upper frequencies are"
        " empty after resampling",
        "`data.augmentation.telephone_probability` makes the others like them." if wide else "",
        lambda record, fact: fact.file.rate < rate,
    )
    some(
        "mixed-down",
        "note",
        "have several channels, whose mean is taken",
        "Where each side of a call has a channel of its own, choose one (`data.channel`), or give a row to each"
        " (`data.channel_number_column`).",
        lambda record, fact: fact.file.channels > 1 and record.input.channel == "mix",
    )
    some(
        "long-audio",
        "note",
        f"are longer than {_LONG / 60:g} minutes; they are read and recognised in pieces, and not learnt from",
        "Cut them at pauses, with their texts, to learn from them.",
        lambda record, fact: fact.seconds > _LONG,
    )
    findings += _kinds(records, facts)
    # All silence of one length is the same.
    keys: list[Hashable | None] = [None if fact.is_silent else fact.digest for fact in facts]
    return [*findings, *duplicate_findings(records, keys, "sound")]


def _lengths(records: Sequence[Record]) -> Finding:
    seconds = np.array([record.meta["duration"] for record in records])
    parts = ", ".join(
        f"{split} {len(rows)} ({_span(sum(row.meta['duration'] for row in rows))})"
        for split, rows in by_split(records).items()
    )
    return Finding(
        "audio-lengths",
        "note",
        f"{len(records)} recordings, {_span(float(seconds.sum()))} in all: {parts}. One lasts {seconds.min():.2f} to"
        f" {seconds.max():.2f} s (median {np.median(seconds):.2f}, 95% at most {np.percentile(seconds, 95):.2f}).",
        len(records),
    )


def _span(seconds: float) -> str:
    """Return a length in words.

    Example:
        >>> _span(90.0), _span(5400.0), _span(7.25)
        ('1.5 min', '1.5 h', '7.2 s')
    """
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _speakers(records: Sequence[Record]) -> list[Finding]:
    if any(record.group is None for record in records):
        return []  # what that means is said where groups are looked at
    voices = {split: {row.group for row in rows} for split, rows in by_split(records).items()}
    sizes = Counter(record.group for record in records)
    parts = ", ".join(f"{split} {len(found)}" for split, found in voices.items())
    most = max(sizes.values()) / len(records)
    lone = [split for split in ("val", "test") if split in voices and len(voices[split]) < 3]
    advice = f"With so few voices in `{'` and `'.join(lone)}` a score says little of others." if lone else ""
    return [
        Finding(
            "speakers",
            "note",
            f"{len(sizes)} speakers ({parts}); the most frequent has {most:.0%} of the recordings.",
            len(sizes),
            (),
            advice,
        )
    ]


def _claims(records: Sequence[Record], claimed: Mapping[str, float]) -> list[Finding]:
    wrong = []
    for record in records:
        stated, real = claimed.get(record.id), record.meta["duration"]
        if stated is not None and abs(stated - real) > _CLAIM_SECONDS + _CLAIM_SHARE * real:
            wrong.append((abs(stated - real), f"{record.id} (stated {stated:.2f} s, is {real:.2f} s)"))
    if not wrong:
        return []
    wrong.sort(key=lambda item: -item[0])
    return [
        Finding(
            "wrong-duration",
            "warning",
            f"The list states another duration than the file has for {len(wrong)} of {len(records)} recordings; the"
            " file's counts.",
            len(wrong),
            tuple(text for _, text in wrong[:MAX_EXAMPLES]),
            "Listen to a few: the file may be cut off, or belong to another transcript.",
        )
    ]


def _kinds(records: Sequence[Record], facts: Sequence[AudioFacts]) -> list[Finding]:
    """Say that recordings are of several kinds, above all where test has a kind that training lacks."""
    members: defaultdict[str, list[Record]] = defaultdict(list)
    for record, fact in zip(records, facts, strict=True):
        members[f"{fact.file.rate} Hz {fact.file.encoding}"].append(record)
    if len(members) < 2:
        return []
    counts = listing((f"{kind} {len(rows)}" for kind, rows in sorted(members.items(), key=lambda i: -len(i[1]))), 8)
    unseen = [
        kind
        for kind, rows in members.items()
        if {row.split for row in rows} & {"val", "test"} and not any(row.split == "train" for row in rows)
    ]
    known = any(record.split == "train" for record in records)
    more = f" `train` has none of {listing(sorted(unseen))}." if unseen and known else ""
    rarest = min(members.values(), key=len)
    return [
        Finding(
            "mixed-audio",
            "warning" if more else "note",
            f"The recordings are of {len(members)} kinds ({counts}).{more}",
            len(records) - max(map(len, members.values())),
            tuple(row.id for row in rarest[:MAX_EXAMPLES]),
            "Train on recordings like those that will come." if more else "",
        )
    ]


def by_split(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records of each split that has any, in the order of the splits."""
    found = {split: [record for record in records if record.split == split] for split in SPLITS}
    return {str(split): rows for split, rows in found.items() if rows}
