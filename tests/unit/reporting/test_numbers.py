import math

import pytest

from lightning_transfer.evaluation.overview import _NAMES
from lightning_transfer.reporting.numbers import (
    BASELINES,
    count,
    interval,
    lower_is_better,
    metric_label,
    number,
    percent,
    percent_interval,
    seconds,
    signed,
    significant,
    usable,
)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.5", True, [], {}])
def test_what_is_no_finite_number_is_shown_as_none(value: object) -> None:
    assert usable(value) is None
    assert {number(value), count(value), seconds(value), significant(value)} == {"n/a"}


def test_a_value_that_is_missing_says_why() -> None:
    assert interval({"value": None, "low": None, "high": None, "reason": "no record of `pit`"}) == (
        "n/a (no record of `pit`)"
    )
    assert interval({"value": math.nan, "reason": ""}) == "n/a (undefined)"
    assert interval({}) == "n/a (undefined)"
    assert interval(None) == "n/a (not measured)"
    assert interval("text") == "n/a (not measured)"  # type: ignore[arg-type]


def test_an_interval_with_an_end_missing_is_left_out() -> None:
    assert interval({"value": 0.5, "low": 0.4, "high": math.nan}) == "0.500"
    assert signed({"value": -0.5, "low": -0.6, "high": 0.0}) == "-0.500 [-0.600, +0.000]"


def test_small_numbers_keep_their_digits_and_zero_is_zero() -> None:
    assert [number(value) for value in (0.0, 0.0004, -0.00002, 0.001)] == ["0.000", "0.0004", "-2e-05", "0.001"]


@pytest.mark.parametrize(("took", "text"), [(0, "0 s"), (9.96, "10 s"), (99.4, "99 s"), (3599.6, "1 h 00 min")])
def test_durations(took: float, text: str) -> None:
    assert seconds(took) == text


def test_directions_and_names() -> None:
    assert all(lower_is_better(name) for name in ("val_loss", "wer", "ece"))
    assert not lower_is_better("auroc")
    assert metric_label("recall_at_threshold_deep_pit") == "recall of deep_pit at the threshold"
    assert metric_label("something_new") == "something new"


def test_baselines_are_called_as_in_the_terminal() -> None:
    # These are of recognisers and of masks alone.
    others = {"pretrained": "before adapting", "unet": "plain U-Net from scratch", "greedy": "without the lexicon"}
    others |= {f"{name}_greedy": f"{BASELINES[name]}, without the lexicon" for name in ("pretrained", "scratch")}
    assert BASELINES == {**_NAMES, **others}


def test_shares_are_shown_as_percentages() -> None:
    assert (percent(0.5), percent(1), percent("0.5")) == ("50.0%", "100.0%", "n/a")
    assert percent_interval({"value": 0.0, "low": 0.0, "high": 0.116}) == "0.0% [0.0%, 11.6%]"
    assert percent_interval({"value": None, "reason": "no ticket is routed"}) == "n/a (no ticket is routed)"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("macro_f1_at_thresholds", "macro-F1 at the thresholds"),
        ("accuracy_level_2", "accuracy, level 2"),
        ("recall_level_1", "recall of level_1"),
        ("precision_billing", "precision of billing"),
        ("precision_at_threshold_billing", "precision of billing at the threshold"),
        ("out_of_scope_fpr95_knn", "out-of-scope FPR95 by knn"),
        ("routing_precision_in_scope", "routing precision in scope"),
        ("wer_raw", "WER, texts as they are"),
        ("val_wer", "validation WER"),
        ("sentence_error_rate", "utterances with an error"),
    ],
)
def test_metrics_of_routing_labels_and_levels_have_names_to_read(name: str, label: str) -> None:
    assert metric_label(name) == label


def test_of_errors_the_fewer_are_the_better() -> None:
    assert lower_is_better("out_of_scope_fpr95_knn")
    assert lower_is_better("routing_aurc")
    assert not lower_is_better("out_of_scope_auroc_knn")
    assert all(lower_is_better(name) for name in ("wer_raw", "deletion_rate", "sentence_error_rate", "blank_share"))
    assert not lower_is_better("keyword_recall")
