"""Where the errors of a recogniser lie: by speaker, by slice, by utterance, by word; what the normaliser changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.slice_terms import SliceTerms
from lightning_transfer.evaluation.transcription_result import ChangedWord, Confusion, SpeakerScore, Utterance
from lightning_transfer.evaluation.transcription_texts import TextErrors
from lightning_transfer.metrics import Resamples
from lightning_transfer.speech import AudioSegment, Transcript
from lightning_transfer.types import Record

__all__ = ["changed_words", "find_word_confusions", "score_speakers", "slice_error_terms", "worst_utterances"]

_Float = NDArray[np.float64]
_Normalise = Callable[[str], str]

_WORST_SPEAKERS = 5
_UTTERANCES_OF_ONE = 3
_MOST_CONFUSIONS = 20
_EXAMPLES = 3


def score_speakers(
    records: Sequence[Record],
    transcripts: Sequence[Transcript],
    rows: Mapping[str, TextErrors],
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> tuple[SpeakerScore, ...]:
    """Return each speaker's errors, the highest WER first, of the worst ones with their worst utterances.

    Args:
        records: With a transcript each; those without a speaker are left out.
        transcripts: What was heard in them.
        rows: Recogniser -> its errors; ``""`` is the model.
        n_resamples: Draws of the utterances of each speaker.
        confidence: Of the intervals.
        seed: Of the draws.
        show_progress: Whether to show a bar.
    """
    places: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        if record.group is not None:
            places.setdefault(record.group, []).append(place)
    scores = []
    with progress("Speakers", len(places), show_progress) as bar:
        for name, own in places.items():
            scores.append(_score(name, own, rows, n_resamples, confidence, seed))
            bar.update(1)
    scores.sort(key=lambda item: (item.wer.value is None, -(item.wer.value or 0.0), item.speaker))
    for rank, score in enumerate(scores[:_WORST_SPEAKERS]):
        own = places[score.speaker]
        found = worst_utterances(records, transcripts, rows[""], _UTTERANCES_OF_ONE, own)
        scores[rank] = replace(score, worst=found)
    return tuple(scores)


def _score(
    name: str, places: list[int], rows: Mapping[str, TextErrors], n_resamples: int, confidence: float, seed: int
) -> SpeakerScore:
    drawn: dict[str, Resamples] = {}
    for key, row in rows.items():
        words, characters = row.words, row.characters
        sums = [item[places] for item in (words.errors, words.lengths, characters.errors, characters.lengths)]

        def statistic(weights: _Float, sums: list[NDArray[np.int64]] = sums) -> dict[str, _Float]:
            return {
                "wer": metrics.error_rate(sums[0], sums[1], weights),
                "cer": metrics.error_rate(sums[2], sums[3], weights),
            }

        drawn[key] = metrics.resample(statistic, range(len(places)), n_resamples=n_resamples, seed=seed)
    why = "no reference of this speaker has words"
    total = sum((rows[""].words.at(place) for place in places), metrics.ErrorCounts())
    ours, others = drawn[""], {key: item for key, item in drawn.items() if key}
    return SpeakerScore(
        speaker=name,
        n=len(places),
        words=total,
        wer=ours.interval("wer", confidence=confidence, reason=why),
        cer=ours.interval("cer", confidence=confidence, reason=why),
        baselines={key: item.interval("wer", confidence=confidence, reason=why) for key, item in others.items()},
        differences={
            key: ours.minus(item, ["wer"]).interval("wer", confidence=confidence, reason=why)
            for key, item in others.items()
        },
    )


def slice_error_terms(errors: TextErrors) -> SliceTerms:
    """Return what the error rates of any part of the utterances are made from, for `slice_records`."""
    words, characters = errors.words, errors.characters
    counts = (words.substitutions, words.insertions, words.deletions, words.lengths)
    values = np.stack([*counts, characters.errors, characters.lengths], axis=1).astype(np.float64)

    def read(sums: _Float) -> dict[str, _Float]:
        substitutions, insertions, deletions, length, wrong, letters = sums.T
        return {
            "wer": _rate(substitutions + insertions + deletions, length),
            "cer": _rate(wrong, letters),
            "substitution_rate": _rate(substitutions, length),
            "insertion_rate": _rate(insertions, length),
            "deletion_rate": _rate(deletions, length),
        }

    names = ("wer", "cer", "substitution_rate", "insertion_rate", "deletion_rate")
    return SliceTerms(
        values=values,
        read=read,
        about={},
        reasons={name: "no reference has words" for name in names},
        ranking=None,
        classes=np.zeros((len(values), 0), dtype=bool),
        names=names,
        shares=frozenset(),
        higher_is_worse=True,
    )


def _rate(errors: _Float, lengths: _Float) -> _Float:
    return np.asarray(np.divide(errors, lengths, out=np.full(errors.shape, np.nan), where=lengths > 0))


def worst_utterances(
    records: Sequence[Record],
    transcripts: Sequence[Transcript],
    errors: TextErrors,
    most: int,
    places: Sequence[int] | None = None,
) -> tuple[Utterance, ...]:
    """Return the utterances with most errors, of equal ones those with the higher rate first, and none without errors.

    Args:
        records: With a transcript each.
        transcripts: What was heard in them.
        errors: With alignments.
        most: Utterances to return.
        places: Of these alone.
    """
    counts = {place: errors.words.at(place) for place in (range(len(records)) if places is None else places)}
    wrong = [place for place, item in counts.items() if item.errors]
    wrong.sort(key=lambda place: (-counts[place].errors, counts[place].length, place))
    return tuple(_utterance(records[place], transcripts[place], errors, place) for place in wrong[:most])


def _utterance(record: Record, transcript: Transcript, errors: TextErrors, place: int) -> Utterance:
    segment = record.input if isinstance(record.input, AudioSegment) else AudioSegment(str(record.input))
    known = segment.duration if segment.duration is not None else record.meta.get("duration")
    return Utterance(
        id=record.id,
        path=segment.path,
        start=segment.start,
        duration=float(known) if isinstance(known, int | float) else None,
        channel=segment.channel,
        speaker=record.group,
        reference=str(record.label),
        hypothesis=transcript.text,
        parts=errors.parts[place],
        counts=errors.words.at(place),
        confidence=transcript.confidence,
        problem=transcript.problem,
    )


def find_word_confusions(records: Sequence[Record], errors: TextErrors) -> tuple[Confusion, ...]:
    """Return which word is taken for which other, the most frequent first, at most 20.

    Args:
        records: Of the alignments.
        errors: With alignments.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for record, parts in zip(records, errors.parts, strict=True):
        for part in parts:
            if part.kind == "substitute":
                for pair in zip(part.reference, part.hypothesis, strict=True):
                    found.setdefault(pair, []).append(record.id)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))[:_MOST_CONFUSIONS]
    return tuple(
        Confusion(said, heard, len(ids), tuple(dict.fromkeys(ids))[:_EXAMPLES]) for (said, heard), ids in ordered
    )


def changed_words(references: Sequence[str], hypotheses: Sequence[str], normalise: _Normalise) -> list[ChangedWord]:
    """Return what the normaliser makes of words that it changes, the most frequent first.

    Where it treats each word by itself, as most do, these are single words. Where words become others together
    (``twenty five`` -> ``25``), the shortest run of them is one change.

    Args:
        references: As they were read.
        hypotheses: As they were decoded.
        normalise: The scoring normaliser.

    Example:
        >>> [(item.before, item.after) for item in changed_words(["Yes, Sir"], ["yes sir"], str.casefold)]
        [('Sir', 'sir'), ('Yes,', 'yes,')]
    """
    of_word = lru_cache(maxsize=None)(normalise)  # most words come again and again
    counts: list[Counter[tuple[str, str]]] = []
    for texts in (references, hypotheses):
        found: Counter[tuple[str, str]] = Counter()
        for text, number in Counter(texts).items():
            for change in _changes_of(text, normalise, of_word):
                found[change] += number
        counts.append(found)
    total = counts[0] + counts[1]
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return [
        ChangedWord(before, after, counts[0][before, after], counts[1][before, after]) for (before, after), _ in ordered
    ]


def _changes_of(text: str, normalise: _Normalise, of_word: _Normalise) -> list[tuple[str, str]]:
    whole = " ".join(normalise(text).split())
    single = [(word, " ".join(of_word(word).split())) for word in text.split()]
    if " ".join(after for _, after in single if after) == whole:
        return [(before, after) for before, after in single if before != after]
    found: list[tuple[str, str]] = []
    before: list[str] = []
    after: list[str] = []
    for part in metrics.align(text, whole):
        if part.kind == "equal":
            found += _together(before, after)
            before, after = [], []
        else:
            before += part.reference
            after += part.hypothesis
    return found + _together(before, after)


def _together(before: list[str], after: list[str]) -> list[tuple[str, str]]:
    if len(before) == len(after):
        return list(zip(before, after, strict=True))
    return [(" ".join(before), " ".join(after))]
