"""Numbers of findings. Oracles: scikit-learn, a confusion matrix, Bayes by counting, a bootstrap written as a loop."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, roc_auc_score

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import Outputs
from lightning_transfer.evaluation.clinical import measure_clinical, prevalences, value_at_prevalence
from lightning_transfer.evaluation.clinical_points import ClinicalPoints, FindingPoint, fit_clinical_points
from lightning_transfer.types import Record, Schema
from tests.unit.evaluation.finding_toys import FINDINGS, SCHEMA, findings

OUTPUTS, RECORDS = findings()
CALIBRATION, CALIBRATION_RECORDS = findings(seed=1)
TEMPERATURE = 0.7
POINTS = fit_clinical_points(CALIBRATION, SCHEMA, TEMPERATURE, groups=[record.group for record in CALIBRATION_RECORDS])
RESULT = measure_clinical(OUTPUTS, RECORDS, SCHEMA, TEMPERATURE, POINTS, prevalence={"Edema": 0.03}, n_resamples=200)


def _known(place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert OUTPUTS.target is not None
    target = OUTPUTS.target[:, place].numpy()
    known = (target == 0) | (target == 1)
    return known, OUTPUTS.logits[known, place].double().numpy() / TEMPERATURE, target[known] == 1


@pytest.mark.parametrize("place", [0, 1])
def test_ranking_and_calibration_are_scikit_learns_on_the_known_labels(place: int) -> None:
    known, log_odds, truth = _known(place)
    found = RESULT.findings[place]
    assert (found.name, found.num_positive, found.num_negative) == (FINDINGS[place], truth.sum(), (~truth).sum())
    for name, expected in (
        ("auroc", roc_auc_score(truth, log_odds)),
        ("average_precision", average_precision_score(truth, log_odds)),
        ("brier", brier_score_loss(truth, 1 / (1 + np.exp(-log_odds)))),
        ("brier_before_temperature", brier_score_loss(truth, 1 / (1 + np.exp(-log_odds * TEMPERATURE)))),
    ):
        item = found.metrics[name]
        assert item.value == pytest.approx(expected)
        assert item.n == known.sum()
        assert item.low is not None
        assert item.high is not None
        assert item.low < expected < item.high
    probs = 1 / (1 + np.exp(-log_odds))
    bins = np.minimum((probs * 15).astype(int), 14)
    ece = sum(abs((truth - probs)[bins == place].sum()) for place in range(15)) / len(probs)
    assert found.metrics["ece"].value == pytest.approx(ece)
    assert found.metrics["ece"].low is None
    assert found.reliability is not None
    assert found.reliability.ece_after == pytest.approx(ece)
    assert sum(item.n for item in found.reliability.after) == known.sum()
    assert found.reliability.brier_before == pytest.approx(found.metrics["brier_before_temperature"].value)


def test_points_fixed_on_calibration_are_applied_to_test_as_they_are() -> None:
    for place, name in enumerate(FINDINGS[:2]):
        _, log_odds, truth = _known(place)
        assert [applied.point for applied in RESULT.findings[place].points] == list(POINTS.of(name))
        for applied in RESULT.findings[place].points:
            assert applied.point.log_odds is not None
            tn, fp, fn, tp = confusion_matrix(truth, log_odds >= applied.point.log_odds).ravel()
            for key, expected in (
                ("sensitivity", tp / (tp + fn)), ("specificity", tn / (tn + fp)),
                ("ppv", tp / (tp + fp)), ("npv", tn / (tn + fn)),
            ):  # fmt: skip
                assert applied.metrics[key].value == pytest.approx(expected)
            assert applied.metrics["sensitivity"].n == truth.sum()
            assert applied.metrics["ppv"].n == tp + fp


def test_predictive_values_at_a_prevalence_are_those_of_a_population_that_has_it() -> None:
    # A population of 100,000 in which 3% have the finding.
    for applied in RESULT.findings[0].points:
        se, sp = (applied.metrics[name].value for name in ("sensitivity", "specificity"))
        assert se is not None
        assert sp is not None
        sick, well = 3_000, 97_000
        ppv = applied.metrics["ppv_at_prevalence"]
        assert ppv.value == pytest.approx(sick * se / (sick * se + well * (1 - sp)))
        npv = applied.metrics["npv_at_prevalence"].value
        assert npv == pytest.approx(well * sp / (well * sp + sick * (1 - se)))
        assert ppv.low is not None
        assert ppv.high is not None
        assert ppv.low < ppv.value < ppv.high
        # The test split has far more of it.
        assert (applied.metrics["ppv"].value or 0) > ppv.value
    assert "ppv_at_prevalence" not in RESULT.findings[1].points[0].metrics


def test_at_the_splits_own_prevalence_they_are_the_counted_ones() -> None:
    _, _, truth = _known(0)
    same = measure_clinical(
        OUTPUTS, RECORDS, SCHEMA, TEMPERATURE, POINTS, prevalence={"Edema": float(truth.mean())}, n_resamples=10
    )
    for applied in same.findings[0].points:
        for name in ("ppv", "npv"):
            assert applied.metrics[f"{name}_at_prevalence"].value == pytest.approx(applied.metrics[name].value)


def test_intervals_draw_patients() -> None:
    _, log_odds, truth = _known(0)
    known = _known(0)[0]
    codes = metrics.group_codes([record.group for record in RECORDS])
    draws, rng = [], np.random.default_rng(5)
    members = [np.flatnonzero((codes == code) & known) for code in range(codes.max() + 1)]
    place_of = np.cumsum(known) - 1
    for _ in range(400):
        rows = place_of[np.concatenate([members[code] for code in rng.integers(0, len(members), len(members))])]
        draws.append(roc_auc_score(truth[rows], log_odds[rows]))
    full = measure_clinical(OUTPUTS, RECORDS, SCHEMA, TEMPERATURE, n_resamples=2000).findings[0].metrics["auroc"]
    np.testing.assert_allclose([full.low, full.high], np.quantile(draws, [0.025, 0.975]), atol=0.012)
    assert full.num_groups == len({record.group for record, keep in zip(RECORDS, known, strict=True) if keep})
    # All records of one patient: no interval, and it is said why.
    alone = [Record(record.id, record.input, record.label, group="p") for record in RECORDS]
    item = measure_clinical(OUTPUTS, alone, SCHEMA, TEMPERATURE, n_resamples=20).findings[0].metrics["auroc"]
    assert (item.low, item.reason) == (None, "1 group, and an interval needs at least 2")


def test_what_is_undefined_has_no_value_and_a_reason() -> None:
    hernia = RESULT.findings[2]
    assert str(hernia.metrics["auroc"]) == "n/a (no record with `Hernia`)"
    assert str(hernia.metrics["average_precision"]) == "n/a (no record with `Hernia`)"
    by_specificity, by_sensitivity = hernia.points[0], hernia.points[2]
    assert str(by_specificity.metrics["sensitivity"]) == "n/a (no record with `Hernia`)"
    assert by_specificity.metrics["specificity"].value is not None
    for item in by_sensitivity.metrics.values():
        assert item.value is None
        assert item.reason.startswith("no threshold: none of the")
    assert hernia.metrics["brier"].value is not None
    json.dumps(RESULT.to_dict(), allow_nan=False)


def test_a_finding_without_labels_and_thresholds_that_call_nothing() -> None:
    assert OUTPUTS.target is not None
    target = OUTPUTS.target.clone()
    target[:, 1] = torch.nan
    point = FindingPoint("Edema", "specificity", 0.9, 1e9, 0.0, 1.0, 5, 5, 5)
    points = ClinicalPoints((point,), 10, 10)
    found = measure_clinical(
        Outputs(OUTPUTS.logits, OUTPUTS.features, target, OUTPUTS.index), RECORDS, SCHEMA, 1.0, points,
        prevalence=0.1, n_resamples=20,
    ).findings  # fmt: skip
    assert str(found[1].metrics["brier"]) == "n/a (no record has a label of `Pleural Effusion`)"
    assert found[1].reliability is None
    numbers = found[0].points[0].metrics
    assert str(numbers["ppv"]) == "n/a (the threshold calls no record)"
    assert str(numbers["ppv_at_prevalence"]) == "n/a (nothing called)"
    # None found and no false alarm is what every draw says: the open ends are given back.
    assert numbers["sensitivity"].value == 0.0
    assert (numbers["sensitivity"].high or 0) > 0.02
    assert (numbers["specificity"].low or 1) < 0.98


def test_a_perfect_point_gets_its_open_end_at_a_prevalence_too() -> None:
    logits = torch.linspace(-1, 1, 30)[:, None]
    outputs = Outputs(logits, logits, (torch.arange(30) >= 15).float(), torch.arange(30))
    records = [Record(str(place), None, group=str(place)) for place in range(30)]
    schema = Schema(task="binary", classes=("none", "covid"))
    points = fit_clinical_points(outputs, schema, 1.0, specificities=[0.95], sensitivities=[])
    result = measure_clinical(outputs, records, schema, 1.0, points, prevalence=0.01, n_resamples=50)
    [found] = result.findings
    ppv, specificity = (found.points[0].metrics[name] for name in ("ppv_at_prevalence", "specificity"))
    assert ppv.value == 1.0
    assert specificity.low == pytest.approx(0.025 ** (1 / 15))  # Clopper and Pearson: none of 15
    se = 0.025 ** (1 / 15)
    assert ppv.low == pytest.approx(0.01 * se / (0.01 * se + 0.99 * (1 - se)))
    assert result.flat()["auroc_covid"].value == 1.0
    assert result.note == ""


def test_exclusive_classes_before_temperature_are_a_softmax() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 3)) * 2
    target = rng.integers(0, 3, 40)
    outputs = Outputs(torch.tensor(logits), torch.zeros(40, 1), torch.tensor(target), torch.arange(40))
    schema = Schema(task="multiclass", classes=("a", "b", "c"))
    records = [Record(str(place), None) for place in range(40)]
    result = measure_clinical(outputs, records, schema, 3.0, n_resamples=10)
    for name, temperature in (("brier", 3.0), ("brier_before_temperature", 1.0)):
        probs = torch.tensor(logits / temperature).softmax(1).numpy()
        for place in range(3):
            expected = np.mean((probs[:, place] - (target == place)) ** 2)
            assert result.findings[place].metrics[name].value == pytest.approx(expected, abs=1e-6)
    assert "name no patients" in result.note


def test_names_in_metrics_json() -> None:
    flat = RESULT.flat()
    assert (
        flat["sensitivity_at_specificity_0.95_Pleural Effusion"] == RESULT.findings[1].points[1].metrics["sensitivity"]
    )
    assert "npv_at_prevalence_at_sensitivity_0.9_Edema" in flat
    assert len(flat) == 3 * 6 + 4 * (6 + 4 + 4)


@pytest.mark.parametrize(("stated", "message"), [
    ({"Edma": 0.1}, "names `Edma`, which is no finding.*Edema"), (1.5, "got 1.5"), ({"Hernia": 0.0}, "got 0.0"),
    (math.nan, "got nan"),
])  # fmt: skip
def test_a_prevalence_that_cannot_be_is_refused(stated: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prevalences(stated, FINDINGS)  # type: ignore[arg-type]


def test_points_of_other_findings_and_missing_labels_are_refused() -> None:
    other = ClinicalPoints((FindingPoint("Covid", "specificity", 0.9, 0.0, 1, 1, 1, 1, 1),), 1, 1)
    with pytest.raises(TransferError, match="points are of Covid"):
        measure_clinical(OUTPUTS, RECORDS, SCHEMA, 1.0, other)
    assert OUTPUTS.target is not None
    nothing = Outputs(OUTPUTS.logits, OUTPUTS.features, torch.full_like(OUTPUTS.target, torch.nan), OUTPUTS.index)
    with pytest.raises(TransferError, match="None of the 240 records"):
        measure_clinical(nothing, RECORDS, SCHEMA, 1.0)


def test_predictive_values_are_undefined_where_nothing_is_called() -> None:
    ppv, npv = value_at_prevalence(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.1)
    assert np.isnan(ppv[0])
    assert npv[0] == pytest.approx(0.9)
    assert ppv[1] == pytest.approx(0.1)
    assert np.isnan(npv[1])
