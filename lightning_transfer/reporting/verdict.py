"""The verdict in three sentences: better than a baseline? what was forgotten? what does the threshold or routing do?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_transfer.reporting.findings import findings_notes, findings_sentence
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.numbers import (
    BASELINES,
    interval,
    lower_is_better,
    metric_label,
    number,
    signed,
    usable,
)
from lightning_transfer.reporting.routing import routing_sentence
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.shortcuts import shortcut_warnings

__all__ = ["FEW_GROUPS", "FEW_RECORDS", "Verdict", "compare", "verdict"]

FEW_GROUPS = 20
"""Below so many groups a cluster bootstrap's interval is too narrow (Cameron, Gelbach & Miller 2008)."""

FEW_RECORDS = 20
"""Below so many records of a class its recall moves by more than five points with each of them."""

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What a reader should remember.

    Attributes:
        sentences: On the score, on forgetting, on the operating point or the routing.
        notes: What speaks against reading more into them.
        tone: ``better``, ``worse``, or ``open`` where neither was shown.
    """

    sentences: tuple[str, str, str]
    notes: tuple[str, ...]
    tone: str


def verdict(scores: Scores | None, forgetting: Forgetting, *, command: str = "", num_tests: int = 1) -> Verdict:
    """Compose the verdict from what was measured; what was not measured is said.

    Args:
        scores: Of the test; None before it.
        forgetting: Of the fit.
        command: How the recipe is started, for the advice.
        num_tests: How often the test split was read.

    Example:
        >>> metrics = {"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100, "num_groups": 50}}
        >>> baselines = {"linear_probe": {"accuracy": {"value": 0.85}}}
        >>> differences = {"linear_probe": {"accuracy": {"value": 0.05, "low": -0.02, "high": 0.12}}}
        >>> scores = Scores("accuracy", metrics, n=100, num_groups=50, baselines=baselines, differences=differences)
        >>> print(verdict(scores, Forgetting(frozen=True)).sentences[0])
        Not shown to be better than the best baseline: accuracy 0.900 [0.800, 0.950] on 100 test records in 50 groups,
        linear probe, frozen backbone 0.850, paired difference +0.050 [-0.020, +0.120], which includes 0.
    """
    run = f"`{command} test RUN`" if command else "`test`"
    if scores is None:
        first = f"Not measured: the test split was not read yet; run {run}."
        last = f"What the threshold does to new records is not measured; run {run}."
        return Verdict((first, _forgotten(forgetting), last), (), "open")
    sentence, tone = _score(scores, run)
    warnings = list(shortcut_warnings(scores))
    # Better at what, is the question then.
    tone = "open" if warnings and tone == "better" else tone
    notes = [*warnings, *_small(scores), *_contrary(scores), *findings_notes(scores)]
    if num_tests > 1:
        notes.append(
            f"The test split was read {num_tests} times. If a reading led to another choice, the score is optimistic."
        )
    last = routing_sentence(scores) or findings_sentence(scores) or _operating_point(scores, run)
    return Verdict((sentence, _forgotten(forgetting), last), tuple(notes), tone)


def compare(item: Item | None, metric: str) -> str:
    """Say what a paired difference shows: ``better``, ``worse``, ``open`` where its interval holds 0, or ``unknown``.

    Example:
        >>> compare({"value": 0.1, "low": 0.02, "high": 0.2}, "macro_f1")
        'better'
        >>> compare({"value": 0.1, "low": 0.02, "high": 0.2}, "brier")
        'worse'
        >>> compare({"value": 0.1, "low": 0.0, "high": 0.2}, "macro_f1"), compare({"value": 0.1}, "macro_f1")
        ('open', 'unknown')
    """
    low, high = (usable((item or {}).get(name)) for name in ("low", "high"))
    if low is None or high is None:
        return "unknown"
    if low <= 0 <= high:
        return "open"
    return "better" if (high < 0) == lower_is_better(metric) else "worse"


def _score(scores: Scores, run: str) -> tuple[str, str]:
    metric, own = scores.headline, scores.metrics.get(scores.headline)
    if usable((own or {}).get("value")) is None:
        return f"The score is not known: {metric_label(metric) or 'no metric'} is {interval(own)}.", "open"
    groups = "" if not scores.num_groups or scores.num_groups == scores.n else f" in {scores.num_groups} groups"
    reached = f"{metric_label(metric)} {interval(own)} on {scores.n} test records{groups}"
    best = scores.best_baseline
    if best is None:
        text = f"{_upper(reached)}; no baseline was run, so it is not known whether adapting was worth it; run {run} "
        return f"{text}with `--evaluation.baselines '[majority, knn, linear_probe]'`.", "open"
    difference = scores.differences.get(best, {}).get(metric)
    facts = f"{reached}, {BASELINES.get(best, best)} {number(scores.baselines[best][metric]['value'])}"
    shown = compare(difference, metric)
    if shown == "unknown":
        reason = str((difference or {}).get("reason") or "no paired difference was computed")
        return f"Not shown to be better than the best baseline: {facts}; {reason}.", "open"
    paired = f"{facts}, paired difference {signed(difference)}"
    if shown == "open":
        return f"Not shown to be better than the best baseline: {paired}, which includes 0.", "open"
    others = [
        BASELINES.get(name, name)
        for name in scores.baselines
        if name != best and compare(scores.differences.get(name, {}).get(metric), metric) != "better"
    ]
    if shown == "better" and set(scores.baselines) == {"majority"}:
        text = f"Better than always saying the most frequent class: {paired}"
        return f"{text}; whether adapting was worth it is not known, as no plain method was compared.", "open"
    if shown == "better" and others:
        return f"Better than the best baseline: {paired}; not shown to be better than: {', '.join(others)}.", "open"
    return f"{_upper(shown)} than the best baseline: {paired}.", shown


def _forgotten(forgetting: Forgetting) -> str:
    if forgetting.frozen:
        return "Nothing of the old task was forgotten: the backbone stayed frozen."
    for name, parts in forgetting.sources.items():
        before, after = parts.get("before"), parts.get("after")
        was, now = (usable((item or {}).get("value")) for item in (before, after))
        if was is None or now is None:
            continue
        chance = usable((parts.get("chance") or {}).get("value"))
        by_chance = "" if chance is None else f" (chance {number(chance)})"
        facts = f"{name} {interval(before)} before and {interval(after)} after{by_chance}"
        change = parts.get("change") or {}
        if usable(change.get("value")) is not None and usable(change.get("high")) is not None:
            facts += f", changed by {signed(change)}"
            if now < was and change["high"] < 0:
                return f"The old task lost {number(was - now)}: {facts}."
            return f"No sure loss on the old task: {facts}."
        overlap = _overlap(before or {}, after or {})
        if now >= was:
            return f"No loss on the old task was seen: {facts}."
        if overlap is None:
            return f"The old task lost {number(was - now)}: {facts}; without intervals it is not known how surely."
        if overlap:
            return f"No sure loss on the old task: {facts}; it fell by {number(was - now)}, and the intervals overlap."
        return f"The old task lost {number(was - now)}: {facts}."
    if forgetting.readings:
        name, points = next(iter(forgetting.readings.items()))
        what = "differs from before by" if name.startswith("drift_") else "lost"
        return (
            f"The accuracy on the old task was not measured; its {metric_label(name.partition('_')[2])} {what} "
            f"{number(points[-1][1])} at the end of the fit."
        )
    return "What was forgotten of the old task is not measured; add `lightning_transfer.ForgettingMonitor` to the fit."


def _overlap(one: Item, other: Item) -> bool | None:
    ends = [usable(item.get(name)) for item in (one, other) for name in ("low", "high")]
    if ends[0] is None or ends[1] is None or ends[2] is None or ends[3] is None:
        return None
    return ends[0] <= ends[3] and ends[2] <= ends[1]


def _operating_point(scores: Scores, run: str) -> str:
    table, negative = scores.decisions, scores.negative_class
    if scores.threshold is None or negative is None or negative not in scores.classes or not table:
        if scores.label_thresholds:
            return f"Each label is called at its own threshold: {_at_thresholds(scores)}."
        right = sum(row[place] for place, row in enumerate(scores.confusion))
        total = sum(map(sum, scores.confusion))
        why = "the data name no negative class" if negative is None else "the model has no threshold"
        if not total:
            return f"No threshold decides: {why}."
        reached = interval(scores.metrics.get("accuracy"))
        return f"No threshold decides, as {why}: the most probable class is right for {right} of {total} ({reached})."
    place = scores.classes.index(negative)
    good = sum(table[place])
    rejected = good - table[place][place]
    defects = [row for number_, row in enumerate(table) if number_ != place]
    others = sum(map(sum, defects))
    found = others - sum(row[place] for row in defects)
    asked = next((point.asked for point in scores.points if point.chosen), None)
    rate, recall = scores.metrics.get("false_reject_rate"), scores.metrics.get("recall_at_threshold")
    wanted = "" if asked is None else f", asked for at most {asked:g}"
    low = usable((rate or {}).get("low"))
    surely = "; that is surely more than asked for" if asked is not None and low is not None and low > asked else ""
    return (
        f"At the threshold {scores.threshold:.4g} the model rejects {rejected} of {good} “{negative}” "
        f"({interval(rate)}{wanted}) and finds {found} of {others} others ({interval(recall)}){surely}."
    )


def _at_thresholds(scores: Scores) -> str:
    """Say what the labels' thresholds gain over one half."""
    parts = []
    for name in ("macro_f1", "micro_f1"):
        own, half = scores.metrics.get(f"{name}_at_thresholds"), scores.metrics.get(name)
        if own and half:
            parts.append(f"{metric_label(name)} {interval(own)}, at one half {number(half.get('value'))}")
    return "; ".join(parts) or "what that gains was not measured"


def _small(scores: Scores) -> Iterator[str]:
    if scores.num_groups is not None and 0 < scores.num_groups < FEW_GROUPS:
        unit = "records" if scores.num_groups == scores.n else "groups"
        yield f"Few data: with {scores.num_groups} {unit} the intervals are rather too narrow than too wide."
    few = [
        f"{name} {item['n']}"
        for name in scores.classes
        if (item := scores.metrics.get(f"recall_{name}")) and 0 < int(item.get("n") or 0) < FEW_RECORDS
    ]
    if few:
        yield f"Classes with fewer than {FEW_RECORDS} test records, whose recall says little: {', '.join(few)}."
    absent = [
        name
        for name in scores.classes
        if (item := scores.metrics.get(f"recall_{name}")) and int(item.get("n") or 0) == 0
    ]
    if absent:
        yield f"Classes without a test record, of which nothing is known: {', '.join(absent)}."


def _contrary(scores: Scores) -> Iterator[str]:
    """Name the other metrics in which a baseline is surely better."""
    for name in _unlike(scores.shown, scores.headline):
        for baseline, row in scores.differences.items():
            if compare(row.get(name), name) == "worse":
                text = f"{BASELINES.get(baseline, baseline)} is better: model minus baseline {signed(row[name])}"
                yield f"By {metric_label(name)} the {text}."


def _unlike(names: Sequence[str], name: str) -> list[str]:
    return [item for item in names if item != name]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
