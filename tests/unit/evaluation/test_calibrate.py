from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import Outputs, fit_calibration
from lightning_transfer.evaluation.scores import decided_classes
from lightning_transfer.metrics import fit_temperature, threshold_expected_f1
from lightning_transfer.types import Calibration, Schema

SURFACE = Schema(task="multiclass", classes=("crack", "free", "pit"), negative_class="free")


def make(logits, target):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    target = None if target is None else torch.as_tensor(target)
    return Outputs(logits, torch.zeros(len(logits), 1), target, torch.arange(len(logits)))


def surface(n=400, seed=0, sharpness=3.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 1.5 * (target[:, None] == np.arange(3))
    return make(logits * sharpness, target)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_threshold_keeps_the_false_reject_rate_and_is_the_lowest(rate):
    outputs = surface()
    result = fit_calibration(outputs, SURFACE, max_false_reject_rate=rate)
    probs = torch.softmax(outputs.logits.double() / result.temperature, dim=1)
    score = 1 - probs[:, 1]
    good = outputs.target == 1
    rejected = (score >= result.threshold) & good
    assert rejected.sum() / good.sum() <= rate
    # One negative more would be too many.
    assert (rejected.sum() + 1) / good.sum() > rate
    assert result.temperature == fit_temperature(outputs.logits.double().numpy(), outputs.target.numpy(), "multiclass")
    assert result.temperature > 1.5
    assert result.n == 400
    assert f"at most {rate:.3g} of `free`" in result.rule
    assert result.points[0].threshold == result.threshold
    assert result.points[0].rule == result.rule
    assert Calibration.from_dict(result.to_dict()) == result


def test_every_operating_point_is_what_a_fit_for_that_rate_gives():
    outputs, groups = surface(), [f"lot {place // 4}" for place in range(400)]
    result = fit_calibration(outputs, SURFACE, groups=groups, max_false_reject_rate=0.1, n_resamples=100)
    assert [point.max_false_reject_rate for point in result.points] == [0.1, 0.01, 0.02, 0.05]
    good = outputs.target == 1
    for point in result.points:
        alone = fit_calibration(
            outputs, SURFACE, groups=groups, max_false_reject_rate=point.max_false_reject_rate, n_resamples=100
        )
        assert alone.threshold == point.threshold
        assert alone.points[0] == point
        assert result.at(point.max_false_reject_rate).threshold == point.threshold
        assert point.num_groups == len({group for group, is_good in zip(groups, good, strict=True) if is_good})
        low, high = point.threshold_interval
        assert low <= point.threshold <= high
    assert len(fit_calibration(outputs, SURFACE, max_false_reject_rate=0.02, n_resamples=0).points) == 3


def test_the_interval_comes_from_the_groups():
    outputs = surface()
    # Lots of one class each, as when a whole lot is good.
    order = torch.argsort(outputs.target, stable=True)
    outputs = make(outputs.logits[order], outputs.target[order])
    alone, lots = (
        fit_calibration(outputs, SURFACE, groups=groups, n_resamples=300).points[0]
        for groups in (None, [place // 40 for place in range(400)])
    )
    assert alone.threshold == lots.threshold
    assert alone.num_groups == alone.num_negative
    assert lots.num_groups < 6
    assert alone.threshold_interval != lots.threshold_interval


def test_the_stored_pair_of_temperature_and_threshold_keeps_the_rate():
    """Decided again from raw logits, the good ones of the calibration split are rejected as often as it says."""
    outputs = surface(sharpness=8.0)
    result = fit_calibration(outputs, SURFACE, n_resamples=0)
    assert result.temperature > 3
    decided = decided_classes(outputs.logits.double().numpy(), SURFACE, result)
    good = outputs.target.numpy() == 1
    assert (decided[good] != 1).mean() == pytest.approx(result.points[0].false_reject_rate)
    # The same threshold without the temperature would be another decision.
    other = decided_classes(outputs.logits.double().numpy(), SURFACE, replace(result, temperature=1.0))
    assert (other[good] != 1).mean() != pytest.approx(result.points[0].false_reject_rate)


def test_binary_threshold_is_on_the_positive_class():
    schema = Schema(task="binary", classes=("good", "bad"))
    logits = torch.linspace(-3, 3, 40)[:, None]
    target = (torch.arange(40) >= 20).float()
    target[5] = 1.0  # not separable, so that a temperature exists
    result = fit_calibration(make(logits, target), schema, max_false_reject_rate=0.0)
    called = torch.sigmoid(logits[:, 0].double() / result.temperature) >= result.threshold
    assert torch.equal(called, torch.arange(40) >= 20)


def test_missing_labels_are_left_out():
    schema = Schema(task="binary", classes=("good", "bad"))
    logits = torch.tensor([[-1.0], [0.5], [2.0], [0.1]])
    result = fit_calibration(make(logits, [0.0, float("nan"), 1.0, 0.0]), schema, groups=["a", "b", "c", "d"])
    assert result.n == 3
    assert (result.points[0].num_negative, result.points[0].num_groups) == (2, 2)
    assert "of 2, and" in result.rule


@pytest.mark.parametrize(
    ("schema", "rule"),
    [
        (Schema(task="multiclass", classes=("a", "b", "c")), "no negative class"),
        (Schema(task="multilabel", classes=("a", "b", "c")), "multi-label: for each class"),
    ],
)
def test_tasks_without_a_score_have_no_threshold(schema, rule):
    outputs = surface()
    if schema.task == "multilabel":
        outputs = make(outputs.logits, torch.nn.functional.one_hot(outputs.target, 3).float())
    result = fit_calibration(outputs, schema)
    assert result.threshold is None
    assert result.points == ()
    assert rule in result.rule
    assert result.temperature != 1.0


def test_without_negatives_there_is_no_threshold_and_a_warning(caplog):
    outputs = make(torch.randn(6, 3), [0, 0, 2, 2, 0, 2])
    result = fit_calibration(outputs, SURFACE)
    assert result.threshold is None
    assert "none of the 6 calibration records is `free`" in result.rule
    assert "none of the 6" in caplog.text


def test_wrong_rate_and_missing_labels():
    with pytest.raises(ValueError, match=r"got 5"):
        fit_calibration(surface(), SURFACE, max_false_reject_rate=5)
    with pytest.raises(ValueError, match=r"each of 400 calibration records, got 3"):
        fit_calibration(surface(), SURFACE, groups=["a", "b", "c"])
    with pytest.raises(TransferError, match="2 records have no labels"):
        fit_calibration(make(torch.zeros(2, 3), None), SURFACE)


def test_good_parts_alone_give_a_threshold_and_no_temperature(caplog):
    outputs = surface()
    good = make(outputs.logits, torch.ones(len(outputs), dtype=torch.long))
    result = fit_calibration(good, SURFACE, max_false_reject_rate=0.1)
    assert result.temperature == 1.0
    assert "Every calibration record is `free`" in caplog.text
    score = 1 - torch.softmax(outputs.logits.double(), dim=1)[:, 1]
    assert (score >= result.threshold).double().mean() == 0.1
    caplog.clear()
    fit_calibration(outputs, SURFACE)
    assert not caplog.text


LABELS = Schema(task="multilabel", classes=("often", "rare", "never", "always", "flat", "unknown"))


def several_labels(n=300):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 6)) * 2 - np.array([0.0, 2.5, 2.0, -2.0, 0.0, 0.0])
    target = (rng.random((n, 6)) < 1 / (1 + np.exp(-2 * logits))).astype(float)
    logits[:, 4] = -0.5
    target[:, 2], target[:, 3], target[:, 5] = 0.0, 1.0, np.nan
    target[:20, 0] = np.nan
    return logits, target


def test_each_label_gets_the_threshold_that_its_own_records_give(caplog):
    logits, target = several_labels()
    result = fit_calibration(make(logits, target), LABELS)
    assert result.threshold is None
    assert len(result.label_thresholds) == len(result.label_rules) == 6
    exact = torch.as_tensor(logits, dtype=torch.float32).double().numpy()  # as the outputs hold them
    assert result.temperature == fit_temperature(exact, target, "multilabel") != 1.0
    probs = 1 / (1 + np.exp(-exact / result.temperature))
    for place in (0, 1):
        known = ~np.isnan(target[:, place])
        alone = threshold_expected_f1(probs[known, place], target[known, place] == 1)
        assert result.label_thresholds[place] == pytest.approx(alone.value, rel=1e-12)
        assert result.label_rules[place] == f"{int(target[known, place].sum())} of {known.sum()} have it"
    assert result.label_thresholds[0] != result.label_thresholds[1]
    assert result.label_thresholds[2:] == (0.5,) * 4
    flat = 1 / (1 + np.exp(0.5 / result.temperature))
    assert result.label_rules[2:] == (
        "none of 300 calibration records has it",
        "all of 300 calibration records have it",
        f"all of 300 calibration records have the probability {flat:.3g}",
        "no calibration record says",
    )
    assert "0.5 stays for `never` (none of 300 calibration records has it)" in result.rule
    assert "`unknown` (no calibration record says)" in caplog.text
    assert Calibration.from_dict(result.to_dict()) == result
    # What the thresholds decide is what they were fitted for.
    decided = decided_classes(exact, LABELS, result)
    np.testing.assert_array_equal(decided, probs >= np.array(result.label_thresholds))
