from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lightning_transfer.callbacks.schedule import SCHEDULES
from lightning_transfer.evaluation import DataFacts, ProbeScore, Recommendation, format_recommendation, recommend
from lightning_transfer.metrics import Interval

MIDDLE = DataFacts(counts={"good": 200, "pit": 60, "crack": 100}, num_parameters=2_223_872, num_groups=80)


def probe(value=0.7, gain=(0.3, 0.2, 0.4)):
    return ProbeScore(
        Interval(value, value - 0.05, min(1.0, value + 0.05), 360, 80),
        Interval(value - gain[0], 0.0, 1.0, 360, 80),
        Interval(*gain, 360, 80),
        5,
    )


@pytest.mark.parametrize(
    ("changes", "strategy", "said"),
    [
        ({}, "gradual", "100 labels a class"),
        ({"probe": probe()}, "gradual", "0.700 [0.650, 0.750]"),
        ({"pretrained": False, "probe": probe()}, "none", "random weights"),
        ({"probe": probe(0.3, (0.01, -0.04, 0.06))}, "none", "0.010 [-0.040, 0.060]"),
        ({"probe": probe(0.3, (0.01, None, None))}, "gradual", "0.010"),
        ({"probe": probe(0.3, (-0.01, None, None))}, "none", "-0.010"),
        ({"probe": probe(0.8), "plain": 0.82}, "none", "0.820"),
        ({"probe": probe(0.8), "plain": 0.78}, "gradual", "0.800"),
        ({"counts": {"good": 500, "pit": 19, "crack": 12}}, "feature_extraction", "19 labels a class"),
        ({"counts": {"good": 500, "pit": 20, "crack": 12}}, "gradual", "20 labels a class"),
        ({"counts": {"good": 19, "pit": 19, "absent": 0}}, "feature_extraction", "2,223,872 weights"),
        ({"probe": probe(0.95)}, "feature_extraction", "Only 0.050"),
        ({"probe": probe(0.949)}, "gradual", "0.949"),
        ({"memory_full": 9 * 2**30, "memory_available": 8 * 2**30}, "partial", "9.0 GiB"),
        ({"memory_full": 9 * 2**30, "memory_available": 8 * 2**30, "transformer": True}, "peft", "8.0 GiB"),
        ({"memory_full": 7 * 2**30, "memory_available": 8 * 2**30}, "gradual", "100 labels"),
        ({"memory_full": 9 * 2**30}, "gradual", "100 labels"),
        ({"transformer": True, "num_parameters": 110_000_000}, "peft", "110,000,000"),
        ({"transformer": True}, "gradual", "100 labels"),
        ({"num_parameters": 110_000_000}, "gradual", "100 labels"),
        ({"counts": {"good": 1000, "pit": 1000}}, "lp_ft", "1000 labels"),
        ({"counts": {"good": 999, "pit": 999}}, "gradual", "999 labels"),
    ],
)  # fmt: skip
def test_each_rule_decides_at_its_bound_and_says_its_number(changes, strategy, said):
    found = recommend(replace(MIDDLE, **changes))
    assert found.strategy == strategy
    assert any(said in reason for reason in found.reasons), found.reasons
    assert found.basis == ("probe" if "probe" in changes else "counts")
    assert all(any(letter.isdigit() for letter in text) or "random weights" in text for text in found.reasons)


def test_the_first_rule_that_applies_decides():
    few = replace(MIDDLE, counts={"good": 5, "pit": 5})
    assert recommend(replace(few, probe=probe(0.3, (0.0, -0.1, 0.1)))).strategy == "none"
    assert recommend(replace(few, transformer=True, num_parameters=10**9)).strategy == "feature_extraction"
    assert recommend(replace(few, pretrained=False)).strategy == "none"


def test_every_strategy_but_two_is_a_schedule():
    for facts in (MIDDLE, replace(MIDDLE, counts={"a": 5, "b": 5}), replace(MIDDLE, counts={"a": 5000, "b": 5000})):
        found = recommend(facts)
        assert found.strategy in SCHEDULES
        assert f"`schedule: {found.strategy}`" in found.title


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"errors": ("group-overlap", "group-overlap", "bad-file")}, "(group-overlap, bad-file)"),
        ({"num_labels": 1000, "likely_label_errors": 10}, "10 labels (1.0%)"),
        ({"counts": {"good": 200, "pit": 9, "crack": 100}}, "`pit` 9"),
        ({"num_groups": 14}, "14 groups in training for 3 classes"),
    ],
)
def test_what_to_mend_before_is_said(changes, said):
    (caution,) = recommend(replace(MIDDLE, **changes)).cautions
    assert said in caution


@pytest.mark.parametrize("changes", [{}, {"num_labels": 1000, "likely_label_errors": 9}, {"num_groups": 15},
                                     {"counts": {"good": 200, "pit": 10, "crack": 100}}])  # fmt: skip
def test_what_is_well_is_not_cautioned_of(changes):
    assert recommend(replace(MIDDLE, **changes)).cautions == ()


def test_without_labels_there_is_nothing_but_the_head():
    assert recommend(DataFacts(counts={})).strategy == "feature_extraction"


def test_it_survives_json():
    found = recommend(replace(MIDDLE, probe=probe(), errors=("group-overlap",)))
    assert Recommendation.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ("gradual", "This config does that."),
        ("feature_extraction", "This config does something else: feature extraction"),
        ("full", "This config does something else: all layers from the start"),
        ("a schedule of its own", "This config does something else: a schedule of its own."),
    ],
)
def test_the_text_says_what_the_config_does_instead(configured, said):
    text = format_recommendation(recommend(MIDDLE), configured)
    assert said in text
    assert text.startswith("Recommendation: gradual unfreezing")


def test_the_text_says_what_counts_do_not_know():
    assert "check-data --suspects" in format_recommendation(recommend(MIDDLE))
    text = format_recommendation(recommend(replace(MIDDLE, probe=probe(), errors=("group-overlap",))))
    assert "check-data --suspects" not in text
    assert "  Before: mend" in text
    assert "This config" not in text
