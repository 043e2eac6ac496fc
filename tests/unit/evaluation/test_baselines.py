from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import (
    Outputs,
    evaluate_classification,
    fit_baselines,
    knn_baseline,
    linear_probe_baseline,
    majority_baseline,
)
from lightning_transfer.types import Calibration, Record, Schema

SURFACE = Schema(task="multiclass", classes=("crack", "free", "pit"), negative_class="free")
BINARY = Schema(task="binary", classes=("good", "bad"))
MULTI = Schema(task="multilabel", classes=("a", "b"))


def make(features, target):
    target = None if target is None else torch.as_tensor(target)
    features = torch.as_tensor(features, dtype=torch.float32)
    # Width 0, as `collect_features` gives them.
    return Outputs(torch.zeros(len(features), 0), features, target, torch.arange(len(features)))


def blobs(n, seed, classes=3, spread=1.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, n)
    centres = np.random.default_rng(100).normal(size=(classes, 8)) * 2
    # Features of very different scale, as pretrained networks have.
    return (centres[target] + spread * rng.normal(size=(n, 8))) * 10.0 ** np.arange(-3, 5), target


def classes_of(baseline, features):
    return baseline.classify(features).argmax(axis=1)


def test_majority_knows_only_frequencies():
    train = make(np.zeros((10, 2)), [1] * 7 + [0] * 3)
    baseline = majority_baseline(train, SURFACE)
    logits = baseline.classify(np.random.default_rng(0).normal(size=(4, 2)))
    assert logits.argmax(axis=1).tolist() == [1] * 4
    np.testing.assert_allclose(np.exp(logits[0]), np.array([3.5, 7.5, 0.5]) / 11.5)
    assert np.ptp(logits, axis=0).tolist() == [0, 0, 0]


def test_probe_agrees_with_sklearn_at_one_strength():
    x, y = blobs(120, 0, spread=2.0)
    new, _ = blobs(60, 1, spread=2.0)
    baseline = linear_probe_baseline(make(x, y), SURFACE, strengths=[0.01])
    scaler = StandardScaler().fit(make(x, y).features.double().numpy())
    oracle = LogisticRegression(C=0.01, max_iter=1000)
    for balanced in (None, "balanced"):
        oracle.set_params(class_weight=balanced).fit(scaler.transform(x), y)
        if ("equal class weights" in baseline.description) == (balanced is not None):
            np.testing.assert_allclose(
                np.exp(baseline.classify(new)), oracle.predict_proba(scaler.transform(new)), atol=1e-4
            )


def test_neighbours_agree_with_sklearn_at_one_number():
    x, y = blobs(120, 0, spread=2.0)
    new, _ = blobs(60, 1, spread=2.0)
    baseline = knn_baseline(make(x, y), SURFACE, neighbours=[5])
    scaler = StandardScaler().fit(x)
    oracle = KNeighborsClassifier(5, metric="cosine", weights=lambda distance: 2 - distance)
    expected = oracle.fit(scaler.transform(x), y).predict(scaler.transform(new))
    np.testing.assert_array_equal(classes_of(baseline, new), expected)


@pytest.mark.parametrize("fit", [knn_baseline, linear_probe_baseline])
def test_separable_features_are_solved_in_every_task(fit):
    x, y = blobs(150, 0, spread=0.3)
    new, truth = blobs(60, 1, spread=0.3)
    assert (classes_of(fit(make(x, y), SURFACE), new) == truth).mean() == 1.0
    binary = fit(make(x, (y == 2).astype(float)), BINARY).classify(new)
    assert binary.shape == (60, 1)
    assert ((binary[:, 0] > 0) == (truth == 2)).all()
    labels = np.stack([y == 0, y != 1], axis=1).astype(float)
    labels[::7, 0] = np.nan
    multi = fit(make(x, labels), MULTI).classify(new)
    assert ((multi > 0) == np.stack([truth == 0, truth != 1], axis=1)).all()


def test_choice_respects_the_groups():
    # Ten near copies of each record: one neighbour is perfect as long as its copies may be in the other fold.
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(100, 2))
    y = (centres[:, 0] + rng.normal(size=100) > 0).astype(int)
    x = np.repeat(centres, 10, axis=0) + 1e-4 * rng.normal(size=(1000, 2))
    target, lots = np.repeat(y, 10), np.repeat(np.arange(100), 10)
    schema = Schema(task="multiclass", classes=("a", "b"))
    leaking = knn_baseline(make(x, target), schema, neighbours=(1, 200))
    honest = knn_baseline(make(x, target), schema, groups=lots.tolist(), neighbours=(1, 200))
    assert leaking.description.startswith("k=1 ")
    assert honest.description.startswith("k=200 ")
    assert "over 100 training groups" in honest.description


def test_probe_weighs_classes_equally_where_that_helps_macro_f1():
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 20 == 0).astype(int)
    x = rng.normal(size=(400, 3)) + 1.5 * y[:, None]
    schema = Schema(task="multiclass", classes=("common", "rare"))
    baseline = linear_probe_baseline(make(x, y), schema, strengths=[1e-3])
    assert "equal class weights" in baseline.description


def test_class_that_training_lacks_gets_a_finite_logit():
    x, y = blobs(60, 0, classes=2)
    for fit in (majority_baseline, knn_baseline, linear_probe_baseline):
        logits = fit(make(x, y), SURFACE).classify(x[:5])
        assert logits.shape == (5, 3)
        assert np.isfinite(logits).all()
        assert (logits.argmax(1) != 2).all()


@pytest.mark.parametrize("fit", [knn_baseline, linear_probe_baseline])
def test_one_class_or_one_group_in_training_is_no_crash(fit):
    x, y = blobs(30, 0)
    assert fit(make(x, np.zeros(30, dtype=int)), SURFACE).description == "one class in training"
    one = fit(make(x, y), SURFACE, groups=["lot"] * 30)
    assert "not tuned: 1 training groups" in one.description


def test_unlabelled_training_records_are_left_out():
    x, y = blobs(60, 0, spread=0.3)
    holes = y.copy()
    holes[::3] = -1
    kept = holes >= 0
    some = linear_probe_baseline(make(x, holes), SURFACE, strengths=[0.1])
    fewer = linear_probe_baseline(make(x[kept], y[kept]), SURFACE, strengths=[0.1])
    np.testing.assert_allclose(some.classify(x), fewer.classify(x), atol=1e-6)


def test_all_baselines_come_ready_to_be_judged():
    train, test, held = (make(*blobs(n, seed, spread=2.0)) for n, seed in ((200, 0), (90, 1), (60, 2)))
    found = fit_baselines(train, test, SURFACE, groups=[f"g{i // 4}" for i in range(200)], calibration=held)
    assert list(found) == ["majority", "knn", "linear_probe"]
    assert found["linear_probe"].calibration.threshold is not None
    assert found["linear_probe"].calibration.n == 60
    model = test.with_logits(torch.nn.functional.one_hot(test.target, 3) * 5.0)
    records = [Record(id=str(place), input=None) for place in range(90)]
    result = evaluate_classification(model, records, SURFACE, Calibration(), baselines=found, n_resamples=100)
    assert result.baselines["majority"]["auroc"].value == 0.5
    assert result.baselines["linear_probe"]["macro_f1"].value > result.baselines["majority"]["macro_f1"].value
    assert result.differences["majority"]["macro_f1"].low > 0
    assert "cross-validation" in result.descriptions["knn"]


def test_test_labels_are_not_read():
    train, test = make(*blobs(60, 0)), make(*blobs(20, 1))
    hidden = Outputs(test.logits, test.features, None, test.index)
    one, other = (fit_baselines(train, part, SURFACE) for part in (test, hidden))
    assert all(torch.equal(one[name].outputs.logits, other[name].outputs.logits) for name in one)


def test_wrong_arguments():
    train = make(*blobs(20, 0))
    with pytest.raises(ValueError, match="no baseline `forest`"):
        fit_baselines(train, train, SURFACE, names=["forest"])
    with pytest.raises(ValueError, match="20 training records, got 3"):
        knn_baseline(train, SURFACE, groups=["a", "b", "c"])
    with pytest.raises(TransferError, match="20 records have no labels"):
        majority_baseline(make(train.features, None), SURFACE)
    with pytest.raises(TransferError, match="20 training records has a label"):
        majority_baseline(make(train.features, [-1] * 20), SURFACE)
    empty = np.full((20, 2), np.nan)
    empty[:, 0] = np.arange(20) % 2
    with pytest.raises(TransferError, match="for `b`"):
        linear_probe_baseline(make(train.features, empty), MULTI)
