"""What is around the verbs where classes are findings; the whole path is in the medical recipe's tests."""

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_transfer.cli.clinical import PrevalenceCallback, fit_points, judge_findings, slice_headline
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.evaluation import CLINICAL_KEY, ClassificationResult, ClinicalResult
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration, Schema
from tests.unit.evaluation.finding_toys import SCHEMA, findings

OUTPUTS, RECORDS = findings()


def _cli(clinical: bool = True, **options: Any) -> Any:
    options = {"specificities": [0.9], "sensitivities": [0.95], "prevalence": None, **options}
    return SimpleNamespace(
        tells_findings=clinical,
        model=SimpleNamespace(schema=SCHEMA, calibration=Calibration(1.4)),
        calibration=Calibration(1.4),
        config_init={"evaluation": SimpleNamespace(**options)},
        source=SimpleNamespace(payload={}),
        trainer=SimpleNamespace(progress_bar_callback=None),
    )


def test_points_are_fitted_by_patient_stored_and_applied() -> None:
    cli = _cli(prevalence={"Edema": 0.05})
    points = fit_points(cli, (RECORDS, OUTPUTS))
    assert points is not None
    assert [point.key for point in points.of("Edema")] == ["specificity_0.9", "sensitivity_0.95"]
    assert points.num_groups == len({record.group for record in RECORDS})
    cli.source.payload = {CLINICAL_KEY: points.to_dict()}
    found = judge_findings(cli, OUTPUTS, RECORDS)
    assert found is not None
    first = found.findings[0].points[0]
    assert first.point == points.of("Edema")[0]
    # On the records that it was fixed on.
    assert first.metrics["sensitivity"].value == pytest.approx(first.point.sensitivity)
    assert "ppv_at_prevalence" in first.metrics


def test_a_checkpoint_without_points_still_has_its_ranking() -> None:
    found = judge_findings(_cli(), OUTPUTS, RECORDS)
    assert found is not None
    assert found.findings[0].points == ()
    assert found.findings[0].metrics["auroc"].value is not None


def test_other_recipes_have_none_of_it() -> None:
    assert fit_points(_cli(clinical=False), (RECORDS, OUTPUTS)) is None
    assert judge_findings(_cli(clinical=False), OUTPUTS, RECORDS) is None
    assert fit_points(_cli(), None) is None


def test_a_misspelt_finding_is_refused_before_the_first_step() -> None:
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(schema=SCHEMA))
    module: Any = None
    PrevalenceCallback({"Edema": 0.1}).setup(trainer, module, "fit")
    PrevalenceCallback({"Edma": 0.1}).setup(trainer, module, "test")
    with pytest.raises(UsageError, match=r"`evaluation.prevalence` cannot be used: .*`Edma`.*Edema"):
        PrevalenceCallback({"Edma": 0.1}).setup(trainer, module, "fit")


def test_slices_are_by_auroc_where_something_is_ranked() -> None:
    auroc = {"auroc": Interval(0.8, 0.7, 0.9, 10), "macro_f1": Interval(0.5, 0.4, 0.6, 10)}
    clinical = ClinicalResult((), 10, 10)
    several = ClassificationResult("multilabel", ("x",), auroc, (), Calibration(), n=10, num_groups=10)
    assert slice_headline(several, Schema(task="multilabel", classes=("x",))) == "macro_f1"
    from dataclasses import replace

    several = replace(several, clinical=clinical)
    assert several.headline == "auroc"
    assert slice_headline(several, Schema(task="multilabel", classes=("x",))) == "auroc"
    exclusive = replace(several, task="multiclass")
    assert slice_headline(exclusive, Schema(task="multiclass", classes=("a", "b"))) == "macro_f1"
    named = Schema(task="multiclass", classes=("a", "b"), negative_class="a")
    assert slice_headline(exclusive, named) == "auroc"
