"""What an evaluation of recognised speech found, frozen: tables and reports are made from it and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_transfer.evaluation.results import named_rows, plain_rows, write_metrics
from lightning_transfer.evaluation.slices import SliceTable
from lightning_transfer.metrics import AlignedPart, ErrorCounts, Interval

__all__ = ["ChangedWord", "Confusion", "KeywordScore", "SpeakerScore", "TranscriptionResult", "Utterance"]


@dataclass(frozen=True)
class Utterance:
    """One record beside what was recognised in it.

    Attributes:
        id: Of the record.
        path: Of the file, as text.
        start: Where the record begins in it, in seconds.
        duration: Its length, in seconds; None if unknown.
        channel: Of a file with several, or ``mix``.
        speaker: None if unknown.
        reference: As it was read.
        hypothesis: As it was decoded.
        parts: The alignment of both after the scoring normaliser, in words.
        counts: Words of that alignment.
        confidence: Of the recogniser; None where there is none.
        problem: What the recogniser found wrong with its own text; empty if nothing.
    """

    id: str
    path: str
    start: float
    duration: float | None
    channel: int | str
    speaker: str | None
    reference: str
    hypothesis: str
    parts: tuple[AlignedPart, ...]
    counts: ErrorCounts
    confidence: float | None = None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``wer`` is None for an empty reference."""
        parts = [
            {"kind": part.kind, "reference": list(part.reference), "hypothesis": list(part.hypothesis)}
            for part in self.parts
        ]
        return {**asdict(self), "parts": parts, "counts": asdict(self.counts), "wer": self.counts.rate}


@dataclass(frozen=True)
class SpeakerScore:
    """How well one speaker is recognised.

    Attributes:
        speaker: Name.
        n: Utterances.
        words: Words, with what became of them.
        wer: Its interval draws the speaker's utterances.
        cer: As ``wer``.
        baselines: Baseline -> its WER on the same utterances.
        differences: Baseline -> WER of the model minus that of the baseline, on the same draws.
        worst: The utterances with most errors; for the worst speakers alone.
    """

    speaker: str
    n: int
    words: ErrorCounts
    wer: Interval
    cer: Interval
    baselines: Mapping[str, Interval] = field(default_factory=dict)
    differences: Mapping[str, Interval] = field(default_factory=dict)
    worst: tuple[Utterance, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "speaker": self.speaker,
            "n": self.n,
            "words": asdict(self.words),
            "wer": self.wer.to_dict(),
            "cer": self.cer.to_dict(),
            "baselines": {name: item.to_dict() for name, item in self.baselines.items()},
            "differences": {name: item.to_dict() for name, item in self.differences.items()},
            "worst": [item.to_dict() for item in self.worst],
        }


@dataclass(frozen=True)
class KeywordScore:
    """How often a keyword was recognised.

    Attributes:
        keyword: After the scoring normaliser.
        said: Times that it was said.
        recognised: Times of these that it was recognised.
        false_alarms: Times that it was recognised and not said.
        recall: Share of the times that it was said, with interval.
    """

    keyword: str
    said: int
    recognised: int
    false_alarms: int
    recall: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "recall": self.recall.to_dict()}


@dataclass(frozen=True)
class Confusion:
    """A word that was taken for another one.

    Attributes:
        said: In the reference.
        heard: In the hypothesis.
        n: How often.
        examples: Ids of a few utterances.
    """

    said: str
    heard: str
    n: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class ChangedWord:
    """What the scoring normaliser made of a word, or of a few in a row.

    Attributes:
        before: As it was written.
        after: As it is compared; may be empty.
        in_references: Times in references.
        in_hypotheses: Times in what was recognised.
    """

    before: str
    after: str
    in_references: int
    in_hypotheses: int


@dataclass(frozen=True)
class TranscriptionResult:
    """The word and character errors of a recogniser on one split, beside those of its baselines.

    Attributes:
        metrics: Name -> value with interval, ``wer`` first.
        n: Utterances with a transcript to compare with.
        num_groups: Speakers; an utterance without a speaker counts as one.
        words: All words after the scoring normaliser, with what became of them.
        characters: All characters likewise.
        normaliser: Name of the scoring normaliser.
        seconds_of_audio: Judged, together.
        num_unlabelled: Utterances that were run and have no transcript.
        num_empty: Utterances whose reference has no words after the scoring normaliser.
        num_problems: Problem -> utterances in which the recogniser found it.
        baselines: Name -> the same metrics of another recogniser on the same utterances; undefined, with the reason,
            where it cannot be run.
        differences: Baseline -> metric -> model minus baseline, paired.
        descriptions: Baseline -> what it is and what was chosen for it.
        speakers: Each of them, the highest WER first; empty where none is known.
        slices: The WER on parts of the records; None where it was not asked for.
        keywords: Each of the keywords that were asked for.
        worst: The utterances with most errors, with alignments.
        confusions: Which word is taken for which other, the most frequent first.
        normalised: What the scoring normaliser changed, the most frequent first.
        num_normalised: Different changes in all, of which ``normalised`` holds the first.
        notes: What must be known to read the numbers.
        n_resamples: Of the bootstrap.
        confidence: Of the intervals.
        seconds: What each part of the evaluation took.
    """

    metrics: Mapping[str, Interval]
    n: int
    num_groups: int
    words: ErrorCounts
    characters: ErrorCounts
    normaliser: str
    seconds_of_audio: float = 0.0
    num_unlabelled: int = 0
    num_empty: int = 0
    num_problems: Mapping[str, int] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    speakers: tuple[SpeakerScore, ...] = ()
    slices: SliceTable | None = None
    keywords: tuple[KeywordScore, ...] = ()
    worst: tuple[Utterance, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    normalised: tuple[ChangedWord, ...] = ()
    num_normalised: int = 0
    notes: tuple[str, ...] = ()
    n_resamples: int = 2000
    confidence: float = 0.95
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The metric to look at first."""
        return "wer"

    def flat(self) -> dict[str, dict[str, Any]]:
        """Return everything as ``{name: {value, low, high, n, num_groups, reason}}``.

        Baselines appear as ``wer_of_pretrained``, differences as ``wer_minus_pretrained``. Of speakers and slices there
        is one line each, the worst; `to_dict` has them whole.
        """
        named = {**self.metrics, **self._worst_speaker(), **self._worst_slice()}
        named |= named_rows(self.baselines, self.differences)
        return {name: item.to_dict() for name, item in named.items()}

    def _worst_speaker(self) -> dict[str, Interval]:
        judged = [item for item in self.speakers if item.wer.value is not None]
        if len(judged) < 2:
            return {}
        why = f"speaker `{judged[0].speaker}`: the highest of {len(judged)}, by chance high too"
        return {"wer_worst_speaker": replace(judged[0].wer, reason=why)}

    def _worst_slice(self) -> dict[str, Interval]:
        if self.slices is None or not self.slices.worst:
            return {}
        worst = self.slices.worst[0]
        why = f"`{worst.column}` is `{worst.value}`: the highest of {len(self.slices.worst)} slices, by chance high too"
        return {"wer_worst_slice": replace(worst.metrics["wer"], reason=why)}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain lists, dicts, numbers and strings, free of NaN."""
        table = self.slices or SliceTable("wer", higher_is_worse=True)
        return {
            "task": "transcription",
            "headline": self.headline,
            "n": self.n,
            "num_groups": self.num_groups,
            "metrics": {name: item.to_dict() for name, item in self.metrics.items()},
            "words": asdict(self.words),
            "characters": asdict(self.characters),
            "normaliser": self.normaliser,
            "seconds_of_audio": self.seconds_of_audio,
            "num_unlabelled": self.num_unlabelled,
            "num_empty": self.num_empty,
            "num_problems": dict(self.num_problems),
            **plain_rows(self.baselines, self.differences),
            "descriptions": dict(self.descriptions),
            "speakers": [item.to_dict() for item in self.speakers],
            "slices": [item.to_dict() for item in table.slices],
            "slices_left_out": dict(table.left_out),
            "slices_note": table.note,
            "keywords": [item.to_dict() for item in self.keywords],
            "worst": [item.to_dict() for item in self.worst],
            "confusions": [{**asdict(item), "examples": list(item.examples)} for item in self.confusions],
            "normalised": [asdict(item) for item in self.normalised],
            "num_normalised": self.num_normalised,
            "notes": list(self.notes),
            "n_resamples": self.n_resamples,
            "confidence": self.confidence,
            "seconds": dict(self.seconds),
        }

    def write_json(self, path: str | Path) -> Path:
        """Write `flat` as ``metrics.json``; see `write_metrics`."""
        return write_metrics(path, self.flat())
