"""Which form the files of a run have, so that one of another form is named and left out, not stumbled over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_transfer.reporting.numbers import usable

__all__ = ["fitting"]


def _text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _list_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(fits(item) for item in value)


def _map_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(fits(item) for item in value.values())


def _mapping(value: object) -> bool:
    return isinstance(value, dict)


def _item(value: object) -> bool:
    """Tell a metric: a mapping whose numbers are numbers."""
    if not isinstance(value, dict):
        return False
    ends = [value.get(name) for name in ("value", "low", "high", "n", "num_groups")]
    return all(end is None or _number(end) for end in ends)


def _slice(value: object) -> bool:
    return isinstance(value, dict) and _map_of(_item)(value.get("metrics", {})) and _item(value.get("difference") or {})


def _bins(value: object) -> bool:
    return isinstance(value, dict) and all(
        _list_of(_map_of(_number))(value.get(name) or []) for name in ("before", "after")
    )


def _pair(value: object) -> bool:
    """Tell a pair of classes that are taken for each other."""
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("true", "predicted")):
        return False
    return _count(value.get("n")) and _number(value.get("share")) and _list_of(_text)(value.get("examples") or [])


def _optional(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


def _with(**parts: Callable[[object], bool]) -> Callable[[object], bool]:
    """Tell a mapping of which these parts, where they are there and not None, have their forms."""
    return lambda value: (
        isinstance(value, dict) and all(value.get(name) is None or fits(value[name]) for name, fits in parts.items())
    )


def _stage(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    lists = all(_list_of(_text)(value.get(name) or []) for name in ("opened", "open_groups"))
    return lists and all(usable(value.get(name, 0)) is not None or value[name] is None for name in ("epoch", "step"))


def _point(value: object) -> bool:
    if not isinstance(value, dict) or not _number(value.get("max_false_reject_rate")):
        return False
    ends = (value.get("threshold_interval"), value.get("false_reject_interval"))
    return all(end is None or (_list_of(_number)(end) and len(end) == 2) for end in ends)


def _calibration(value: object) -> bool:
    return isinstance(value, dict) and all(
        _list_of(fits)(value.get(name) or [])
        for name, fits in (("points", _point), ("label_thresholds", _number), ("label_rules", _text))
    )


def _named(*numbers: str) -> Callable[[object], bool]:
    """Tell a mapping with a name, whose numbers are numbers."""
    return lambda value: (
        isinstance(value, dict)
        and "name" in value
        and all(value.get(name) is None or _number(value[name]) for name in numbers)
    )


_NAMES = _list_of(_text)
_OUT_OF_SCOPE = _with(
    scores=_map_of(_with(auroc=_item, fpr95=_item)),
    recall=_item,
    called=_item,
    in_scope_accuracy=_item,
    in_scope_lost=_item,
)
_POLICY = _with(
    target_precision=_number,
    threshold=_number,
    min_margin=_number,
    out_of_scope_score=_text,
    out_of_scope_threshold=_number,
    out_of_scope_auroc=_map_of(_optional(_number)),
    costs=_map_of(lambda value: _number(value) or _map_of(_number)(value)),
    rule=_text,
    n=_count,
    n_out_of_scope=_count,
)
_ROUTING = _with(
    policy=_POLICY,
    n=_count,
    n_out_of_scope=_count,
    coverage_at_target=_item,
    precision_of_routed=_item,
    in_scope=_with(coverage_at_target=_item, precision_of_routed=_item, lost=_item),
    aurc=_item,
    risk_coverage=_list_of(_map_of(_optional(_number))),
    coverage_at_precision=_map_of(_optional(_number)),
    precision_reached=_map_of(_optional(_number)),
    out_of_scope=_OUT_OF_SCOPE,
    decisions=_map_of(_count),
    mean_cost=_item,
    reasons=_map_of(_count),
)
_PART = _with(kind=_text, reference=_list_of(_text), hypothesis=_list_of(_text))
_COUNTS = _map_of(_count)
_UTTERANCE = _with(
    id=_text,
    path=_text,
    speaker=_text,
    reference=_text,
    hypothesis=_text,
    problem=_text,
    start=_number,
    duration=_number,
    confidence=_number,
    wer=_number,
    counts=_COUNTS,
    parts=_list_of(_PART),
)
_SPEAKER = _with(
    speaker=_text,
    n=_count,
    words=_COUNTS,
    wer=_item,
    cer=_item,
    baselines=_map_of(_item),
    differences=_map_of(_item),
    worst=_list_of(_UTTERANCE),
)
_SWEEP_ROW = _with(alpha=_number, score=_number, readings=_map_of(_optional(_number)))
_MONITOR = _with(
    interpolation=_with(
        alpha=_number,
        monitor=_text,
        mode=_text,
        limits=_map_of(_number),
        tried=_list_of(_SWEEP_ROW),
        pretrained=_SWEEP_ROW,
    )
)
_RETENTION = _with(
    monitor=_text,
    metric=_text,
    before=_number,
    rows=_list_of(_with(epoch=_count, step=_count, new=_number, score=_number, losses=_map_of(_optional(_number)))),
    best=_with(epoch=_count, step=_count),
)
_SHAPES: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "environment": {"versions": _mapping, "time": _text, "device": _text},
    "data": {
        "classes": _NAMES,
        "counts": _map_of(_map_of(_count)),
        "num_groups": _map_of(_count),
        "columns": _NAMES,
        "preprocessing": _mapping,
        "skipped": _mapping,
        "negative_class": _text,
        "fingerprint": _text,
        "task": _text,
        "speech": _map_of(
            _with(
                utterances=_count,
                seconds=_number,
                unknown=_count,
                speakers=_count,
                columns=_map_of(_COUNTS),
            )
        ),
    },
    "plan": {
        "stages": _list_of(_stage),
        "groups": _list_of(_named()),
        "learning_rates": _list_of(_named("lr", "weight_decay")),
        "backbone": _mapping,
        "data": _map_of(_map_of(_count)),
        "notes": _NAMES,
        "warnings": _NAMES,
        "max_epochs": _number,
    },
    "cost": {"epochs": _list_of(_map_of(_number)), "peak_memory_mb": _number, "device": _text},
    "check": {"findings": _list_of(_mapping), "suspects": _list_of(_mapping)},
    "export": {"files": _list_of(_mapping)},
    "forgetting": {"monitors": _list_of(_MONITOR), "retention": _RETENTION},
    "evaluation": {
        "classes": _NAMES,
        "negative_class": _text,
        "headline": _text,
        "n": _count,
        "num_groups": _count,
        "confidence": _number,
        "metrics": _map_of(_item),
        "baselines": _map_of(_map_of(_item)),
        "differences": _map_of(_map_of(_item)),
        "descriptions": _map_of(_text),
        "confusion": _list_of(_list_of(_count)),
        "decisions": _list_of(_list_of(_count)),
        "confusion_pairs": _list_of(_pair),
        "routing": _ROUTING,
        "calibration": _calibration,
        "slices": _list_of(_slice),
        "slices_left_out": _mapping,
        "reliability": _bins,
        "curve": _list_of(_map_of(_number)),
        "latency": _mapping,
        # Of recognised speech.
        "words": _COUNTS,
        "characters": _COUNTS,
        "normaliser": _text,
        "seconds_of_audio": _number,
        "num_unlabelled": _count,
        "num_empty": _count,
        "num_problems": _COUNTS,
        "speakers": _list_of(_SPEAKER),
        "keywords": _list_of(_with(keyword=_text, said=_count, recognised=_count, false_alarms=_count, recall=_item)),
        "worst": _list_of(_UTTERANCE),
        "confusions": _list_of(_with(said=_text, heard=_text, n=_count, examples=_list_of(_text))),
        "normalised": _list_of(_with(before=_text, after=_text, in_references=_count, in_hypotheses=_count)),
        "num_normalised": _count,
        "notes": _NAMES,
        # Of masks.
        "unit": _text,
        "num_shown": _count,
        "num_unknown": _count,
        "kinds": _list_of(_with(kind=_text, n=_count, metrics=_map_of(_item))),
        "worst_masks": _list_of(
            _with(id=_text, path=_text, label=_text, kind=_text, dice=_number, drawn=_count, shown=_count, mask=_text)
        ),
    },
}


def fitting(name: str, values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the entries of a file that have the form in which they are written; name the others in ``problems``.

    An entry that is None was not measured, and is left out without a word. Entries that are not known here stay.

    Args:
        name: Of the file, without its ending.
        values: What it holds.
        problems: Receives a sentence for each entry of another form.

    Example:
        >>> found = []
        >>> fitting("data", {"classes": "abc", "task": "binary", "counts": None, "new": 1}, found)
        {'task': 'binary', 'new': 1}
        >>> found
        ['`classes` of data.json has another form than expected']
    """
    kept = {}
    for key, value in values.items():
        fits = _SHAPES.get(name, {}).get(key)
        if value is None:
            continue
        if fits is None or fits(value):
            kept[key] = value
        else:
            problems.append(f"`{key}` of {name}.json has another form than expected")
    return kept
