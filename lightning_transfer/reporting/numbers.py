"""Numbers as a reader should see them: rounded alike everywhere, ``n/a`` with its reason where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["BASELINES", "count", "interval", "lower_is_better", "metric_label", "number", "percent"]
__all__ += ["percent_interval", "seconds", "signed", "significant", "usable"]

BASELINES = {
    "majority": "majority class",
    "plain": "plain method, no network",
    "knn": "neighbours, frozen backbone",
    "linear_probe": "linear probe, frozen backbone",
    "scratch": "from scratch",
    "unet": "plain U-Net from scratch",
    "pretrained": "before adapting",
    "greedy": "without the lexicon",
    "pretrained_greedy": "before adapting, without the lexicon",
    "scratch_greedy": "from scratch, without the lexicon",
}
"""What a reader should read for the name of a baseline."""

_LABELS = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "macro_f1_at_thresholds": "macro-F1 at the thresholds",
    "micro_f1_at_thresholds": "micro-F1 at the thresholds",
    "top_3_accuracy": "top-3 accuracy",
    "routing_coverage": "share routed",
    "routing_precision": "precision of the routed",
    "routing_aurc": "AURC",
    "out_of_scope_recall": "out-of-scope recall",
    "auroc": "AUROC",
    "ap": "average precision",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "false_reject_rate": "false-reject rate",
    "recall_at_threshold": "recall at the threshold",
    "mean_recall_at_thresholds": "mean sensitivity at the thresholds",
    "mean_false_positive_rate_at_thresholds": "mean false-positive rate at the thresholds",
    "escape_rate": "escape rate",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "ECE",
    "pixel_auroc": "pixel AUROC",
    "pro": "PRO",
    "dice": "Dice",
    "iou": "IoU",
    "image_dice": "Dice, mean over pictures",
    "volume_dice": "Dice, mean over volumes",
    "hd95": "HD95",
    "image_auroc": "image AUROC",
    "missed_rate": "pictures missed",
    "false_alarm_rate": "pictures with false alarms",
    "wer": "WER",
    "cer": "CER",
    "wer_raw": "WER, texts as they are",
    "cer_raw": "CER, texts as they are",
    "substitution_rate": "substitutions",
    "insertion_rate": "insertions",
    "deletion_rate": "deletions",
    "sentence_error_rate": "utterances with an error",
    "keyword_recall": "keyword recall",
    "blank_share": "utterances with nothing heard",
    "val_blank_share": "validation share of blanks",
    "real_time_factor": "real-time factor",
    "wer_of_pretrained": "WER before adapting",
    "source_wer_before": "general WER before",
    "source_wer_after": "general WER after",
    "wer_worst_speaker": "WER of the worst speaker",
    "wer_worst_slice": "WER of the worst slice",
}
_LOWER = frozenset(
    {
        *("brier", "cer", "ece", "escape_rate", "false_reject_rate", "log_loss", "routing_aurc", "wer"),
        *("wer_raw", "cer_raw", "substitution_rate", "insertion_rate", "deletion_rate", "sentence_error_rate"),
        "mean_false_positive_rate_at_thresholds",
        *("blank_share", "real_time_factor", "hd95", "missed_rate", "false_alarm_rate"),
    }
)


def usable(value: object) -> float | None:
    """Return a finite number, or None for anything else.

    Example:
        >>> usable(0.5), usable(float("nan")), usable("0.5"), usable(True)
        (0.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number(value: object, digits: int = 3) -> str:
    """Return a number with so many decimals; small ones with as many significant digits.

    Example:
        >>> number(0.69123), number(0.00002), number(None), number(12345.678, 1)
        ('0.691', '2e-05', 'n/a', '12,345.7')
    """
    found = usable(value)
    if found is None:
        return "n/a"
    if found != 0 and abs(found) < 10**-digits:
        return f"{found:.2g}"
    return f"{found:,.{digits}f}"


def significant(value: object) -> str:
    """Return a number with four significant digits: thresholds and learning rates.

    Example:
        >>> significant(0.98396), significant(2e-5), significant(None)
        ('0.984', '2e-05', 'n/a')
    """
    found = usable(value)
    return "n/a" if found is None else f"{found:.4g}"


def count(value: object) -> str:
    """Return a whole number with separators.

    Example:
        >>> count(1225811), count(None)
        ('1,225,811', 'n/a')
    """
    found = usable(value)
    return "n/a" if found is None else f"{round(found):,}"


def percent(value: object) -> str:
    """Return a share as a percentage.

    Example:
        >>> percent(0.7123), percent(None)
        ('71.2%', 'n/a')
    """
    found = usable(value)
    return "n/a" if found is None else f"{100 * found:.1f}%"


def seconds(value: object) -> str:
    """Return a duration.

    Example:
        >>> seconds(31.77), seconds(200), seconds(3900), seconds(0.04)
        ('32 s', '3 min 20 s', '1 h 05 min', '0.04 s')
    """
    found = usable(value)
    if found is None:
        return "n/a"
    if found < 10:
        return f"{found:.2g} s"
    if found < 100:
        return f"{found:.0f} s"
    whole = round(found)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def interval(item: Mapping[str, Any] | None) -> str:
    """Return a value with its interval, as ``metrics.json`` holds it; without a value the reason.

    Example:
        >>> interval({"value": 0.5, "low": 0.25, "high": 0.75})
        '0.500 [0.250, 0.750]'
        >>> interval({"value": None, "reason": "no record of `pit`"}), interval(None)
        ('n/a (no record of `pit`)', 'n/a (not measured)')
    """
    return _interval(item, lambda value: number(value))


def signed(item: Mapping[str, Any] | None) -> str:
    """Return a difference with its interval.

    Example:
        >>> signed({"value": 0.004, "low": -0.082, "high": 0.094})
        '+0.004 [-0.082, +0.094]'
    """
    return _interval(item, lambda value: f"{value:+.3f}")


def percent_interval(item: Mapping[str, Any] | None) -> str:
    """Return a share with its interval as percentages.

    Example:
        >>> percent_interval({"value": 0.7123, "low": 0.66, "high": 0.76})
        '71.2% [66.0%, 76.0%]'
    """
    return _interval(item, percent)


def _interval(item: Mapping[str, Any] | None, text: Any) -> str:  # noqa: ANN401 - a function of one number
    if not isinstance(item, Mapping):
        return "n/a (not measured)"
    value, low, high = (usable(item.get(name)) for name in ("value", "low", "high"))
    reason = str(item.get("reason") or "")
    if value is None:
        return f"n/a ({reason or 'undefined'})"
    if low is None or high is None:
        return str(text(value))
    return f"{text(value)} [{text(low)}, {text(high)}]"


def metric_label(name: str) -> str:
    """Return what a reader should read for a metric's name.

    Example:
        >>> metric_label("macro_f1"), metric_label("recall_at_threshold_pit"), metric_label("val_auroc")
        ('macro-F1', 'recall of pit at the threshold', 'validation AUROC')
        >>> metric_label("macro_f1_level_1"), metric_label("out_of_scope_auroc_knn")
        ('macro-F1, level 1', 'out-of-scope AUROC by knn')
    """
    if name in _LABELS:
        return _LABELS[name]
    base, on, kind = name.partition("_on_")
    if on and base in _LABELS:
        return f"{_LABELS[base]} on {kind}"
    for prefix, text in (("val_", "validation {}"), ("train_", "training {}")):
        if name.startswith(prefix):
            return text.format(metric_label(name.removeprefix(prefix)))
    for prefix, text in (
        ("recall_at_threshold_", "recall of {} at the threshold"),
        ("recall_at_false_reject_", "recall at false rejects {}"),
        ("false_reject_rate_at_", "false-reject rate for {}"),
        ("dice_", "Dice of {}"),
        ("iou_", "IoU of {}"),
        ("image_dice_", "Dice of {}, mean over pictures"),
        ("volume_dice_", "Dice of {}, mean over volumes"),
        ("hd95_", "HD95 of {}"),
        ("recall_", "recall of {}"),
        ("precision_at_threshold_", "precision of {} at the threshold"),
        ("precision_", "precision of {}"),
        ("out_of_scope_auroc_", "out-of-scope AUROC by {}"),
        ("out_of_scope_fpr95_", "out-of-scope FPR95 by {}"),
    ):
        if name.startswith(prefix):
            return text.format(name.removeprefix(prefix))
    above, _, depth = name.partition("_level_")
    if depth.isdecimal():
        return f"{metric_label(above)}, level {depth}"
    return name.replace("_", " ")


def lower_is_better(name: str) -> bool:
    """Tell whether a smaller value of a metric is the better one.

    Example:
        >>> lower_is_better("brier"), lower_is_better("macro_f1")
        (True, False)
    """
    base = name.partition("_on_")[0]
    return (
        base in _LOWER or name.startswith("hd95_") or name.endswith("_loss") or name.startswith("out_of_scope_fpr95_")
    )
