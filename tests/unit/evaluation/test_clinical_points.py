"""Thresholds of findings. Oracle: scikit-learn's ROC curve."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve

from lightning_transfer.evaluation import Outputs
from lightning_transfer.evaluation.clinical_points import ClinicalPoints, fit_clinical_points
from tests.unit.evaluation.finding_toys import SCHEMA, findings

OUTPUTS, RECORDS = findings(per_patient=1)
GROUPS = [record.group for record in RECORDS]


def test_each_point_is_the_best_of_the_roc_curve_that_keeps_its_aim() -> None:
    points = fit_clinical_points(OUTPUTS, SCHEMA, 1.5, groups=GROUPS)
    assert OUTPUTS.target is not None
    for place, name in enumerate(SCHEMA.classes[:2]):
        target = OUTPUTS.target[:, place].numpy()
        known = (target == 0) | (target == 1)
        score, truth = OUTPUTS.logits[known, place].double().numpy() / 1.5, target[known] == 1
        fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
        for point in points.of(name):
            assert point.log_odds is not None
            called = score >= point.log_odds
            assert point.sensitivity == pytest.approx(called[truth].mean())
            assert point.specificity == pytest.approx(1 - called[~truth].mean())
            assert point.probability == pytest.approx(1 / (1 + np.exp(-point.log_odds)))
            if point.aim == "specificity":
                assert point.sensitivity == pytest.approx(tpr[fpr <= 1 - point.target + 1e-9].max())
            else:
                assert point.specificity == pytest.approx(1 - fpr[tpr >= point.target - 1e-9].min())
    assert [point.key for point in points.of("Edema")] == [
        "specificity_0.9", "specificity_0.95", "sensitivity_0.9", "sensitivity_0.95",
    ]  # fmt: skip


def test_a_finding_that_nobody_has_gets_a_reason_where_it_needs_positives() -> None:
    by_specificity, _, by_sensitivity, _ = fit_clinical_points(OUTPUTS, SCHEMA, 1.0).of("Hernia")
    assert by_specificity.log_odds is not None
    assert by_specificity.sensitivity is None
    assert by_sensitivity.log_odds is None
    assert by_sensitivity.probability is None
    assert "none of the" in by_sensitivity.reason
    assert "with `Hernia`" in by_sensitivity.reason


def test_too_few_patients_are_said_although_there_are_enough_records() -> None:
    few = [f"p{place // 40}" for place in range(len(OUTPUTS))]  # six patients
    [point] = fit_clinical_points(OUTPUTS, SCHEMA, 1.0, groups=few, specificities=[0.95], sensitivities=[]).of("Edema")
    assert point.note == "a specificity of 0.95 needs 20 or more patients without `Edema`, and calibration has 6"
    [enough] = fit_clinical_points(OUTPUTS, SCHEMA, 1.0, groups=GROUPS, specificities=[0.95], sensitivities=[]).of(
        "Edema"
    )
    assert enough.note == ""


def test_uncertain_labels_choose_nothing() -> None:
    assert OUTPUTS.target is not None
    hard = torch.where(OUTPUTS.target == 0.6, torch.nan, OUTPUTS.target)
    without = Outputs(OUTPUTS.logits, OUTPUTS.features, hard, OUTPUTS.index)
    assert fit_clinical_points(without, SCHEMA, 1.0) == fit_clinical_points(OUTPUTS, SCHEMA, 1.0)


def test_points_travel_as_plain_values(tmp_path: object) -> None:
    points = fit_clinical_points(OUTPUTS, SCHEMA, 1.0, groups=GROUPS)
    import io

    stream = io.BytesIO()
    torch.save(points.to_dict(), stream)
    stream.seek(0)
    assert ClinicalPoints.from_dict(torch.load(stream, weights_only=True)) == points


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"`specificities` in \(0, 1\), got 1.0"):
        fit_clinical_points(OUTPUTS, SCHEMA, 1.0, specificities=[1.0])
    with pytest.raises(ValueError, match=r"`sensitivities` in \(0, 1\), got 95"):
        fit_clinical_points(OUTPUTS, SCHEMA, 1.0, sensitivities=[95])
    with pytest.raises(ValueError, match="240 calibration records, got 3"):
        fit_clinical_points(OUTPUTS, SCHEMA, 1.0, groups=["a"] * 3)
