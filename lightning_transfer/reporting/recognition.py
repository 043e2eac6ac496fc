"""Sections on how well speech is recognised: errors beside other recognisers, keywords, words, speakers, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.numbers import BASELINES, signed, usable
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.scoring import slices_section
from lightning_transfer.reporting.verdict import compare

__all__ = ["keywords_section", "recognition_section", "recognition_slices", "speakers_section", "words_section"]

Section = dict[str, Any]
Item = Mapping[str, Any]

_SHOWN = (
    *("wer", "substitution_rate", "insertion_rate", "deletion_rate", "cer"),
    *("keyword_recall", "sentence_error_rate", "wer_raw", "cer_raw"),
)
_CARDS = ("wer", "wer_of_pretrained", "source_wer_before", "source_wer_after", "cer", "keyword_recall")
_COUNTS = ("hits", "substitutions", "insertions", "deletions")
_MOST_ROWS = 40
# More values of a column than these are folded away.
_MOST_OPEN = 12


def recognition_section(scores: Scores, run: RunFiles, forgetting: Forgetting) -> Section:
    """Return the error rates of the model and of other recognisers, with their paired differences."""
    shown = [name for name in _SHOWN if name in scores.metrics]
    found = run.evaluation
    # A recogniser that could not be run has a row of reasons; they are one.
    unrun = {
        name: str((row.get("wer") or {}).get("reason") or "it was not run")
        for name, row in scores.baselines.items()
        if usable((row.get("wer") or {}).get("value")) is None
    }
    counts = found.get("words") or {}
    metrics = {**scores.metrics, **_cards(scores, forgetting)}
    return {
        "missing": "",
        "template": "recognition",
        "headline": scores.headline,
        "shown": shown,
        "cards": [name for name in _CARDS if name in metrics],
        "n": scores.n,
        "num_groups": scores.num_groups,
        "confidence": scores.confidence,
        "metrics": metrics,
        "baselines": [_row(name, scores, shown) for name in scores.baselines if name not in unrun],
        "unrun": [{"name": BASELINES.get(name, name), "reason": reason} for name, reason in unrun.items()],
        "baseline_hint": ""
        if scores.baselines
        else "Not measured: set `--evaluation.baselines '[pretrained]'` and test again.",
        "words": {name: counts.get(name) or 0 for name in _COUNTS},
        "normaliser": str(found.get("normaliser") or ""),
        "seconds_of_audio": usable(found.get("seconds_of_audio")),
        "speed": dict(scores.metrics.get("real_time_factor") or {}),
        "problems": [{"problem": name, "n": n} for name, n in (found.get("num_problems") or {}).items()],
        "num_unlabelled": found.get("num_unlabelled") or 0,
    }


def _cards(scores: Scores, forgetting: Forgetting) -> dict[str, Item]:
    """Return the rates that stand in large figures beside the model's own: before adapting, and on general speech."""
    found: dict[str, Item] = {}
    before = scores.baselines.get("pretrained", {}).get("wer")
    if before and usable(before.get("value")) is not None:
        found["wer_of_pretrained"] = before
    sources = [parts for name, parts in forgetting.sources.items() if name.endswith("wer")]
    if len(sources) == 1:
        for part in ("before", "after"):
            item = sources[0].get(part) or {}
            if usable(item.get("value")) is not None:
                by = "" if part == "before" else f"by {signed(sources[0].get('change'))}"
                found[f"source_wer_{part}"] = {**item, "reason": by or item.get("reason")}
    return found


def _row(name: str, scores: Scores, shown: Sequence[str]) -> Section:
    found, differences = scores.baselines[name], scores.differences.get(name, {})
    return {
        "name": BASELINES.get(name, name),
        "key": name,
        "metrics": {metric: found.get(metric) for metric in shown},
        "differences": {
            metric: {**differences[metric], "shows": compare(differences[metric], metric)}
            for metric in shown
            if metric in differences
        },
        "description": scores.descriptions.get(name, ""),
    }


def keywords_section(run: RunFiles) -> Section:
    """Return how often each keyword was said and recognised, the lowest recall first."""
    rows = list(run.evaluation.get("keywords") or ())
    rows.sort(key=lambda row: (_value(row.get("recall")) is None, _value(row.get("recall")) or 0.0))
    hint = "Not measured: name the words that matter, `--evaluation.keywords '[acme, order number]'`, and test again."
    return {"missing": "" if rows else hint, "template": "keywords", "rows": rows[:_MOST_ROWS], "num": len(rows)}


def words_section(scores: Scores, run: RunFiles) -> Section:
    """Return which words are taken for which others, and what the scoring normaliser changed before that."""
    confusions = list(run.evaluation.get("confusions") or ())
    changed = list(run.evaluation.get("normalised") or ())
    counts = run.evaluation.get("words") or {}
    return {
        "missing": "",
        "template": "words",
        "confusions": confusions[:_MOST_ROWS],
        "num_substitutions": counts.get("substitutions"),
        "num_in_confusions": sum(row.get("n") or 0 for row in confusions),
        "normaliser": str(run.evaluation.get("normaliser") or ""),
        "normalised": changed[:_MOST_ROWS],
        "num_normalised": run.evaluation.get("num_normalised") or len(changed),
        "wer": scores.metrics.get("wer"),
        "wer_raw": scores.metrics.get("wer_raw"),
    }


def speakers_section(scores: Scores, run: RunFiles) -> Section:
    """Return the word errors of each speaker, the highest rate first, beside the recogniser before adapting."""
    rows = [dict(row) for row in run.evaluation.get("speakers") or ()]
    names = [name for name in scores.baselines if any(name in (row.get("baselines") or {}) for row in rows)]
    for row in rows:
        row["differences"] = {
            name: {**item, "shows": compare(item, "wer")} for name, item in (row.get("differences") or {}).items()
        }
    missing = "" if rows else "Not known: the records name no speaker (`--data.speaker_column`)."
    return {
        "missing": missing,
        "template": "speakers",
        "rows": rows[:_MOST_OPEN],
        "more": rows[_MOST_OPEN:],
        "others": [{"key": name, "name": BASELINES.get(name, name)} for name in names],
        "scale": _scale([row.get("wer") for row in rows]),
    }


def recognition_slices(scores: Scores, run: RunFiles) -> Section:
    """Return the slices by accent, channel, duration and what else the records have, with the ends of their bars."""
    found = slices_section(scores, run)
    rows = [row for column in found["columns"] for row in column["rows"]]
    return {
        **found,
        "template": "recognition_slices",
        "scale": _scale([(row.get("metrics") or {}).get("wer") for row in rows]),
    }


def _scale(items: Sequence[Item | None]) -> float:
    """Return where the bars of a table end: a round rate that no value is past, and no interval but very wide ones.

    Example:
        >>> _scale([{"value": 0.12, "high": 0.18}]), _scale([{"value": 1.4, "high": 3.0}]), _scale([])
        (0.2, 1.5, 1.0)
    """
    values = [value for item in items if (value := _value(item)) is not None]
    if not values:
        return 1.0
    highs = sorted(usable((item or {}).get("high")) or 0.0 for item in items)
    most = max(*values, min(highs[-1], 2 * max(values), max(1.0, *values)))
    steps = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)
    return next((step for step in steps if most <= step), most)


def _value(item: Item | None) -> float | None:
    return usable((item or {}).get("value"))
