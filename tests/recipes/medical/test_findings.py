"""The whole path of findings: points fixed at the fit, judged by the test, on the page and the card."""

import json
from pathlib import Path

import torch

from lightning_transfer.evaluation import CLINICAL_KEY, ClinicalPoints
from tests.recipes.medical.conftest import small_fit
from tests.recipes.verbs import Run, run_folder


def test_fit_and_test_of_two_findings(drawn: Path, run: Run) -> None:
    words = [*small_fit(drawn, "edema", "mass"), "--model.head=findings", "--model.in_channels=1",
             "--model.loss=asymmetric", "--model.class_weights=balanced", "--model.test_time_views=[scale]",
             "--evaluation.prevalence={edema: 0.05}", "--evaluation.data_licence=drawn by formula",
             "--evaluation.baselines=[majority]", "--data.test_fraction=0.5"]  # fmt: skip
    code, printed = run(*words)
    assert code == 0, printed
    assert "Operating points, fixed on" in printed
    assert "Best val_auroc" in printed
    folder = run_folder(printed)
    payload = torch.load(folder / "model.ckpt", weights_only=True)["lightning_transfer"]
    assert payload["module"] == "FindingsModule"
    assert payload["card"]["input_size"][0] == 1
    assert payload["schema"]["preprocessing"]["channels"] == 1
    points = ClinicalPoints.from_dict(payload[CLINICAL_KEY])
    assert {point.finding for point in points.points} == {"edema", "mass"}
    code, printed = run("test", str(folder))
    assert code == 0, printed
    assert "Largest gap in auroc" in printed
    evaluation = json.loads((folder / "test" / "evaluation.json").read_text())
    assert evaluation["headline"] == evaluation["slices_headline"] == "auroc"
    assert {gap["column"] for gap in evaluation["slices_gaps"]} >= {"sex"}
    [edema, mass] = evaluation["clinical"]["findings"]
    assert edema["points"][0]["log_odds"] == points.of("edema")[0].log_odds
    assert "ppv_at_prevalence" in edema["points"][0]["metrics"]
    assert "ppv_at_prevalence" not in mass["points"][0]["metrics"]
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    assert metrics["auroc_edema"]["num_groups"] == evaluation["clinical"]["num_groups"]
    page, card = (folder / "report.html").read_text(), (folder / "model_card.md").read_text()
    assert "Could not be shown" not in page
    for text in (page, card):
        assert "Not for clinical use" in text
        assert "drawn by formula" in text
    code, printed = run("export", str(folder))
    assert code != 0
    assert "averages over views" in printed
