"""The verdict on a recogniser in three sentences: did adapting help, what did general speech lose, where to look?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.numbers import BASELINES, count, interval, metric_label, number, signed, usable
from lightning_transfer.reporting.retention import retention_sentence
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.verdict import FEW_GROUPS, Verdict, compare, verdict

__all__ = ["general_sentence", "speech_verdict", "verdict_of"]

Item = Mapping[str, Any]

_MOST_HINTS = 4
_KINDS = {
    "deletions": "deletions, words that were not heard",
    "insertions": "insertions, words that nobody said",
    "substitutions": "substitutions, words that were taken for others",
}


def verdict_of(run: RunFiles, scores: Scores | None, forgetting: Forgetting) -> Verdict:
    """Return the verdict on a run, of whatever task."""
    if run.task == "transcription":
        return speech_verdict(run, scores, forgetting)
    if run.task == "segmentation":
        from lightning_transfer.reporting.segmentation import segmentation_verdict  # which knows more than verdicts

        return segmentation_verdict(run, scores, forgetting)
    return verdict(scores, forgetting, command=run.command, num_tests=run.num_tests)


def speech_verdict(run: RunFiles, scores: Scores | None, forgetting: Forgetting) -> Verdict:
    """Compose the verdict on a recogniser from what was measured; what was not measured is said.

    Args:
        run: Its evaluation says where the errors lie.
        scores: Of the test; None before it.
        forgetting: Of the fit.
    """
    test = f"`{run.command} test RUN`"
    general = general_sentence(run, forgetting)
    if scores is None:
        first = f"Not measured: the test split was not read yet; run {test}."
        last = f"Where the errors lie is not known before the test; run {test}."
        return Verdict((first, general, last), (), "open")
    sentence, tone = _adapting(run, scores, test)
    return Verdict((sentence, general, _look(run, scores)), tuple(_notes(run, scores)), tone)


def general_sentence(run: RunFiles, forgetting: Forgetting) -> str:
    """Return what became of general speech, and whether the budget for that was kept.

    Example:
        >>> parts = {"before": {"value": 0.05, "low": 0.03, "high": 0.07}, "after": {"value": 0.08},
        ...          "change": {"value": 0.03, "low": 0.01, "high": 0.05}}
        >>> print(general_sentence(RunFiles("x"), Forgetting({"source wer": parts})))
        General speech got worse: WER 0.050 [0.030, 0.070] before and 0.080 after, paired difference +0.030
        [+0.010, +0.050].
    """
    found = {name: parts for name, parts in forgetting.sources.items() if name.endswith("wer")}
    chosen = retention_sentence(run, forgetting)
    also = f" {chosen}" if chosen else ""
    if forgetting.frozen and not found:
        return f"What of general speech was lost: the features stayed as they were, as the backbone was frozen.{also}"
    if not found:
        return (
            "What of general speech was lost is not measured: name a general set (`data.general_file`) and let "
            "`lightning_transfer.ForgettingMonitor` listen to it (`probe: general`, `metrics: [wer]`)." + also
        )
    return f"{' '.join(_general(name, parts) for name, parts in found.items())}{also}"


def _general(name: str, parts: Mapping[str, Item]) -> str:
    probe = name.removeprefix("source").removesuffix("wer").strip()
    what = f"General speech ({probe})" if probe else "General speech"
    before, after, change = (parts.get(part) or {} for part in ("before", "after", "change"))
    if usable(after.get("value")) is None:
        why = str(after.get("reason") or "not measured after the fit")
        return f"{what}: WER {interval(before)} before; what it is after is not known ({why})."
    facts = f"WER {interval(before)} before and {number(after.get('value'))} after, paired difference {signed(change)}"
    said = {
        "worse": f"{what} got worse: {facts}.",
        "better": f"{what} got no worse: {facts}.",
        "open": f"No sure loss on general speech{f' ({probe})' if probe else ''}: {facts}, which includes 0.",
    }
    return said.get(compare(change, "wer"), f"{what}: {facts}.")


def _adapting(run: RunFiles, scores: Scores, test: str) -> tuple[str, str]:
    """Say whether the recogniser is better than it was, and what it is beside others."""
    own = scores.metrics.get("wer")
    if usable((own or {}).get("value")) is None:
        return f"The score is not known: WER is {interval(own)}.", "open"
    groups = scores.num_groups
    speakers = "" if not groups or groups == scores.n else f" of {groups} speaker{'s' * (groups != 1)}"
    on = f"on {count(scores.n)} test utterances{speakers}"
    before = scores.baselines.get("pretrained", {}).get("wer")
    if usable((before or {}).get("value")) is None:
        reason = (before or {}).get("reason")
        why = f"what it was before adapting could not be measured: {reason}" if reason else (
            f"what it was before adapting is not measured; run {test} with `--evaluation.baselines '[pretrained]'`"
        )  # fmt: skip
        return f"WER {interval(own)} {on}; {str(why).rstrip('.')}.", "open"
    difference = scores.differences.get("pretrained", {}).get("wer")
    facts = f"WER {interval(before)} before and {interval(own)} after {on}"
    shown = compare(difference, "wer")
    if shown == "unknown":
        reason = str((difference or {}).get("reason") or "no paired difference was computed").rstrip(".")
        return f"Adapting is not shown to help: {facts}; {reason}.", "open"
    paired = f"{facts}, paired difference {signed(difference)}"
    if shown == "open":
        return f"Adapting is not shown to help: {paired}, which includes 0.", "open"
    if shown == "worse":
        return f"Adapting made it worse: {paired}.", "worse"
    beaten_by = [
        BASELINES.get(name, name)
        for name, row in scores.differences.items()
        if name != "pretrained" and compare(row.get("wer"), "wer") != "better"
    ]
    if beaten_by:
        return f"Adapting helps: {paired}; not shown to be better than: {', '.join(beaten_by)}.", "open"
    return f"Adapting helps: {paired}.", "better"


def _look(run: RunFiles, scores: Scores) -> str:
    """Say where a reader should look first."""
    words = run.evaluation.get("words") or {}
    if words and not any(words.get(kind) for kind in _KINDS):
        return "No word was wrong: the test split may be too easy, or too small, to tell recognisers apart."
    hints = [hint for _, hint in zip(range(_MOST_HINTS), _hints(run, scores), strict=False)]
    if not hints:
        return "Where the errors lie was not measured."
    return f"Look first at: {'; '.join(hints)}."


def _hints(run: RunFiles, scores: Scores) -> Iterator[str]:
    silent = scores.metrics.get("blank_share") or {}
    if usable(silent.get("value")):
        missing = round(float(silent["value"]) * (silent.get("n") or 0))
        yield f"the {missing} of {silent.get('n')} utterances in which nothing was heard"
    speakers = list(run.evaluation.get("speakers") or ())
    if len(speakers) > 1 and usable((speakers[0].get("wer") or {}).get("value")):
        row = speakers[0]
        yield f"speaker “{row.get('speaker')}”, WER {interval(row.get('wer'))} on {row.get('n')} utterances"
    for row in scores.slices:
        difference = usable((row.get("difference") or {}).get("value")) or 0.0
        if row.get("stands_out") and difference > 0 and not row.get("small"):
            wer = (row.get("metrics") or {}).get("wer")
            yield f"{row.get('column')} “{row.get('value')}”, WER {interval(wer)} on {row.get('n')} utterances"
            break
    words = run.evaluation.get("words") or {}
    errors = {kind: words.get(kind) or 0 for kind in _KINDS}
    most, total = max(errors, key=lambda kind: errors[kind]), sum(errors.values())
    if total and errors[most] > 0.6 * total and most != "substitutions":
        yield f"{_KINDS[most]}: {errors[most]} of {total} errors"
    keywords = [row for row in run.evaluation.get("keywords") or () if row.get("said")]
    worst = min(keywords, key=lambda row: (row.get("recognised") or 0) / row["said"], default=None)
    if worst is not None and (worst.get("recognised") or 0) < worst["said"]:
        yield f"the keyword “{worst.get('keyword')}”, recognised {worst.get('recognised')} of {worst['said']} times"
    for row in (run.evaluation.get("confusions") or ())[:1]:
        if (row.get("n") or 0) > 1:
            yield f"“{row.get('said')}” taken for “{row.get('heard')}” {row.get('n')} times"


def _notes(run: RunFiles, scores: Scores) -> Iterator[str]:
    """Yield what speaks against reading more into the numbers."""
    said = [str(note) for note in run.evaluation.get("notes") or ()]
    if not said and scores.num_groups is not None and 0 < scores.num_groups < FEW_GROUPS:
        yield f"Few data: with {scores.num_groups} speakers the intervals are rather too narrow than too wide."
    yield from said
    own = usable((scores.metrics.get("wer") or {}).get("value"))
    if own is not None and own > 1:
        yield "The WER is above 1: there are more errors than words that were said."
    elif own is not None and own > 0.5:
        yield "More than half of the words are wrong: better than before is not yet good enough to read."
    for name in ("cer", "keyword_recall"):
        item = scores.differences.get("pretrained", {}).get(name)
        if compare(item, name) == "worse":
            yield f"By {metric_label(name)} it was better before adapting: now minus before {signed(item)}."
    if run.num_tests > 1:
        yield (
            f"The test split was read {run.num_tests} times. If a reading led to another choice, the score is "
            "optimistic."
        )
