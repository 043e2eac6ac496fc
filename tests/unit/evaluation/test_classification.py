from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as oracle
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import BaselineOutputs, Outputs, evaluate_classification, format_table
from lightning_transfer.metrics import Interval, cluster_bootstrap
from lightning_transfer.types import Calibration, OperatingPoint, Record, Schema

SURFACE = Schema(task="multiclass", classes=("crack", "free", "pit"), negative_class="free")
BINARY = Schema(task="binary", classes=("good", "bad"))
MULTI = Schema(task="multilabel", classes=("a", "b", "c"))
FEW = {"n_resamples": 40}


def make(logits, target, index=None):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    index = torch.arange(len(logits)) if index is None else torch.as_tensor(index)
    return Outputs(logits, torch.zeros(len(logits), 1), None if target is None else torch.as_tensor(target), index)


def rows(n, group=lambda place: None):
    return [Record(id=str(place), input=None, group=group(place)) for place in range(n)]


@pytest.fixture(scope="module")
def surface():
    rng = np.random.default_rng(0)
    target = rng.choice(3, 150, p=[0.2, 0.7, 0.1])
    logits = rng.normal(size=(150, 3)) + 1.2 * (target[:, None] == np.arange(3))
    return make(logits, target)


def test_multiclass_values_agree_with_sklearn(surface):
    calibration = Calibration(temperature=0.7, threshold=0.6)
    result = evaluate_classification(surface, rows(150), SURFACE, calibration, **FEW)
    target, preds = surface.target.numpy(), surface.logits.argmax(1).numpy()
    probs = torch.softmax(surface.logits.double() / 0.7, dim=1).numpy()
    score, bad = 1 - probs[:, 1], target != 1
    recalls = oracle.recall_score(target, preds, average=None)
    precisions = oracle.precision_score(target, preds, average=None)
    expected = {
        "macro_f1": oracle.f1_score(target, preds, average="macro"),
        "accuracy": oracle.accuracy_score(target, preds),
        "balanced_accuracy": oracle.balanced_accuracy_score(target, preds),
        "auroc": oracle.roc_auc_score(bad, score),
        "average_precision": oracle.average_precision_score(bad, score),
        "false_reject_rate": (score >= 0.6)[~bad].mean(),
        "recall_at_threshold": (score >= 0.6)[bad].mean(),
        "recall_at_threshold_crack": (score >= 0.6)[target == 0].mean(),
        "recall_at_threshold_pit": (score >= 0.6)[target == 2].mean(),
        "escape_rate": (score < 0.6)[bad].mean(),
        "recall_crack": recalls[0],
        "recall_free": recalls[1],
        "recall_pit": recalls[2],
        **{f"precision_{name}": value for name, value in zip(SURFACE.classes, precisions, strict=True)},
        "log_loss": oracle.log_loss(target, probs),
        "brier": oracle.brier_score_loss(target, probs, scale_by_half=False),
        "ece": float(multiclass_calibration_error(torch.tensor(probs), torch.tensor(target), num_classes=3, n_bins=15)),
    }
    assert list(result.metrics) == list(expected)
    for name, value in expected.items():
        assert result.metrics[name].value == pytest.approx(value, abs=1e-6), name
    assert result.confusion == tuple(map(tuple, oracle.confusion_matrix(target, preds).tolist()))
    found = np.where(probs[:, 0] >= probs[:, 2], 0, 2)
    decided = np.where(score >= 0.6, found, 1)
    assert result.decisions == tuple(map(tuple, oracle.confusion_matrix(target, decided).tolist()))
    escaped = sorted(np.flatnonzero(bad & (score < 0.6)), key=lambda place: score[place])
    assert result.escapes == tuple(map(str, escaped))
    assert len(escaped) > 3
    assert (result.n, result.num_groups, result.negative_class) == (150, 150, "free")


def test_each_number_says_how_many_records_it_is_about(surface):
    result = evaluate_classification(surface, rows(150), SURFACE, Calibration(threshold=0.5), **FEW)
    counts = np.bincount(surface.target)
    assert [result.recalls[name].n for name in SURFACE.classes] == counts.tolist()
    assert result.metrics["false_reject_rate"].n == counts[1]
    assert result.metrics["recall_at_threshold"].n == result.metrics["escape_rate"].n == 150 - counts[1]
    assert result.metrics["recall_at_threshold_pit"].n == counts[2]
    assert result.flat()["escapes"]["n"] == 150 - counts[1]
    assert result.metrics["macro_f1"].n == 150


def test_intervals_contain_the_value_and_ece_has_none(surface):
    result = evaluate_classification(surface, rows(150), SURFACE, Calibration(threshold=0.5), n_resamples=300)
    for name, item in result.metrics.items():
        if name == "ece":
            assert item.low is None
            assert "no interval" in item.reason
        else:
            assert item.low < item.value < item.high, name


def test_groups_come_from_the_records_that_the_index_points_at(surface):
    # Record 2k belongs to a group of four, record 2k+1 is its own; only the even ones were run.
    records = rows(300, group=lambda place: f"g{place // 8}" if place % 2 == 0 else None)
    shuffled = make(surface.logits, surface.target, index=np.arange(150) * 2)
    result = evaluate_classification(shuffled, records, SURFACE, Calibration(), **FEW)
    assert (result.n, result.num_groups) == (150, 38)


def test_one_group_has_values_and_no_intervals(surface):
    result = evaluate_classification(surface, rows(150, group=lambda _: "lot"), SURFACE, Calibration(), **FEW)
    assert result.metrics["accuracy"].value is not None
    assert result.metrics["accuracy"].low is None
    assert "1 group" in result.metrics["accuracy"].reason


def test_class_of_one_group_has_no_interval():
    target = np.array([0] * 5 + [1] * 20)
    logits = np.random.default_rng(0).normal(size=(25, 3))
    records = rows(25, group=lambda place: "first" if place < 5 else f"g{place}")
    result = evaluate_classification(make(logits, target), records, SURFACE, Calibration(), **FEW)
    assert result.metrics["recall_crack"].low is None
    assert result.metrics["recall_crack"].num_groups == 1


def test_without_a_threshold_there_are_no_threshold_metrics(surface):
    result = evaluate_classification(surface, rows(150), SURFACE, Calibration(), **FEW)
    assert "false_reject_rate" not in result.metrics
    assert "recall_at_threshold" not in result.metrics
    # The most probable class decides then, and what it lets through has escaped all the same.
    assert result.decisions == result.confusion
    assert len(result.escapes) == result.confusion[0][1] + result.confusion[2][1]


def operating(rate, threshold):
    return OperatingPoint(rate, threshold, None, 0.0, (0.0, 1.0), 10, 10)


def test_operating_points_are_applied_as_they_were_fitted(surface):
    points = (operating(0.05, 0.5), operating(0.01, 0.9), operating(0.02, 0.75))
    calibration = Calibration(temperature=0.7, threshold=0.5, points=points)
    records = rows(150, group=lambda place: place // 3)
    result = evaluate_classification(surface, records, SURFACE, calibration, n_resamples=300)
    target = surface.target.numpy()
    score = 1 - torch.softmax(surface.logits.double() / 0.7, dim=1).numpy()[:, 1]
    for point in points:
        called, at = score >= point.threshold, f"{point.max_false_reject_rate:g}"
        recall, reject = result.metrics[f"recall_at_false_reject_{at}"], result.metrics[f"false_reject_rate_at_{at}"]
        assert recall.value == pytest.approx(oracle.recall_score(target != 1, called))
        assert reject.value == pytest.approx(1 - oracle.recall_score(target == 1, ~called))
        assert (recall.n, reject.n) == ((target != 1).sum(), (target == 1).sum())
        assert recall.low < recall.value < recall.high
    assert result.metrics["recall_at_false_reject_0.05"] == result.metrics["recall_at_threshold"]
    # The interval is that of the bootstrap over groups.
    mine = cluster_bootstrap(
        lambda w: (w * (target != 1)) @ (score >= 0.9) / (w @ (target != 1)), np.arange(150) // 3, n_resamples=300
    )
    recall = result.metrics["recall_at_false_reject_0.01"]
    assert (recall.low, recall.high) == pytest.approx((mine.low, mine.high))


def test_all_or_none_of_a_share_has_an_open_end():
    """Thirty defects in ten groups, all found; every resample says so, and the truth may be less."""
    target = np.array([0] * 30 + [1] * 30)
    logits = np.where(target[:, None] == np.arange(3), 6.0, 0.0)
    records = rows(60, group=lambda place: place // 3)
    result = evaluate_classification(make(logits, target), records, SURFACE, Calibration(threshold=0.5), **FEW)
    exact = binomtest(10, 10).proportion_ci(method="exact")
    for name in ("recall_at_threshold", "recall_at_threshold_crack", "recall_crack"):
        item = result.metrics[name]
        assert (item.value, item.low, item.high) == (1.0, pytest.approx(exact.low), 1.0)
    for name in ("escape_rate", "false_reject_rate"):
        item = result.metrics[name]
        assert (item.value, item.low, item.high) == (0.0, 0.0, pytest.approx(1 - exact.low))
    assert result.metrics["accuracy"].low == pytest.approx(binomtest(20, 20).proportion_ci(method="exact").low)
    # No share of records: as the bootstrap leaves it.
    assert (result.metrics["auroc"].low, result.metrics["auroc"].high) == (1.0, 1.0)


def test_score_equal_to_the_threshold_is_called():
    schema = Schema(task="binary", classes=("good", "bad"))
    outputs = make([[0.0], [0.0]], [0.0, 1.0])
    result = evaluate_classification(outputs, rows(2), schema, Calibration(threshold=0.5), **FEW)
    assert result.metrics["recall_at_threshold"].value == 1.0
    assert result.metrics["false_reject_rate"].value == 1.0


def test_without_negative_class_ranking_is_one_against_the_rest(surface):
    schema = Schema(task="multiclass", classes=("a", "b", "c"))
    result = evaluate_classification(surface, rows(150), schema, Calibration(threshold=0.5), **FEW)
    probs = torch.softmax(surface.logits.double(), dim=1).numpy()
    one_hot = surface.target.numpy()[:, None] == np.arange(3)
    assert result.metrics["auroc"].value == pytest.approx(
        oracle.roc_auc_score(surface.target, probs, multi_class="ovr")
    )
    assert result.metrics["average_precision"].value == pytest.approx(oracle.average_precision_score(one_hot, probs))
    assert "false_reject_rate" not in result.metrics
    assert result.escapes is None
    assert "escapes" not in result.flat()


@pytest.mark.parametrize("schema", [BINARY, Schema(task="binary", classes=("bad", "good"), negative_class="good")])
def test_binary_values_agree_with_sklearn_with_missing_labels(schema):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=90)
    target = (rng.random(90) < 1 / (1 + np.exp(-logits))).astype(float)
    target[::10] = np.nan
    calibration = Calibration(temperature=2.0, threshold=0.4)
    result = evaluate_classification(make(logits[:, None], target), rows(90), schema, calibration, **FEW)
    known = ~np.isnan(target)
    truth, preds = target[known].astype(int), (logits[known] >= 0).astype(int)
    second = 1 / (1 + np.exp(-logits[known] / 2.0))
    positive = 1 if schema.negative_class is None else 0
    score = second if positive == 1 else 1 - second
    assert result.n == 81
    assert result.metrics["macro_f1"].value == pytest.approx(oracle.f1_score(truth, preds, average="macro"))
    assert result.metrics["auroc"].value == pytest.approx(oracle.roc_auc_score(truth == positive, score))
    assert result.metrics["log_loss"].value == pytest.approx(oracle.log_loss(truth, second), rel=1e-5)
    recall = (score[truth == positive] >= 0.4).mean()
    assert result.metrics["recall_at_threshold"].value == pytest.approx(recall)
    assert len(result.escapes) == ((truth == positive) & (score < 0.4)).sum()
    assert result.negative_class == schema.classes[1 - positive]
    assert result.confusion == tuple(map(tuple, oracle.confusion_matrix(truth, preds).tolist()))


def test_multilabel_values_agree_with_sklearn_with_missing_labels():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(120, 3)).astype(np.float32)
    target = (rng.random((120, 3)) < 1 / (1 + np.exp(-logits))).astype(float)
    target[rng.random((120, 3)) < 0.2] = np.nan
    target[7] = np.nan
    result = evaluate_classification(make(logits, target), rows(120), MULTI, Calibration(temperature=1.5), **FEW)
    parts = {name: [] for name in ("macro_f1", "accuracy", "balanced_accuracy", "auroc", "average_precision")}
    for place, name in enumerate(MULTI.classes):
        known = ~np.isnan(target[:, place])
        truth, score = target[known, place], logits[known, place]
        preds = score >= 0
        parts["macro_f1"].append(oracle.f1_score(truth, preds))
        parts["accuracy"].append(oracle.accuracy_score(truth, preds))
        parts["balanced_accuracy"].append(oracle.balanced_accuracy_score(truth, preds))
        parts["auroc"].append(oracle.roc_auc_score(truth, score))
        parts["average_precision"].append(oracle.average_precision_score(truth, score))
        assert result.recalls[name].value == pytest.approx(oracle.recall_score(truth, preds))
        assert result.recalls[name].n == truth.sum()
    for name, values in parts.items():
        assert result.metrics[name].value == pytest.approx(np.mean(values)), name
    cells = ~np.isnan(target)
    probs = (1 / (1 + np.exp(-logits.astype(float) / 1.5)))[cells]
    assert result.metrics["log_loss"].value == pytest.approx(oracle.log_loss(target[cells], probs))
    assert result.metrics["brier"].value == pytest.approx(oracle.brier_score_loss(target[cells], probs))
    assert result.n == cells.any(axis=1).sum()
    assert result.confusion == result.decisions == ()
    assert result.escapes is None


def test_one_class_only_is_not_available_with_the_reason():
    logits = np.random.default_rng(0).normal(size=(6, 3))
    good = evaluate_classification(make(logits, [1] * 6), rows(6), SURFACE, Calibration(threshold=0.5), **FEW)
    for name in ("auroc", "average_precision", "recall_at_threshold"):
        assert good.metrics[name].value is None
        assert good.metrics[name].reason == "every record is `free`"
    assert good.metrics["recall_pit"].reason == "no record of `pit`"
    bad = evaluate_classification(make(logits, [0] * 6), rows(6), SURFACE, Calibration(threshold=0.5), **FEW)
    assert bad.metrics["auroc"].reason == bad.metrics["false_reject_rate"].reason == "no record is `free`"
    assert bad.metrics["macro_f1"].value is not None
    json.dumps(good.flat(), allow_nan=False)
    assert "n/a (no record of `pit`)" in format_table(good)


def test_baseline_rows_stand_beside_the_model_with_paired_differences(surface):
    flipped = make(surface.logits.roll(1, dims=1), surface.target)
    baselines = {
        "itself": BaselineOutputs(surface, Calibration(), "the same"),
        "flipped": BaselineOutputs(flipped, Calibration(threshold=0.9)),
    }
    result = evaluate_classification(surface, rows(150), SURFACE, Calibration(), baselines=baselines, n_resamples=200)
    assert result.baselines["itself"] == result.metrics
    zero = result.differences["itself"]["macro_f1"]
    assert (zero.value, zero.low, zero.high) == (0.0, 0.0, 0.0)
    worse = result.differences["flipped"]["accuracy"]
    assert worse.value == pytest.approx(
        result.metrics["accuracy"].value - result.baselines["flipped"]["accuracy"].value
    )
    assert worse.low > 0
    assert "false_reject_rate" in result.baselines["flipped"]
    assert result.descriptions == {"itself": "the same", "flipped": ""}
    assert isinstance(result.differences["flipped"]["log_loss"], Interval)
    assert "log_loss_minus_flipped" in result.flat()


def test_same_seed_same_result(surface):
    first, again, other = (
        evaluate_classification(surface, rows(150), SURFACE, Calibration(), seed=seed, **FEW) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.metrics != other.metrics


def test_bar_runs_to_the_end(surface, capsys):
    evaluate_classification(surface, rows(150), SURFACE, Calibration(), show_progress=True, **FEW)
    assert "Bootstrap" in capsys.readouterr().err


def test_outputs_of_another_split(surface):
    with pytest.raises(TransferError, match="record 149, and the split has 100"):
        evaluate_classification(surface, rows(100), SURFACE, Calibration(), **FEW)


def test_partial_outputs_are_said_aloud(surface, caplog):
    evaluate_classification(surface, rows(160), SURFACE, Calibration(), **FEW)
    assert "150 of 160 records" in caplog.text


def test_no_labels_at_all():
    with pytest.raises(TransferError, match="2 records have no labels"):
        evaluate_classification(make(np.zeros((2, 3)), None), rows(2), SURFACE, Calibration(), **FEW)
    with pytest.raises(TransferError, match="None of the 2 records"):
        evaluate_classification(make(np.zeros((2, 3)), [-1, -1]), rows(2), SURFACE, Calibration(), **FEW)


def test_baseline_of_other_records(surface):
    other = make(surface.logits[:10], surface.target[:10])
    with pytest.raises(TransferError, match="`knn` was run on other records"):
        evaluate_classification(
            surface, rows(150), SURFACE, Calibration(), baselines={"knn": BaselineOutputs(other, Calibration())}, **FEW
        )
