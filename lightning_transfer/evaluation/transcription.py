"""Judge recognised speech: word and character errors with intervals over speakers, beside other recognisers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.judges import open_end
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.slices import MIN_GROUPS, slice_records
from lightning_transfer.evaluation.transcription_parts import (
    changed_words,
    find_word_confusions,
    score_speakers,
    slice_error_terms,
    worst_utterances,
)
from lightning_transfer.evaluation.transcription_result import ChangedWord, KeywordScore, TranscriptionResult
from lightning_transfer.evaluation.transcription_texts import TextErrors, compare_texts
from lightning_transfer.metrics import Interval, KeywordCounts, Resamples
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Record, Schema

__all__ = ["COMPARED", "RecogniserOutputs", "evaluate_transcription"]

_log = logging.getLogger(__name__)
_Float = NDArray[np.float64]

COMPARED = ("wer", "cer", "substitution_rate", "insertion_rate", "deletion_rate", "sentence_error_rate", "wer_raw")
"""Metrics whose paired difference to each baseline is reported, and ``keyword_recall``."""

_SHARES = ("sentence_error_rate", "blank_share", "keyword_recall")
_MOST_CHANGES = 200


@dataclass(frozen=True)
class RecogniserOutputs:
    """Another recogniser's row beside the model, or why there is none.

    Attributes:
        transcripts: What it heard in the same records; None where it cannot be run.
        description: What it is, and what was chosen for it; or why it cannot be run.
        seconds: That it took; None if nothing was measured.
    """

    transcripts: Sequence[Transcript] | None
    description: str
    seconds: float | None = None


@dataclass(frozen=True)
class _Judged:
    """One recogniser's errors in the utterances that have a transcript."""

    scored: TextErrors
    raw: TextErrors
    keywords: Mapping[str, KeywordCounts]

    def statistic(self, weights: _Float) -> dict[str, _Float]:
        """Return the metrics of weights ``(B, N)``: sums of errors over sums of words."""
        words, characters = self.scored.words, self.scored.characters
        has_words = words.lengths > 0
        found = {
            "wer": metrics.error_rate(words.errors, words.lengths, weights),
            "cer": metrics.error_rate(characters.errors, characters.lengths, weights),
            "wer_raw": metrics.error_rate(self.raw.words.errors, self.raw.words.lengths, weights),
            "cer_raw": metrics.error_rate(self.raw.characters.errors, self.raw.characters.lengths, weights),
            "substitution_rate": metrics.error_rate(words.substitutions, words.lengths, weights),
            "insertion_rate": metrics.error_rate(words.insertions, words.lengths, weights),
            "deletion_rate": metrics.error_rate(words.deletions, words.lengths, weights),
            "sentence_error_rate": metrics.error_rate(words.errors > 0, np.ones(len(has_words)), weights),
            "blank_share": metrics.error_rate(has_words & self.scored.silent, has_words, weights),
        }
        if self.keywords:
            recognised = sum(item.recognised for item in self.keywords.values())
            said = sum(item.said for item in self.keywords.values())
            found["keyword_recall"] = metrics.error_rate(recognised, said, weights)
            for keyword, item in self.keywords.items():
                found[f"keyword {keyword}"] = metrics.error_rate(item.recognised, item.said, weights)
        return found

    def about(self, name: str) -> NDArray[np.bool_]:
        """Return the utterances ``(N,)`` that a metric is about."""
        if name == "blank_share":
            return np.asarray(self.scored.words.lengths > 0)
        if name == "keyword_recall":
            return np.asarray(sum(item.said for item in self.keywords.values()) > 0)
        if name.startswith("keyword "):
            return np.asarray(self.keywords[name.removeprefix("keyword ")].said > 0)
        return np.ones(len(self.scored.silent), dtype=bool)


def evaluate_transcription(
    transcripts: Sequence[Transcript],
    records: Sequence[Record],
    schema: Schema,
    *,
    normalise: Callable[[str], str],
    normaliser: str = "",
    baselines: Mapping[str, RecogniserOutputs] | None = None,
    keywords: Sequence[str] = (),
    slices: Sequence[str] | Literal["all"] = "all",
    decoding_seconds: float | None = None,
    device: str = "",
    seconds: Mapping[str, float] | None = None,
    most_worst: int = 20,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> TranscriptionResult:
    """Return all that is said of a recogniser on one split, with intervals by bootstrap over speakers.

    ``wer`` and ``cer`` compare words and characters after the scoring normaliser, ``wer_raw`` and ``cer_raw`` the texts
    as they are. All rates are errors of all utterances over words of all references, so long utterances count as much
    as they are long; one above 1 stays so. ``substitution_rate``, ``insertion_rate`` and ``deletion_rate`` add up to
    ``wer``. A reference without words has no rate of its own; the words that are recognised in it count as insertions.
    ``sentence_error_rate`` is the share of utterances with any error, ``blank_share`` that of utterances with words in
    which nothing was recognised, ``keyword_recall`` that of all keywords said that were recognised.
    ``real_time_factor`` is seconds of decoding over seconds of sound.

    An interval draws whole speakers: utterances of one resemble each other. That of one speaker alone draws the
    speaker's utterances.

    Args:
        transcripts: What was heard, one a record.
        records: All records of that split, in order: ``Transcript.index`` points into them.
        schema: Of the data that the model was trained on.
        normalise: The scoring normaliser; it is applied to references, hypotheses and keywords.
        normaliser: Its name.
        baselines: Other recognisers on the same records.
        keywords: Words or phrases that matter.
        slices: Columns to cut the records by; ``all`` takes every column.
        decoding_seconds: That the transcripts took; None: there is no real-time factor.
        device: That they were made on.
        seconds: What else took how long, to be kept with the result.
        most_worst: Utterances to show with their alignments.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
        show_progress: Whether to show a bar.

    Raises:
        TransferError: If no record has a transcript, or transcripts and records do not belong together.
        ValueError: If a keyword has no letters after the normaliser.
    """
    heard = _by_record(transcripts, records)
    places = [place for place in heard if isinstance(records[place].label, str)]
    if not places:
        raise TransferError(f"None of the {len(heard)} records has a transcript, so there is nothing to compare with.")
    judged = [records[place] for place in places]
    references = [str(record.label) for record in judged]
    wanted = _keywords(keywords, normalise)
    rows = {"": _judge(references, [heard[place].text for place in places], normalise, wanted)}
    given = baselines or {}
    for name, row in given.items():
        if row.transcripts is not None:
            theirs = _by_record(row.transcripts, records)
            if any(place not in theirs for place in places):
                raise TransferError(f"The baseline `{name}` was run on other records than the model. Use the same.")
            rows[name] = _judge(references, [theirs[place].text for place in places], normalise, wanted)

    speakers = [record.group for record in judged]
    drawn: dict[str, Resamples] = {}
    with progress("Bootstrap", len(rows) * n_resamples, show_progress) as bar:
        for name, found in rows.items():
            drawn[name] = metrics.resample(
                found.statistic, speakers, n_resamples=n_resamples, seed=seed, on_chunk=bar.update
            )
    tables = {name: _intervals(drawn[name], rows[name], confidence) for name in rows}
    compared = [name for name in (*COMPARED, "keyword_recall") if name in drawn[""].point]
    differences = {
        name: {key: drawn[""].minus(drawn[name], compared).interval(key, confidence=confidence) for key in compared}
        for name in given
        if name in drawn
    }
    ours, audio = rows[""].scored, sum(heard[place].seconds for place in places)
    table = tables.pop("")
    per_keyword = {name: table.pop(name) for name in list(table) if name.startswith("keyword ")}
    changes, num_changes = _changes(references, [heard[place].text for place in places], normalise)
    return TranscriptionResult(
        metrics={**table, **_speed(decoding_seconds, [item.seconds for item in heard.values()], device)},
        n=len(judged),
        num_groups=int(drawn[""].codes.max()) + 1,
        words=ours.words.total,
        characters=ours.characters.total,
        normaliser=normaliser,
        seconds_of_audio=audio,
        num_unlabelled=len(heard) - len(judged),
        num_empty=int((ours.words.lengths == 0).sum()),
        num_problems=_problems([heard[place] for place in places]),
        baselines={name: tables.get(name, _undefined(table, row)) for name, row in given.items()},
        differences=differences,
        descriptions={name: row.description for name, row in given.items()},
        speakers=score_speakers(
            judged,
            [heard[place] for place in places],
            {name: row.scored for name, row in rows.items()},
            n_resamples=n_resamples,
            confidence=confidence,
            seed=seed,
            show_progress=show_progress,
        ),
        slices=slice_records(
            judged,
            slice_error_terms(ours),
            schema,
            columns=slices,
            n_resamples=n_resamples,
            confidence=confidence,
            seed=seed,
            show_progress=show_progress,
        ),
        keywords=tuple(_keyword(name, rows[""], per_keyword[f"keyword {name}"]) for name in wanted),
        worst=worst_utterances(judged, [heard[place] for place in places], ours, most_worst),
        confusions=find_word_confusions(judged, ours),
        normalised=tuple(changes),
        num_normalised=num_changes,
        notes=_notes(judged, drawn[""], ours),
        n_resamples=n_resamples,
        confidence=confidence,
        seconds=dict(seconds or {}),
    )


def _by_record(transcripts: Sequence[Transcript], records: Sequence[Record]) -> dict[int, Transcript]:
    """Return each record's transcript, in the order of the records."""
    found = {item.index: item for item in transcripts}
    last = max(found, default=-1)
    if last >= len(records):
        raise TransferError(
            f"A transcript is of record {last}, and the split has {len(records)} records. Pass the records of the "
            "split that the model was run on."
        )
    if any(item.num_pieces > 1 for item in transcripts):
        raise TransferError("Some transcripts are of pieces of a record. Join them before: `join_transcripts`.")
    if len(found) < len(records):
        _log.warning("Evaluating %d of %d records: the others were not run.", len(found), len(records))
    return dict(sorted(found.items()))


def _judge(
    references: Sequence[str], hypotheses: Sequence[str], normalise: Callable[[str], str], keywords: Sequence[str]
) -> _Judged:
    before = [normalise(text) for text in references], [normalise(text) for text in hypotheses]
    return _Judged(
        compare_texts(*before),
        compare_texts(references, hypotheses, parts=False),
        metrics.keyword_counts(*before, keywords),
    )


def _keywords(keywords: Sequence[str], normalise: Callable[[str], str]) -> list[str]:
    """Return the keywords as they are compared, each once."""
    found: dict[str, None] = {}
    for keyword in keywords:
        name = " ".join(normalise(keyword).split())
        if not name:
            raise ValueError(f"The keyword {keyword!r} has no letters after the scoring normaliser. Leave it out.")
        found[name] = None
    return list(found)


_REASONS = {
    "wer": "no reference has words",
    "wer_raw": "no reference has words",
    "cer": "no reference has letters",
    "cer_raw": "no reference has letters",
    "substitution_rate": "no reference has words",
    "insertion_rate": "no reference has words",
    "deletion_rate": "no reference has words",
    "blank_share": "no reference has words",
    "keyword_recall": "no keyword is said",
}


def _intervals(drawn: Resamples, found: _Judged, confidence: float) -> dict[str, Interval]:
    table = {}
    for name in drawn.point:
        reason = _REASONS.get(name, "it is never said")
        item = drawn.interval(name, mask=found.about(name), confidence=confidence, reason=reason)
        is_share = name in _SHARES or name.startswith("keyword ")
        table[name] = open_end(item, confidence) if is_share else item
    return table


def _undefined(table: Mapping[str, Interval], row: RecogniserOutputs) -> dict[str, Interval]:
    """Return the metrics of a recogniser that cannot be run."""
    return {name: Interval(None, None, None, table[name].n, reason=row.description) for name in COMPARED}


def _speed(decoding: float | None, lengths: Sequence[float], device: str) -> dict[str, Interval]:
    if decoding is None:
        return {}
    audio = sum(lengths)
    where = f" on {device}" if device else ""
    if not audio:
        return {"real_time_factor": Interval(None, None, None, len(lengths), reason="there is no sound")}
    why = f"measured once{where}: {decoding:.2f} s for {audio:.1f} s of sound"
    return {"real_time_factor": Interval(decoding / audio, None, None, len(lengths), reason=why)}


def _keyword(name: str, found: _Judged, recall: Interval) -> KeywordScore:
    counts = found.keywords[name]
    return KeywordScore(
        name, int(counts.said.sum()), int(counts.recognised.sum()), int(counts.false_alarms.sum()), recall
    )


def _changes(
    references: Sequence[str], hypotheses: Sequence[str], normalise: Callable[[str], str]
) -> tuple[list[ChangedWord], int]:
    found = changed_words(references, hypotheses, normalise)
    return found[:_MOST_CHANGES], len(found)


def _problems(transcripts: Sequence[Transcript]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in transcripts:
        if item.problem:
            counts[item.problem] = counts.get(item.problem, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def _notes(records: Sequence[Record], drawn: Resamples, errors: TextErrors) -> tuple[str, ...]:
    notes = []
    unknown = sum(record.group is None for record in records)
    if unknown:
        notes.append(
            f"{unknown} of {len(records)} utterances have no speaker and count as one each: if a speaker has several, "
            "the intervals are too narrow."
        )
    speakers = int(drawn.codes.max()) + 1
    if speakers < MIN_GROUPS:
        notes.append(
            f"{speakers} speaker{'s' * (speakers != 1)}: with fewer than {MIN_GROUPS} an interval over speakers is "
            "too narrow, or there is none."
        )
    empty = errors.words.lengths == 0
    if empty.any():
        inserted = int(errors.words.insertions[empty].sum())
        notes.append(
            f"{int(empty.sum())} references have no words after the scoring normaliser: they have no rate of their "
            f"own, and the {inserted} words recognised in them count as insertions."
        )
    if errors.words.total.errors == 0 and errors.words.total.length:
        notes.append("There is no error, so every resample has none: the interval of 0 says less than it seems to.")
    return tuple(notes)
