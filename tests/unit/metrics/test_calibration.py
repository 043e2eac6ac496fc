from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_transfer.metrics import (
    brier_terms,
    calibration_error,
    confidence_bins,
    fit_temperature,
    log_loss_terms,
    log_probabilities,
    negative_log_likelihood,
    probabilities,
)


def problem(task, sharpness, seed=0):
    """Logits whose labels were drawn from them, then sharpened: the right temperature is near ``sharpness``."""
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        logits = rng.normal(size=(4000, 4)) * 2
        target = (log_softmax(logits, axis=1) + rng.gumbel(size=logits.shape)).argmax(axis=1)
    else:
        shape = (4000, 1) if task == "binary" else (2000, 3)
        logits = rng.normal(size=shape) * 2
        target = (rng.random(shape) < 1 / (1 + np.exp(-logits))).astype(float)
        target = target[:, 0] if task == "binary" else target
    return logits * sharpness, target


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("sharpness", [0.02, 0.5, 1.0, 5.0])
def test_temperature_is_what_sharpened_the_logits(task, sharpness):
    logits, target = problem(task, sharpness)
    assert fit_temperature(logits, target, task) == pytest.approx(sharpness, rel=0.1)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_temperature_agrees_with_scipys_minimum(task):
    logits, target = problem(task, 3.0, seed=2)
    found = minimize_scalar(
        lambda t: negative_log_likelihood(logits, target, task, t), bounds=(0.05, 50), method="bounded"
    )
    assert fit_temperature(logits, target, task) == pytest.approx(found.x, rel=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_likelihood_is_never_worse_than_unscaled(seed):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(size=(12, 3)) * 10 ** rng.uniform(-3, 3), rng.integers(0, 3, 12)
    temperature = fit_temperature(logits, target, "multiclass")
    assert negative_log_likelihood(logits, target, "multiclass", temperature) <= negative_log_likelihood(
        logits, target, "multiclass"
    )


def test_search_range_without_one_is_no_reason_to_get_worse():
    logits, target = problem("multiclass", 1.0)
    assert fit_temperature(logits, target, "multiclass", bounds=(5.0, 10.0)) == 1.0


def test_temperature_does_not_change_the_most_probable_class():
    logits, target = problem("multiclass", 4.0)
    temperature = fit_temperature(logits, target, "multiclass")
    np.testing.assert_array_equal(probabilities(logits, "multiclass", temperature).argmax(1), logits.argmax(1))


@pytest.mark.parametrize(
    ("logits", "target", "task"),
    [
        ([[2.0, 0.0], [0.0, 1.0]], [0, 1], "multiclass"),
        ([[2.0], [-1.0]], [1.0, 0.0], "binary"),
        ([[2.0, -1.0]], [[1.0, 0.0]], "multilabel"),
        ([[2.0, -1.0]], [[np.nan, np.nan]], "multilabel"),
        ([[2.0, -1.0]], [-1], "multiclass"),
        # One class alone, some of it wrong: the likelihood has a minimum that means nothing.
        ([[2.0, 0.0], [0.0, 0.5], [1.0, 0.0]], [0, 0, 0], "multiclass"),
        ([[-2.0], [0.5], [-3.0]], [0.0, 0.0, 0.0], "binary"),
    ],
)
def test_data_that_cannot_tell_leave_one(logits, target, task):
    assert fit_temperature(logits, target, task) == 1.0


def test_missing_labels_play_no_part():
    logits, target = problem("multilabel", 3.0)
    holes = target.copy()
    holes[::2] = np.nan
    assert fit_temperature(logits, holes, "multilabel") == fit_temperature(logits[1::2], target[1::2], "multilabel")
    classes, labels = problem("multiclass", 3.0)
    labels[::2] = -1
    assert fit_temperature(classes, labels, "multiclass") == fit_temperature(classes[1::2], labels[1::2], "multiclass")


def test_log_loss_agrees_with_sklearn():
    logits, target = problem("multiclass", 1.0)
    probs = probabilities(logits, "multiclass")
    assert log_loss_terms(logits, target, "multiclass").mean() == pytest.approx(log_loss(target, probs))
    binary, labels = problem("binary", 1.0)
    assert log_loss_terms(binary, labels, "binary").mean() == pytest.approx(
        log_loss(labels, probabilities(binary, "binary"))
    )


def test_log_probabilities_stay_finite_far_out():
    log_probs = log_probabilities([[1000.0, 0.0]], "multiclass")
    np.testing.assert_allclose(log_probs, [[0.0, -1000.0]])
    np.testing.assert_allclose(log_probabilities([[-1000.0]], "binary"), [[0.0, -1000.0]])
    np.testing.assert_allclose(log_probabilities([[-1000.0, 1000.0]], "multilabel"), [[-1000.0, 0.0]])


def test_brier_agrees_with_sklearn():
    logits, target = problem("multiclass", 1.0)
    probs = probabilities(logits, "multiclass")
    assert brier_terms(probs, target).mean() == pytest.approx(brier_score_loss(target, probs, scale_by_half=False))
    binary, labels = problem("binary", 1.0)
    probs = probabilities(binary, "binary")
    assert brier_terms(probs, labels.astype(int)).mean() == pytest.approx(2 * brier_score_loss(labels, probs[:, 1]))


@pytest.mark.parametrize("num_bins", [5, 15])
def test_calibration_error_agrees_with_torchmetrics_for_each_weighting(num_bins):
    logits, target = problem("multiclass", 2.0)
    logits, target = logits[:200], target[:200]
    probs = probabilities(logits, "multiclass")
    weights = np.random.default_rng(0).integers(0, 3, (5, 200)).astype(float)
    ours = calibration_error(weights, probs.max(1), probs.argmax(1) == target, num_bins)
    for row, weight in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(200), weight)
        expected = multiclass_calibration_error(
            torch.tensor(probs[rows]), torch.tensor(target[rows]), num_classes=4, n_bins=num_bins, norm="l1"
        )
        assert ours[row] == pytest.approx(float(expected), abs=1e-6)


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    # As in Guo et al.: bins ((m - 1) / M, m / M]; one bin holds both, whose gaps of -0.5 and 0.6 nearly cancel.
    error = calibration_error(np.ones((1, 2)), np.array([0.5, 0.4]), np.array([False, True]), num_bins=2)
    assert error[0] == pytest.approx(0.05)


def test_calibration_error_takes_both_ends_and_no_records():
    ones = np.ones((1, 2))
    assert calibration_error(ones, np.array([0.0, 1.0]), np.array([False, True])).tolist() == [0.0]
    assert np.isnan(calibration_error(np.zeros((1, 2)), np.array([0.0, 1.0]), np.array([False, True]))).all()
    with pytest.raises(ValueError, match="got 0"):
        calibration_error(ones, np.zeros(2), np.zeros(2), num_bins=0)


@pytest.mark.parametrize(
    ("logits", "target", "task", "match"),
    [
        ([[np.nan, 0.0]], [0], "multiclass", "got 1 that are NaN"),
        ([[1.0, 0.0]], [2], "multiclass", r"\[0, 2\), got 2"),
        ([[1.0, 0.0]], [0, 1], "multiclass", r"\(1, 2\) and \(2,\)"),
        ([[1.0], [0.0]], [0.0], "binary", r"\(2, 1\) and \(1,\)"),
    ],
)
def test_wrong_arguments(logits, target, task, match):
    with pytest.raises(ValueError, match=match):
        fit_temperature(logits, target, task)


def test_confidence_bins_hold_their_upper_end_and_need_one():
    assert confidence_bins(np.array([0.0, 0.2, 0.2001, 0.6, 1.0]), 5).tolist() == [0, 0, 1, 2, 4]
    with pytest.raises(ValueError, match="got 0"):
        confidence_bins(np.array([0.5]), 0)
