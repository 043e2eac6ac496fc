from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from make_run import item, make_fit, make_test
from page_reader import Page

from lightning_transfer.reporting import write_report
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.shortcuts import shortcut_warnings, shortcuts_section
from lightning_transfer.reporting.verdict import verdict


def row(column: str = "site", finding: str = "covid", **changes: Any) -> dict[str, Any]:
    numbers = {"told": item(0.9, 0.8, 0.95), "own": item(0.8, 0.7, 0.9), "alone": item(0.75, 0.65, 0.85)}
    numbers |= {"within": item(0.6, 0.5, 0.7), "lost": item(0.2, 0.1, 0.3)}
    about = {"features": "frozen", "column": column, "finding": finding, "explains": True, "values": ["a", "b"]}
    return {**about, **numbers, **changes}


def scores(*rows: dict[str, Any], **more: Any) -> Scores:
    better = {"auroc": item(0.2, 0.1, 0.3)}
    base: dict[str, Any] = {
        "n": 100,
        "num_groups": 50,
        "baselines": {"plain": {"auroc": item(0.6)}},
        "differences": {"plain": better},
        "shortcuts": {"shortcuts": list(rows), "left_out": {}, "notes": []},
    }
    return Scores("auroc", {"auroc": item(0.8, 0.7, 0.9)}, **{**base, **more})


def test_the_verdict_warns_first_and_is_not_called_better() -> None:
    assert verdict(scores(), Forgetting()).tone == "better"
    found = verdict(scores(row()), Forgetting())
    assert found.tone == "open"
    assert found.sentences[0].startswith("Better than the best baseline")
    assert found.notes[0] == (
        "A shortcut may explain the score: the frozen features tell `site` (AUROC 0.900 [0.800, 0.950]), and `site` "
        "alone predicts “covid” with AUROC 0.750 [0.650, 0.850], where a linear probe on them reaches 0.800; among "
        "records of the same `site` it is 0.600 [0.500, 0.700]. Judge the model on values of `site` that training "
        "lacks."
    )


def test_a_score_that_is_worse_stays_worse() -> None:
    worse = {"plain": {"auroc": item(-0.2, -0.3, -0.1)}}
    assert verdict(scores(row(), differences=worse), Forgetting()).tone == "worse"


def test_only_what_explains_is_warned_of() -> None:
    assert list(shortcut_warnings(scores(row(explains=False)))) == []
    assert list(shortcut_warnings(scores(shortcuts={}))) == []


def test_a_column_is_one_sentence_whatever_it_explains_and_many_columns_are_counted() -> None:
    rows = [row(features="adapted"), row(), row(finding="mass"), row("view"), row("sex"), row("scanner")]
    said = list(shortcut_warnings(scores(*rows)))
    assert len(said) == 3
    assert "the adapted features tell `site`" in said[0]
    assert "where the model reaches 0.800" in said[0]
    assert said[0].endswith("The same holds for mass.")
    assert said[2] == "Further columns that may explain the score: `sex`, `scanner`."


def test_the_section_has_a_table_for_each_set_of_features() -> None:
    found = shortcuts_section(scores(row(), row("view", explains=False), row(features="adapted")))
    assert [(table["features"], len(table["rows"])) for table in found["tables"]] == [("frozen", 2), ("adapted", 1)]
    assert found["sentence"] == "May explain a label: `site`."
    innocent = shortcuts_section(scores(row(explains=False)))
    assert innocent["sentence"].startswith("None of `site` was shown to explain a label.")


def test_the_page_shows_it_with_names_escaped(tmp_path: Path) -> None:
    found = {"shortcuts": [row("<b>site</b>"), row(explains=False)], "left_out": {"sex": "all <F>"}, "notes": ["A."]}
    run = make_test(make_fit(tmp_path / "run"), shortcuts=found)
    text = write_report(run).read_text()
    assert "<b>site</b>" not in text
    assert "&lt;b&gt;site" in text
    Page(text)
    assert "Shortcuts: the finding, or where it comes from?" in text
    assert "may explain" in text
    assert "all &lt;F&gt;" in text


@pytest.mark.parametrize(
    "found", [[1], "site", {"shortcuts": 3}, {"shortcuts": ["site", {"explains": True, "own": "x"}]}]
)
def test_files_of_another_form_are_no_crash(tmp_path: Path, found: Any) -> None:
    run = make_test(make_fit(tmp_path / "run"), shortcuts=found)
    Page(write_report(run).read_text())


def test_a_run_without_columns_has_no_such_section(tmp_path: Path) -> None:
    run = make_test(make_fit(tmp_path / "run"))
    assert 'id="shortcuts"' not in write_report(run).read_text()
