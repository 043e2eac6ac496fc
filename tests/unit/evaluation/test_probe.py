"""Oracle: scikit-learn's own cross-validated prediction and F1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_transfer.evaluation import ProbeScore, probe_features


def data(n=240, gap=1.0, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // 4
    labels = groups % 3
    return rng.normal(size=(n, 6)) + gap * np.eye(6)[labels], labels, groups.tolist()


def test_the_score_is_sklearns():
    features, labels, groups = data()
    score = probe_features(torch.tensor(features), labels, groups)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    preds = cross_val_predict(probe, features, labels, groups=groups, cv=folds)
    assert score.macro_f1.value == pytest.approx(f1_score(labels, preds, average="macro"), abs=0.01)
    majority = f1_score(labels, np.full(240, np.bincount(labels).argmax()), average="macro")
    assert score.majority.value == pytest.approx(majority)
    assert score.gain.value == pytest.approx(score.macro_f1.value - majority)
    assert score.macro_f1.low < score.macro_f1.value < score.macro_f1.high
    assert (score.num_folds, score.macro_f1.n, score.macro_f1.num_groups) == (5, 240, 60)


def test_no_group_is_on_both_sides():
    """Each group has a direction and a random label of its own: who has seen a group knows it, nobody else does."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    labels = rng.integers(0, 2, 40)[groups]
    features = 5 * np.eye(40)[groups] + 0.01 * rng.normal(size=(240, 40))
    assert probe_features(features, labels, list(range(240))).macro_f1.value > 0.95
    assert probe_features(features, labels, groups.tolist()).macro_f1.value < 0.65


def test_noise_gains_nothing_for_sure():
    features, labels, groups = data(gap=0.0)
    score = probe_features(features, labels, groups)
    assert score.macro_f1.value < 0.45


def test_unlabelled_records_are_left_out_and_many_are_drawn_from():
    features, labels, groups = data()
    labels = labels.copy()
    labels[:40] = -1
    features[:40] = np.nan
    assert probe_features(features, labels, groups).macro_f1.n == 200
    assert probe_features(features, labels, groups, max_records=100).macro_f1.n == 100


def test_nothing_to_learn_is_none():
    features, labels, groups = data()
    assert probe_features(features, labels, ["one"] * 240) is None
    assert probe_features(features, np.zeros(240), groups) is None
    assert probe_features(features, np.full(240, -1), groups) is None


def test_it_survives_json():
    features, labels, groups = data(60)
    score = probe_features(features, labels, groups, n_resamples=50)
    assert ProbeScore.from_dict(score.to_dict()).to_dict() == score.to_dict()
