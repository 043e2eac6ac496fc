"""What an evaluation of recognised speech found, as plain text for the terminal."""

from __future__ import annotations

from lightning_transfer.errors import listing
from lightning_transfer.evaluation.terminal import align, cell, signed
from lightning_transfer.evaluation.transcription_result import SpeakerScore, TranscriptionResult

__all__ = ["format_transcription"]

# With more speakers, keywords or words than these, a table of all of them is no longer read.
_MOST_SPEAKERS = 10
_MOST_KEYWORDS = 20
_MOST_WORDS = 10
_MOST_WORST = 5
_MOST_SLICES = 20
_LONGEST = 60  # letters of a text in a table
_BELOW = ("real_time_factor",)


def format_transcription(result: TranscriptionResult) -> str:
    """Return the result as aligned plain text.

    Every metric beside the baselines, the paired differences, speakers, keywords, which word is taken for which, the
    utterances with most errors, what the scoring normaliser changed, slices, and what must be known to read all this.

    Example:
        >>> from lightning_transfer.metrics import ErrorCounts, Interval
        >>> found = {"wer": Interval(0.25, 0.1, 0.5, n=10, num_groups=5)}
        >>> words, letters = ErrorCounts(30, 8, 0, 2), ErrorCounts(150, 10, 0, 2)
        >>> print(format_transcription(TranscriptionResult(found, 10, 5, words, letters, "basic", 62.0)))
        10 utterances (1.0 min) of 5 speakers, 95% intervals by bootstrap over speakers
        40 words: 30 right, 8 substituted, 0 inserted, 2 deleted (after the scoring normaliser `basic`)
        metric   n  model
        wer     10  0.250 [0.100, 0.500]
    """
    sections = (
        _head(result),
        _differences(result),
        _speakers(result),
        _keywords(result),
        _confusions(result),
        _worst(result),
        _normalised(result),
        _slices(result),
        [f"Note: {note}" for note in result.notes],
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _head(result: TranscriptionResult) -> list[str]:
    share, words = f"{100 * result.confidence:g}%", result.words
    speakers = f"{result.num_groups} speaker{'s' * (result.num_groups != 1)}"
    lines = [
        f"{result.n} utterances ({result.seconds_of_audio / 60:.1f} min) of {speakers}, {share} intervals by bootstrap "
        "over speakers",
        f"{words.length} words: {words.hits} right, {words.substitutions} substituted, {words.insertions} inserted, "
        f"{words.deletions} deleted{_after(result)}",
    ]
    rows: list[tuple[str, ...]] = [("metric", "n", "model", *result.baselines)]
    for name, item in result.metrics.items():
        if name not in _BELOW:
            # Why a baseline has no value stands once below.
            beside = (cell(found.get(name)) for found in result.baselines.values())
            rows.append((name, str(item.n), str(item), *beside))
    lines += align(rows, right=(1,))
    speed = result.metrics.get("real_time_factor")
    if speed is not None:
        value = "n/a" if speed.value is None else f"{speed.value:.4f}"
        lines.append(f"real_time_factor {value} ({speed.reason})")
    if result.num_problems:
        found = ", ".join(f"{problem} ({number})" for problem, number in result.num_problems.items())
        lines.append(f"The recogniser doubts itself in {sum(result.num_problems.values())} utterances: {found}")
    if result.num_unlabelled:
        lines.append(f"{result.num_unlabelled} utterances without a transcript are not judged")
    return lines


def _after(result: TranscriptionResult) -> str:
    return f" (after the scoring normaliser `{result.normaliser}`)" if result.normaliser else ""


def _differences(result: TranscriptionResult) -> list[str]:
    if not result.baselines:
        return []
    rows: list[tuple[str, ...]] = [("model minus", "wer", "cer", "")]
    for name in result.baselines:
        found = result.differences.get(name)
        about = result.descriptions.get(name, "")
        cells = ("n/a", "n/a") if found is None else (signed(found["wer"]), signed(found["cer"]))
        rows.append((name, *cells, about))
    return align(rows)


def _speakers(result: TranscriptionResult) -> list[str]:
    if not result.speakers:
        return []
    shown = result.speakers[:_MOST_SPEAKERS]
    others = [name for name in result.baselines if any(name in item.baselines for item in shown)]
    rows: list[tuple[str, ...]] = [
        ("speaker", "n", "words", "sub", "ins", "del", "wer", "cer", *(f"wer of {name}" for name in others))
    ]
    rows += [_speaker(item, others) for item in shown]
    hidden = len(result.speakers) - len(shown)
    title = "Speakers, the highest WER first; intervals by bootstrap over the speaker's utterances"
    more = [f"{hidden} more speakers in evaluation.json"] if hidden else []
    return [title, *align(rows, right=(1, 2, 3, 4, 5)), *more]


def _speaker(item: SpeakerScore, others: list[str]) -> tuple[str, ...]:
    words = item.words
    counts = (item.n, words.length, words.substitutions, words.insertions, words.deletions)
    beside = (cell(item.baselines.get(name)) for name in others)
    return (item.speaker, *map(str, counts), str(item.wer), str(item.cer), *beside)


def _keywords(result: TranscriptionResult) -> list[str]:
    if not result.keywords:
        return []
    ordered = sorted(result.keywords, key=lambda item: (item.recall.value is None, item.recall.value or 0.0))
    rows: list[tuple[str, ...]] = [("keyword", "said", "recognised", "false alarms", "recall")]
    for item in ordered[:_MOST_KEYWORDS]:
        counts = (item.said, item.recognised, item.false_alarms)
        rows.append((item.keyword, *map(str, counts), str(item.recall)))
    hidden = len(ordered) - _MOST_KEYWORDS
    more = [f"{hidden} more keywords in evaluation.json"] if hidden > 0 else []
    return ["Keywords, the lowest recall first", *align(rows, right=(1, 2, 3)), *more]


def _confusions(result: TranscriptionResult) -> list[str]:
    pairs = result.confusions[:_MOST_WORDS]
    if not pairs:
        return []
    rows: list[tuple[str, ...]] = [("said", "heard", "n", "such as")]
    rows += [(item.said, item.heard, str(item.n), listing(item.examples)) for item in pairs]
    shown = sum(item.n for item in pairs)
    title = f"Most frequent confusions: {shown} of {result.words.substitutions} substitutions"
    return [title, *align(rows, right=(2,))]


def _worst(result: TranscriptionResult) -> list[str]:
    if not result.worst:
        return []
    rows: list[tuple[str, ...]] = [("utterance", "errors", "words", "reference", "heard")]
    for item in result.worst[:_MOST_WORST]:
        counts = (str(item.counts.errors), str(item.counts.length))
        rows.append((item.id, *counts, _short(item.reference), _short(item.hypothesis) or "(nothing)"))
    title = "Utterances with most errors (alignments of more of them in evaluation.json)"
    return [title, *align(rows, right=(1, 2))]


def _normalised(result: TranscriptionResult) -> list[str]:
    if not result.normalised:
        return []
    shown = [
        f"{item.before!r} -> {item.after!r} ({item.in_references + item.in_hypotheses})"
        for item in result.normalised[:_MOST_WORDS]
    ]
    hidden = result.num_normalised - len(shown)
    more = f", and {hidden} more" if hidden else ""
    return [f"The scoring normaliser changed {result.num_normalised} different words: {', '.join(shown)}{more}"]


def _slices(result: TranscriptionResult) -> list[str]:
    """Small slices are shown too, and marked: with few speakers there are no others."""
    table = result.slices
    if table is None or not (table.slices or table.left_out):
        return []
    lines = [f"No slices by `{column}`: {reason}." for column, reason in table.left_out.items()]
    if not table.slices:
        return lines
    rows: list[tuple[str, ...]] = [("column", "value", "n", "speakers", "wer", "minus the rest", "")]
    for item in table.slices[:_MOST_SLICES]:
        mark = "small" if item.small else "stands out" if item.stands_out else ""
        cells = (item.column, item.value, str(item.n), str(item.num_groups), str(item.metrics["wer"]))
        rows.append((*cells, signed(item.difference), mark))
    hidden = len(table.slices) - _MOST_SLICES
    more = [f"{hidden} more slices in evaluation.json"] if hidden > 0 else []
    return ["Slices, the highest WER of each column first", *align(rows, right=(2, 3)), *more, table.note, *lines]


def _short(text: str) -> str:
    """Return a text of one line that no terminal takes for commands, cut where it is long."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 3]}..."
