"""Closed cases: what may be said, and what must not be."""

import re
from dataclasses import replace
from typing import Any

import pytest

from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.scores import Point, Scores
from lightning_transfer.reporting.verdict import compare, verdict


def item(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 100, "num_groups": 50, "reason": "", **more}


def scores(difference: dict[str, Any] | None, metric: str = "macro_f1", **changes: Any) -> Scores:
    base = Scores(
        headline=metric,
        metrics={metric: item(0.7, 0.6, 0.8)},
        n=100,
        num_groups=50,
        baselines={"majority": {metric: item(0.2)}, "linear_probe": {metric: item(0.6)}},
        differences={
            "majority": {metric: item(0.5, 0.4, 0.6)},
            "linear_probe": {metric: difference} if difference else {},
        },
    )
    return replace(base, **changes)


def first(found: Scores | None, **options: Any) -> str:
    return verdict(found, Forgetting(), **options).sentences[0]


def test_better_only_where_the_paired_interval_leaves_0_out() -> None:
    found = verdict(scores(item(0.1, 0.02, 0.2)), Forgetting())
    assert found.tone == "better"
    assert found.sentences[0] == (
        "Better than the best baseline: macro-F1 0.700 [0.600, 0.800] on 100 test records in 50 groups, "
        "linear probe, frozen backbone 0.600, paired difference +0.100 [+0.020, +0.200]."
    )
    assert not found.notes


@pytest.mark.parametrize("ends", [(-0.01, 0.2), (0.0, 0.2), (-0.2, 0.0), (0.0, 0.0)])
def test_an_interval_that_holds_0_shows_nothing(ends: tuple[float, float]) -> None:
    found = verdict(scores(item(0.1, *ends)), Forgetting())
    assert found.sentences[0].startswith("Not shown to be better than the best baseline")
    assert found.sentences[0].endswith("which includes 0.")
    assert found.tone == "open"


def test_worse_is_said_as_plainly() -> None:
    found = verdict(scores(item(-0.1, -0.2, -0.01)), Forgetting())
    assert found.sentences[0].startswith("Worse than the best baseline: ")
    assert found.tone == "worse"


def test_where_lower_is_better_the_sign_turns() -> None:
    lower = item(-0.1, -0.2, -0.02)
    found = verdict(scores(lower, "wer", differences={"linear_probe": {"wer": lower}, "majority": {"wer": lower}}),
                    Forgetting())  # fmt: skip
    # The best baseline is the one with the lower rate.
    assert found.sentences[0].startswith("Better than the best baseline: WER 0.700")
    assert "majority class 0.200" in found.sentences[0]
    assert compare(item(0.1, 0.02, 0.2), "wer") == "worse"


def test_without_an_interval_nothing_is_claimed() -> None:
    reason = item(0.3, reason="1 group, and an interval needs at least 2")
    assert re.match(r"Not shown .*; 1 group, and an interval needs at least 2\.", first(scores(reason)))
    assert first(scores(None)).endswith("no paired difference was computed.")
    assert verdict(scores(reason), Forgetting()).tone == "open"


def test_beating_the_best_but_not_another_is_no_victory() -> None:
    differences = {"linear_probe": {"macro_f1": item(0.1, 0.02, 0.2)}, "majority": {"macro_f1": item(0.5, -0.1, 0.9)}}
    found = verdict(scores(None, differences=differences), Forgetting())
    assert found.sentences[0].endswith("not shown to be better than: majority class.")
    assert found.tone == "open"


def test_the_majority_class_alone_is_no_measure_of_adapting() -> None:
    only = {"baselines": {"majority": {"macro_f1": item(0.2)}}}
    found = verdict(scores(None, **only, differences={"majority": {"macro_f1": item(0.5, 0.4, 0.6)}}), Forgetting())
    assert found.sentences[0].startswith("Better than always saying the most frequent class")
    assert "no plain method was compared" in found.sentences[0]
    assert found.tone == "open"


def test_without_baselines_or_a_score_that_is_said() -> None:
    assert "it is not known whether adapting was worth it; run `python -m x test RUN`" in first(
        scores(None, baselines={}, differences={}), command="python -m x"
    )
    undefined = scores(None, metrics={"macro_f1": item(None, reason="no labelled record")})
    assert first(undefined) == "The score is not known: macro-F1 is n/a (no labelled record)."
    assert first(None, command="python -m x").startswith(
        "Not measured: the test split was not read yet; run `python -m"
    )


def test_a_metric_in_which_a_baseline_is_surely_better_is_a_note() -> None:
    found = scores(item(0.1, 0.02, 0.2))
    found = replace(
        found,
        metrics={**found.metrics, "auroc": item(0.9)},
        differences={
            "linear_probe": {**found.differences["linear_probe"], "auroc": item(-0.03, -0.05, -0.01)},
            "majority": {**found.differences["majority"], "auroc": item(-0.03, -0.05, 0.01)},
        },
    )
    assert verdict(found, Forgetting()).notes == (
        "By AUROC the linear probe, frozen backbone is better: model minus baseline -0.030 [-0.050, -0.010].",
    )


def test_few_data_are_said() -> None:
    notes = verdict(scores(item(0.1, 0.02, 0.2), num_groups=19), Forgetting()).notes
    assert notes == ("Few data: with 19 groups the intervals are rather too narrow than too wide.",)
    assert verdict(scores(item(0.1, 0.02, 0.2), num_groups=20), Forgetting()).notes == ()
    found = scores(item(0.1, 0.02, 0.2), n=12, num_groups=12)
    assert verdict(found, Forgetting()).notes[0].startswith("Few data: with 12 records")
    assert "groups" not in verdict(found, Forgetting()).sentences[0]


def test_classes_with_few_or_no_records_are_named() -> None:
    found = scores(item(0.1, 0.02, 0.2), classes=("good", "pit", "dent"))
    recalls = {"recall_good": item(0.9, n=80), "recall_pit": item(1.0, n=6), "recall_dent": item(None, n=0)}
    notes = verdict(replace(found, metrics={**found.metrics, **recalls}), Forgetting()).notes
    assert notes[0].endswith("whose recall says little: pit 6.")
    assert notes[1].endswith("of which nothing is known: dent.")


def test_a_test_split_that_was_read_again_is_a_note() -> None:
    notes = verdict(scores(item(0.1, 0.02, 0.2)), Forgetting(), num_tests=3).notes
    assert notes == ("The test split was read 3 times. If a reading led to another choice, the score is optimistic.",)


def second(forgetting: Forgetting) -> str:
    return verdict(None, forgetting).sentences[1]


def source(before: dict[str, Any], after: dict[str, Any]) -> Forgetting:
    return Forgetting(sources={"source accuracy": {"before": before, "after": after, "chance": item(0.1)}})


def test_forgetting_in_each_case() -> None:
    assert second(Forgetting(frozen=True)) == "Nothing of the old task was forgotten: the backbone stayed frozen."
    assert second(source(item(0.8, 0.75, 0.85), item(0.5, 0.45, 0.55))) == (
        "The old task lost 0.300: source accuracy 0.800 [0.750, 0.850] before and 0.500 [0.450, 0.550] after "
        "(chance 0.100)."
    )
    assert second(source(item(0.8, 0.7, 0.9), item(0.75, 0.65, 0.85))).startswith("No sure loss on the old task")
    assert "it is not known how surely" in second(source(item(0.8), item(0.5)))
    assert second(source(item(0.8, 0.7, 0.9), item(0.82, 0.7, 0.9))).startswith("No loss on the old task was seen")
    assert "not measured; add `lightning_transfer.ForgettingMonitor`" in second(Forgetting())
    assert "not measured" in second(source(item(0.8), item(None)))
    readings = Forgetting(readings={"forgetting_agreement": ((0.0, 0.0), (4.0, 0.18))})
    assert second(readings).endswith("its agreement lost 0.180 at the end of the fit.")


def third(**changes: Any) -> str:
    table = ((95, 5, 0), (4, 10, 6), (0, 1, 9))
    found = scores(item(0.1, 0.02, 0.2), classes=("good", "pit", "dent"), negative_class="good", decisions=table,
                   confusion=table, threshold=0.4)  # fmt: skip
    metrics = {"false_reject_rate": item(0.05, 0.01, 0.1), "recall_at_threshold": item(0.867, 0.7, 0.95)}
    metrics |= {"accuracy": item(0.877, 0.8, 0.9)}
    found = replace(found, metrics={**found.metrics, **metrics})
    return verdict(replace(found, **changes), Forgetting()).sentences[2]


def point(asked: float, chosen: bool) -> Point:
    return Point(asked, {}, {}, None, None, chosen=chosen)


def test_the_operating_point_counts_who_is_rejected_and_who_is_found() -> None:
    # 5 of 100 good ones are rejected; of the 30 others 4 + 0 are let through.
    assert third(points=(point(0.01, False), point(0.05, True))) == (
        "At the threshold 0.4 the model rejects 5 of 100 “good” (0.050 [0.010, 0.100], asked for at most 0.05) and "
        "finds 26 of 30 others (0.867 [0.700, 0.950])."
    )
    assert third(points=(point(0.005, True),)).endswith("; that is surely more than asked for.")


def test_without_a_threshold_the_most_probable_class_decides() -> None:
    text = third(threshold=None)
    assert text == (
        "No threshold decides, as the model has no threshold: the most probable class is right for 114 of 130 "
        "(0.877 [0.800, 0.900])."
    )
    assert "the data name no negative class" in third(negative_class=None)
    assert third(negative_class=None, confusion=()) == "No threshold decides: the data name no negative class."
