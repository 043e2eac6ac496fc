"""Check transcripts before they are targets: characters that a model cannot write, texts too long for their sound."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.data.audit_audio import by_split
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import SPLITS, Record

__all__ = ["keyword_findings", "transcript_findings"]


def transcript_findings(records: Sequence[Record], spec: AudioPreprocessing) -> list[Finding]:
    """Return what is to be said of transcripts before they are targets.

    Args:
        records: With splits and ``meta["duration"]``.
        spec: With its vocabulary, if the model has one.

    Returns:
        ``transcript-lengths``, ``outside-vocabulary``, ``too-long-for-sound``, ``empty-after-normalising``,
        ``known-transcripts``.
    """
    told = [record for record in records if isinstance(record.label, str)]
    if not told:
        return []
    texts = {record.id: spec.text(str(record.label)) for record in told}
    return [
        _texts(told, texts),
        *_outside(told, texts, spec),
        *_too_long(told, spec),
        *_empty(told, texts),
        *_known(told, texts),
    ]


def keyword_findings(
    records: Sequence[Record], keywords: Sequence[str], normalise: Callable[[str], str]
) -> list[Finding]:
    """Say how often the keywords are said in each split; those that are never tested are a warning.

    Args:
        records: With splits and transcripts.
        keywords: Words or phrases.
        normalise: Done to both before they are compared.

    Example:
        >>> rows = [Record("1", None, "Acme, please.", "train"), Record("2", None, "hello", "test")]
        >>> [finding] = keyword_findings(rows, ["acme"], lambda text: text.lower().replace(",", ""))
        >>> finding.severity, finding.count, finding.examples
        ('warning', 1, ('acme',))
    """
    if not keywords:
        return []
    wanted = {word: f" {normalise(word)} " for word in dict.fromkeys(keywords)}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        text = f" {normalise(str(record.label or ''))} "
        counts[str(record.split)].update({word: text.count(form) for word, form in wanted.items() if form in text})
    missing = [word for word in wanted if not counts["test"][word]]
    sums = ", ".join(f"{split} {sum(counts[split].values())}" for split in SPLITS if split in counts)
    said = f"{len(wanted)} keywords are said {sum(sum(c.values()) for c in counts.values())} times ({sums})"
    if missing:
        names = listing(f"`{word}`" for word in missing)
        said += f"; {len(missing)} of them never in `test`, so their recall cannot be measured: {names}"
    return [
        Finding(
            "keywords",
            "warning" if missing else "note",
            f"{said}.",
            len(missing),
            tuple(missing[:MAX_EXAMPLES]),
            "Bring test recordings in which they are said." if missing else "",
        )
    ]


def _texts(records: Sequence[Record], texts: Mapping[str, str]) -> Finding:
    words = np.array([len(texts[record.id].split()) for record in records])
    letters = np.array([len(texts[record.id]) for record in records])
    seconds = np.array([record.meta["duration"] for record in records])
    return Finding(
        "transcript-lengths",
        "note",
        f"{len(records)} transcripts of {words.min()} to {words.max()} words (median {np.median(words):.0f}),"
        f" {letters.sum() / max(1e-9, seconds.sum()):.1f} letters a second.",
        len(records),
    )


def _outside(records: Sequence[Record], texts: Mapping[str, str], spec: AudioPreprocessing) -> list[Finding]:
    """Count the characters that the model cannot write, with records that hold them."""
    if spec.vocabulary is None:
        return []
    total: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    holders = 0
    for record in records:
        found = spec.vocabulary.outside([texts[record.id]])
        total.update(found)
        holders += bool(found)
        for letter in found:
            examples.setdefault(letter, []).append(record.id)
    if not total:
        return []
    shown = [f"`{letter}` {count}" for letter, count in total.most_common()]
    many = holders > 0.05 * len(records)
    lost = "left out of the targets" if spec.vocabulary.unknown is None else f"`{spec.vocabulary.unknown}` in them"
    named = (f"{letter} ({listing(examples[letter], 3)})" for letter, _ in total.most_common(MAX_EXAMPLES))
    return [
        Finding(
            "outside-vocabulary",
            "warning" if many else "note",
            f"{holders} of {len(records)} transcripts have characters that the model cannot write"
            f" ({listing(shown, 12)}): they are {lost}, and count as errors in the score.",
            sum(total.values()),
            tuple(named),
            "Spell out numbers and signs in the transcripts, choose another `data.normaliser`, or give the model a new"
            " alphabet (`data.vocabulary: new`).",
        )
    ]


def _too_long(records: Sequence[Record], spec: AudioPreprocessing) -> list[Finding]:
    """Name transcripts that need more frames, or tokens, than there are; those of training are left out of it."""
    found = [record for record in records if spec.lacks_frames(str(record.label), record.meta["duration"])]
    if not found:
        return []
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in by_split(found).items())
    limit = "their sound has frames"
    if spec.vocabulary is None:
        limit = f"the {spec.max_label_tokens} tokens that the model writes of one recording"
    return [
        Finding(
            "too-long-for-sound",
            "warning",
            f"{len(found)} of {len(records)} transcripts are longer than {limit} ({counts}): they cannot be written,"
            " whatever is heard.",
            len(found),
            tuple(f"{row.id} ({len(str(row.label))} letters in {row.meta['duration']:.2f} s)" for row in found[:20]),
            "Listen to a few: transcripts and files may be mixed up, or the sound cut off.",
        )
    ]


def _empty(records: Iterable[Record], texts: Mapping[str, str]) -> list[Finding]:
    found = [record for record in records if not texts[record.id]]
    if not found:
        return []
    return [
        Finding(
            "empty-after-normalising",
            "note",
            f"{len(found)} transcripts have nothing left after normalising ({listing(str(r.label) for r in found)}):"
            " they have no word error rate.",
            len(found),
            tuple(record.id for record in found[:MAX_EXAMPLES]),
        )
    ]


def _known(records: Sequence[Record], texts: Mapping[str, str]) -> list[Finding]:
    """Say how much of what is tested is said in training too: a model may learn phrases by heart."""
    rows = by_split(records)
    taught = {texts[record.id] for record in rows.get("train", [])}
    tested = rows.get("test", [])
    known = [record for record in tested if texts[record.id] in taught]
    if not known:
        return []
    return [
        Finding(
            "known-transcripts",
            "note",
            f"{len(known)} of {len(tested)} test transcripts ({len(known) / len(tested):.0%}) are word for word in"
            " `train` too: the score is about known phrases by other voices.",
            len(known),
            tuple(f"{record.id} ({texts[record.id]})" for record in known[:MAX_EXAMPLES]),
            "Fine where callers say fixed phrases; else test on other sentences.",
        )
    ]
