"""The section on findings, what the verdict says of them, and the model card's warning."""

from pathlib import Path
from typing import Any

import pytest

from lightning_transfer.reporting.findings import (
    WARNING,
    card_facts,
    findings_charts,
    findings_notes,
    findings_section,
    findings_sentence,
    gap_sentences,
)
from lightning_transfer.reporting.model_card import write_model_card
from lightning_transfer.reporting.report import build_report, write_report
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from tests.unit.reporting.finding_run import GAPS, clinical, make_finding_run
from tests.unit.reporting.make_run import item, make_fit, make_test

SCORES = Scores("auroc", {}, clinical=clinical(), gaps=tuple(GAPS))


def test_the_section_has_each_finding_and_each_aim() -> None:
    section = findings_section(SCORES)
    assert [row["name"] for row in section["rows"]] == ["Edema", "Hernia"]
    assert [row["small"] for row in section["rows"]] == [True, False]
    [aim] = section["aims"]
    assert aim["title"] == "Thresholds fixed for a specificity of 0.95 on the calibration split"
    assert [row["probability"] for row in aim["rows"]] == [0.31, None]
    assert section["at_prevalence"]
    assert section["hint"] == ""
    assert section["reasons"] == ["Edema: few", "Hernia: no record with `Hernia`"]


def test_without_a_stated_prevalence_it_says_what_predictive_values_are_of() -> None:
    section = findings_section(Scores("auroc", {}, clinical=clinical(None)))
    assert not section["at_prevalence"]
    assert "`evaluation.prevalence`" in section["hint"]
    assert findings_section(Scores("auroc", {}))["missing"]


def test_charts_are_of_the_findings_that_have_bins() -> None:
    [chart] = findings_charts(SCORES)
    assert chart.title == "Edema"
    assert [line["name"] for line in chart.lines] == ["as it should be", "before temperature", "after temperature"]


def test_the_sentence_takes_the_highest_specificity_and_names_the_worst() -> None:
    assert "“Edema” has a sensitivity of 0.700 [0.600, 0.800]" in findings_sentence(SCORES)
    found = clinical()
    second: dict[str, Any] = {**found["findings"][0], "name": "Mass"}
    low = {**second["points"][0], "metrics": {**second["points"][0]["metrics"], "sensitivity": item(0.3, 0.2, 0.4)}}
    other = {**low, "aim": "sensitivity", "target": 0.99}
    second["points"] = [{**low, "target": 0.9, "metrics": {}}, low, other]
    found["findings"].append(second)
    text = findings_sentence(Scores("auroc", {}, clinical=found))
    assert "for a specificity of 0.95" in text
    assert "from 0.300 [0.200, 0.400] for “Mass” to 0.700 [0.600, 0.800] for “Edema”" in text
    assert findings_sentence(Scores("auroc", {})) == ""
    undefined = {"findings": [found["findings"][1]]}
    assert "is undefined on the test split" in findings_sentence(Scores("auroc", {}, clinical=undefined))


def test_notes_say_where_calibration_does_not_hold_and_who_is_served_worse() -> None:
    notes = list(findings_notes(SCORES))
    assert notes[0].endswith("calibration fixed them for: Edema 0.850 [0.800, 0.900] for 0.95 of specificity.")
    assert notes[1] == "Findings with fewer than 20 test patients who have them: Edema 15."
    assert notes[2].startswith("Largest gap: by site, AUROC is 0.900 for “a” and 0.700 for “b”")
    assert list(findings_notes(Scores("auroc", {}))) == []
    # An interval that reaches the aim says nothing.
    kept = clinical()
    kept["findings"][0]["points"][0]["metrics"]["specificity"] = item(0.9, 0.8, 0.96)
    assert not any("surely miss" in note for note in findings_notes(Scores("auroc", {}, clinical=kept)))


def test_gaps_of_single_findings_come_last() -> None:
    first, last = gap_sentences(SCORES)
    assert first.endswith("; it stands out.")
    assert last.startswith("Largest gap of a single finding, “Edema”: by sex")
    assert last.endswith("; gaps as large come by chance.")


def test_the_card_warns_and_states_the_datas_licence(tmp_path: Path) -> None:
    text = write_model_card(make_finding_run(tmp_path / "run")).read_text()
    assert "Not for clinical use" in text.partition("## Intended use")[0]
    assert "Licence of the data: CC BY 4.0" in text
    assert "| Edema | 20 | 40 | 0.800 \\[0.750, 0.850\\]" in text or "| Edema | 20 | 40 | 0.800" in text
    assert "Thresholds fixed for a specificity of 0.95" in text
    # Tables must stand on lines of their own, or Markdown shows bars.
    lines = text.splitlines()
    assert all(
        lines[place - 1] == "" or lines[place - 1].startswith("|")
        for place, line in enumerate(lines)
        if line[:1] == "|"
    )


def test_an_unstated_licence_is_said_and_the_warning_can_be_left_to_others(tmp_path: Path) -> None:
    run = RunFiles.read(make_finding_run(tmp_path / "run", not_for_clinical_use=False, data_licence=None))
    facts = card_facts(run, None)
    assert facts["warning"] == ""
    assert facts["data_licence"].startswith("not stated")
    scans = card_facts(RunFiles.read(make_fit(tmp_path / "scans", kind="scan")), None)
    assert (scans["warning"], scans["data_licence"]) == (WARNING, "not stated")
    plain = make_test(make_fit(tmp_path / "plain"))
    assert card_facts(RunFiles.read(plain), None) == {}
    assert "clinical" not in write_model_card(plain).read_text()


def test_the_page_shows_it(tmp_path: Path) -> None:
    folder = make_finding_run(tmp_path / "run")
    report = build_report(RunFiles.read(folder))
    assert "findings" in report["sections"]
    assert "At the threshold that calibration fixed" in report["verdict"]["sentences"][2]
    text = write_report(folder, grad_cam=False).read_text()
    assert WARNING.split(".")[0] in text
    assert "Thresholds fixed for a specificity of 0.95" in text
    assert "Reliability of each finding" in text
    assert "Largest gap: by site" in text
    assert "Licence of the data" in text
    assert "Edema: missed, the surest first" in text
    assert "Could not be shown" not in text


@pytest.mark.parametrize("broken", [{"findings": [{}]}, {"findings": ["x"]}, {"findings": [{"points": [{}]}]}])
def test_a_strange_file_takes_nothing_else_away(broken: dict[str, Any], tmp_path: Path) -> None:
    scores = Scores("auroc", {}, clinical=broken)
    findings_section(scores)
    assert isinstance(findings_sentence(scores), str)
    assert list(findings_notes(scores)) == []


def test_other_runs_have_no_such_section(tmp_path: Path) -> None:
    report = build_report(RunFiles.read(make_test(make_fit(tmp_path / "run"))))
    assert "findings" not in report["sections"]
