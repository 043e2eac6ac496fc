from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_transfer import metrics
from lightning_transfer.evaluation import Outputs, evaluate_slices
from lightning_transfer.evaluation.scores import labels_of
from lightning_transfer.evaluation.slices import Slice, SliceTable
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration, Record, Schema
from tests.unit.evaluation.finding_toys import SCHEMA as SEVERAL
from tests.unit.evaluation.finding_toys import findings

CLASSES = ("good", "pit", "dent")
SCHEMA = Schema(task="multiclass", classes=CLASSES, negative_class="good")
CALIBRATION = Calibration(temperature=1.5, threshold=0.6)
DRAWS = 60


def _toy(n: int = 300, groups: int = 40, seed: int = 0) -> tuple[Outputs, list[Record], np.ndarray]:
    """Records whose model is worse on line `c`; groups lie in one line or in several."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, n)
    lines = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    logits = rng.normal(size=(n, 3)) + np.where(lines == "c", 0.3, 1.0)[:, None] * np.eye(3)[target]
    records = [
        Record(id=str(place), input=None, label=CLASSES[target[place]], group=f"g{place % groups}", meta={"line": line})
        for place, line in enumerate(lines.tolist())
    ]
    outputs = Outputs(torch.tensor(logits), torch.zeros(n, 1), torch.tensor(target), torch.arange(n))
    return outputs, records, lines


def _with(record: Record, **meta: object) -> Record:
    return replace(record, meta=meta)


def _by_value(table: SliceTable) -> dict[str, Slice]:
    return {item.value: item for item in table.slices}


def test_every_number_is_that_of_a_slow_loop_over_the_same_draws() -> None:
    outputs, records, lines = _toy()
    table = evaluate_slices(outputs, records, SCHEMA, CALIBRATION, n_resamples=DRAWS)
    logits, target = outputs.logits.numpy(), outputs.target.numpy()
    preds = logits.argmax(axis=1)
    shares = np.exp(logits / 1.5) / np.exp(logits / 1.5).sum(axis=1, keepdims=True)
    called = (1 - shares[:, 0] >= 0.6).astype(float)

    def macro(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return metrics.macro_f1(metrics.class_counts(weights * mask, preds, target, 3))

    for value, found in _by_value(table).items():
        mask = lines == value
        statistics = {
            "macro_f1": lambda w, m=mask: macro(w, m),
            "accuracy": lambda w, m=mask: metrics.weighted_mean(w * m, (preds == target).astype(float)),
            "recall_at_threshold": lambda w, m=mask: metrics.weighted_mean(w * (m & (target > 0)), called),
            "false_reject_rate": lambda w, m=mask: metrics.weighted_mean(w * (m & (target == 0)), called),
        }
        assert list(found.metrics) == list(statistics)
        groups = [record.group for record in records]
        for name, statistic in statistics.items():
            expected = metrics.cluster_bootstrap(statistic, groups, n_resamples=DRAWS)
            item = found.metrics[name]
            assert (item.value, item.low, item.high) == pytest.approx((expected.value, expected.low, expected.high))
        difference = metrics.cluster_bootstrap(lambda w, m=mask: macro(w, m) - macro(w, ~m), groups, n_resamples=DRAWS)
        assert str(found.difference) == str(difference)
        assert (found.n, found.num_groups) == (mask.sum(), len({groups[place] for place in np.flatnonzero(mask)}))
        assert found.metrics["false_reject_rate"].n == (mask & (target == 0)).sum()


def test_auroc_is_that_of_a_slow_loop_too() -> None:
    outputs, records, lines = _toy(n=120, groups=12)
    table = evaluate_slices(outputs, records, SCHEMA, CALIBRATION, headline="auroc", n_resamples=20)
    logits, positive = outputs.logits.numpy() / 1.5, outputs.target.numpy() > 0
    odds = np.logaddexp(logits[:, 1], logits[:, 2]) - logits[:, 0]
    groups = [record.group for record in records]
    for value, found in _by_value(table).items():
        mask = lines == value
        own, rest = (lambda w, m=part: metrics.auroc(w[:, m], odds[m], positive[m]) for part in (mask, ~mask))
        assert str(found.metrics["auroc"]) == str(metrics.cluster_bootstrap(own, groups, n_resamples=20))
        expected = metrics.cluster_bootstrap(lambda w, a=own, b=rest: a(w) - b(w), groups, n_resamples=20)
        assert str(found.difference) == str(expected)
        assert list(found.metrics) == ["auroc", "accuracy", "recall_at_threshold", "false_reject_rate"]


def test_the_planted_weak_slice_is_first_and_stands_out_and_the_others_do_not() -> None:
    outputs, records, _ = _toy()
    table = evaluate_slices(outputs, records, SCHEMA, CALIBRATION, n_resamples=200)
    assert table.slices[0].value == "c"
    assert table.worst[0].value == "c"
    assert table.worst[0].stands_out
    assert table.worst[0].difference.high < 0
    values = [item.metrics["macro_f1"].value for item in table.slices]
    assert values == sorted(values)


def test_where_no_slice_is_weak_hardly_any_stands_out_although_intervals_often_exclude_zero() -> None:
    """Of 30 tables of 8 random slices: with 95% intervals alone a third would name a weak one."""
    excluding = standing_out = 0
    for seed in range(30):
        outputs, records, _ = _toy(n=600, groups=600, seed=seed)
        cells = np.random.default_rng(1000 + seed).integers(0, 8, 600).tolist()
        named = [_with(record, cell=str(cell)) for record, cell in zip(records, cells, strict=True)]
        found = evaluate_slices(outputs, named, SCHEMA, CALIBRATION, n_resamples=200, seed=seed).slices
        excluding += any(not item.difference.low <= 0 <= item.difference.high for item in found)
        standing_out += any(item.stands_out for item in found)
    assert excluding >= 8
    assert standing_out <= 4


def test_small_slices_are_marked_shown_and_never_the_worst() -> None:
    outputs, records, _ = _toy()
    # 19 records of many groups; 30 records of 4 groups.
    named = [
        _with(record, size="few" if place < 19 else "rest", lots="in" if int(record.group[1:]) < 4 else "out")
        for place, record in enumerate(records)
    ]
    table = evaluate_slices(outputs, named, SCHEMA, CALIBRATION, n_resamples=DRAWS)
    found = {(item.column, item.value): item for item in table.slices}
    assert {key for key, item in found.items() if item.small} == {("size", "few"), ("lots", "in")}
    assert found["lots", "in"].n == 32
    assert all(not item.small for item in table.worst)
    assert not any(item.stands_out for item in table.slices if item.small)
    assert "2 have fewer than 20 records or 5 groups" in table.note


def test_a_slice_of_one_class_is_compared_with_the_rest_by_that_class() -> None:
    outputs, records, _ = _toy()
    target, preds = outputs.target.numpy(), outputs.logits.numpy().argmax(axis=1)
    chosen = (target == 1) & (np.arange(300) % 2 == 0)
    named = [_with(r, pits=str(bool(own))) for r, own in zip(records, chosen, strict=True)]
    found = _by_value(evaluate_slices(outputs, named, SCHEMA, CALIBRATION, n_resamples=DRAWS))["True"]
    assert found.num_classes == 1
    f1 = [2 * ((preds == 1) & (target == 1) & m).sum() / (((preds == 1) & m).sum() + ((target == 1) & m).sum())
          for m in (chosen, ~chosen)]  # fmt: skip
    assert found.difference.value == pytest.approx(f1[0] - f1[1])


def test_what_a_slice_lacks_is_undefined_with_the_reason() -> None:
    outputs, records, _ = _toy()
    named = [_with(r, kind=r.label) for r in records]
    found = _by_value(evaluate_slices(outputs, named, SCHEMA, CALIBRATION, n_resamples=DRAWS))
    assert str(found["pit"].metrics["false_reject_rate"]) == "n/a (none is `good`)"
    assert str(found["good"].metrics["recall_at_threshold"]) == "n/a (every record is `good`)"
    assert str(found["good"].difference) == "n/a (undefined here or in the rest)"
    assert not found["good"].stands_out


def test_the_limit_of_slices_leaves_whole_columns_out_by_name() -> None:
    outputs, records, lines = _toy()
    named = [
        _with(r, a=line, b=str(place % 5), c=line)
        for place, (r, line) in enumerate(zip(records, lines.tolist(), strict=True))
    ]
    table = evaluate_slices(outputs, named, SCHEMA, CALIBRATION, max_slices=7, n_resamples=2)
    assert {item.column for item in table.slices} == {"a", "c"}
    assert table.left_out == {"b": "its 5 slices beside the 3 before are more than 7"}


def test_columns_can_be_chosen_or_none_and_records_may_lack_labels_or_not_have_been_run() -> None:
    outputs, records, lines = _toy()
    assert evaluate_slices(outputs, records, SCHEMA, CALIBRATION, columns=[]) == SliceTable("macro_f1")
    table = evaluate_slices(outputs, records, SCHEMA, CALIBRATION, columns=["lin"], n_resamples=2)
    assert list(table.left_out) == ["lin"]
    target = outputs.target.clone()
    target[:100] = -1
    part = Outputs(outputs.logits[:200], outputs.features[:200], target[:200], outputs.index[:200])
    table = evaluate_slices(part, records, SCHEMA, CALIBRATION, columns=["line"], n_resamples=2)
    assert {item.value: item.n for item in table.slices} == {v: (lines[100:200] == v).sum() for v in "abc"}


def test_an_unknown_headline_is_refused() -> None:
    outputs, records, _ = _toy()
    with pytest.raises(ValueError, match="got `auroc`"):
        evaluate_slices(outputs, records, Schema("multiclass", CLASSES), CALIBRATION, headline="auroc")
    with pytest.raises(ValueError, match="got `ece`"):
        evaluate_slices(outputs, records, SCHEMA, CALIBRATION, headline="ece")


def test_a_slice_is_plain_json() -> None:
    outputs, records, _ = _toy()
    table = evaluate_slices(outputs, records, SCHEMA, CALIBRATION, n_resamples=2)
    values = table.slices[0].to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["metrics"]["macro_f1"] == table.slices[0].metrics["macro_f1"].to_dict()
    assert isinstance(table.slices[0].metrics["macro_f1"], Interval)


def test_findings_are_sliced_by_their_mean_auroc_and_the_largest_gap_is_named() -> None:
    outputs, records = findings(n=600)
    calibration = Calibration(label_thresholds=(0.5, 0.5, 0.5))
    table = evaluate_slices(outputs, records, SEVERAL, calibration, headline="auroc", n_resamples=300)
    target = labels_of(outputs, SEVERAL)

    def expected(chosen: np.ndarray, columns: tuple[int, ...] = (0, 1)) -> float:
        known = [chosen & ~np.isnan(target[:, place]) for place in columns]
        return float(np.mean([
            roc_auc_score(target[rows, place], outputs.logits[rows, place])
            for place, rows in zip(columns, known, strict=True)
        ]))  # fmt: skip

    at_a = np.array([record.meta["site"] == "a" for record in records])
    by_site = {item.value: item for item in table.slices if item.column == "site"}
    assert by_site["a"].metrics["auroc"].value == pytest.approx(expected(at_a))
    assert by_site["b"].difference.value == pytest.approx(expected(~at_a) - expected(at_a))
    headline = [gap for gap in table.gaps if not gap.finding]
    assert (headline[0].column, headline[0].best, headline[0].worst) == ("site", "a", "b")
    assert headline[0].difference.value == pytest.approx(expected(at_a) - expected(~at_a))
    assert headline[0].stands_out
    assert {gap.column for gap in headline} == {"age", "sex", "site"}
    assert not next(gap for gap in headline if gap.column == "sex").stands_out
    by_finding = {gap.finding: gap for gap in table.gaps if gap.finding}
    assert set(by_finding) == {"Edema", "Pleural Effusion"}
    assert by_finding["Edema"].difference.value == pytest.approx(expected(at_a, (0,)) - expected(~at_a, (0,)))
    assert "mean_recall_at_thresholds" in by_site["a"].metrics


def test_one_finding_against_none_has_gaps_too_and_macro_f1_has_none() -> None:
    outputs, records = findings(n=400)
    assert outputs.target is not None
    binary = Outputs(outputs.logits[:, :1], outputs.features, outputs.target[:, 0], outputs.index)
    schema = Schema(task="binary", classes=("none", "Edema"))
    table = evaluate_slices(binary, records, schema, Calibration(), headline="auroc", n_resamples=200)
    assert table.gaps[0].column == "site"
    assert not any(gap.finding for gap in table.gaps)
    assert evaluate_slices(binary, records, schema, Calibration(), n_resamples=20).gaps == ()


def test_a_missing_value_is_no_group_of_people() -> None:
    outputs, records = findings(n=400)
    some = [
        replace(record, meta={"sex": record.meta["sex"] if place % 3 else None}) for place, record in enumerate(records)
    ]
    table = evaluate_slices(outputs, some, SEVERAL, Calibration(), headline="auroc", n_resamples=50)
    assert {item.value for item in table.slices} == {"F", "M", "(none)"}
    assert {value for gap in table.gaps for value in (gap.best, gap.worst)} <= {"F", "M"}
