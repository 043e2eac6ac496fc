"""The worst misses of each finding, and their pictures."""

import json
from pathlib import Path

import pytest

from lightning_transfer.reporting import pictures
from lightning_transfer.reporting.finding_errors import worst_misses
from lightning_transfer.reporting.report import write_report
from lightning_transfer.reporting.run_files import RunFiles
from tests.unit.reporting.finding_run import FINDINGS, make_finding_run

EDEMA_MISSED, EDEMA_ALARM = "Edema: missed, the surest first", "Edema: false alarms, the surest first"


def test_each_finding_has_its_own_and_unknown_labels_are_no_errors(tmp_path: Path) -> None:
    run = RunFiles.read(make_finding_run(tmp_path / "run"))
    found = worst_misses(run.predictions, FINDINGS)
    assert {title: [error.id for error in errors] for title, errors in found.items()} == {
        EDEMA_MISSED: ["m.png", "n.png"],
        EDEMA_ALARM: ["f.png"],
        "Hernia: false alarms, the surest first": ["f.png"],
    }
    first = found[EDEMA_MISSED][0]
    assert (first.label, first.decision, first.confidence) == ("Edema", "no Edema", 0.05)
    # One record is shown for two findings, with the evidence for each.
    assert {errors[0].map_key for title, errors in found.items() if "alarms" in title} == {
        "f.png|Edema",
        "f.png|Hernia",
    }


def test_uncertain_and_missing_labels_and_strange_rows_are_left_out() -> None:
    row = {"id": "a", "decision": "", "probability_Edema": "0.1", "probability_Hernia": "x"}
    for label in ("?|?", "0.6|0.4", "", "1", "1|0|0"):
        assert worst_misses([{**row, "label": label}], FINDINGS) == {}
    assert worst_misses([{**row, "label": "1|0", "decision": "unreadable"}], FINDINGS) == {}
    many = [{**row, "id": str(place), "label": "1|0", "probability_Edema": str(place / 20)} for place in range(9)]
    assert [error.id for error in worst_misses(many, FINDINGS, limit=2)[EDEMA_MISSED]] == ["0", "1"]


def test_the_evidence_is_that_of_the_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_finding_run(tmp_path / "run")
    asked = []

    def explanations(run: RunFiles, errors: list, files: object) -> tuple[dict[str, str], str]:
        asked.extend((error.id, error.explained) for error in errors)
        return {error.map_key: f"data:image/jpeg;base64,{error.explained}" for error in errors}, ""

    monkeypatch.setattr(pictures, "explanations", explanations)
    text = write_report(folder).read_text()
    assert ("f.png", "Hernia") in asked
    assert ("f.png", "Edema") in asked
    assert text.count("base64,Hernia") == 1
    assert text.count("base64,Edema") == 3
    assert "what speaks for Hernia" in text
    kinds = json.loads((folder / "report.json").read_text())["sections"]["errors"]["kinds"]
    assert next(kind["title"] for kind in kinds) == EDEMA_MISSED
