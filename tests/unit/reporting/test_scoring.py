from pathlib import Path

import pytest
from make_run import evaluation, item, make_fit, make_test, routing

from lightning_transfer.reporting import scoring
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    return RunFiles.read(make_test(make_fit(tmp_path / "run")))


@pytest.fixture
def scores(run: RunFiles) -> Scores:
    found = Scores.read(run)
    assert found is not None
    return found


def test_each_difference_says_what_it_shows(scores: Scores) -> None:
    section = scoring.score_section(scores)
    probe = next(row for row in section["baselines"] if row["key"] == "linear_probe")
    assert probe["name"] == "linear probe, frozen backbone"
    assert probe["differences"]["macro_f1"]["shows"] == "better"
    assert probe["metrics"]["accuracy"] is None
    assert section["cards"] == ["macro_f1", "auroc", "accuracy", "recall_at_threshold", "false_reject_rate"]


def test_levels_stand_beside_those_of_the_baselines(tmp_path: Path) -> None:
    names = ("macro_f1_level_1", "accuracy_level_1", "macro_f1_level_2", "accuracy_level_2")
    metrics = {**evaluation()["metrics"], **{name: item(0.9, 0.8, 1.0) for name in names}}
    baselines = {"majority": {"macro_f1": item(0.2), "macro_f1_level_1": item(0.3)}}
    scores = Scores.read(RunFiles.read(make_test(make_fit(tmp_path / "run"), metrics=metrics, baselines=baselines)))
    assert scores is not None
    section = scoring.score_section(scores)
    assert section["levels"] == list(names)
    assert section["baselines"][0]["levels"] == {**dict.fromkeys(names), "macro_f1_level_1": item(0.3)}


def test_the_routing_stands_in_large_figures(tmp_path: Path) -> None:
    metrics = {"macro_f1": item(0.7), "accuracy": item(0.75), "top_3_accuracy": item(0.9)}
    run = RunFiles.read(make_test(make_fit(tmp_path / "run"), metrics=metrics, routing=routing()))
    scores = Scores.read(run)
    assert scores is not None
    section = scoring.score_section(scores)
    assert section["cards"] == ["routing_coverage", "routing_precision", "macro_f1", "accuracy", "top_3_accuracy"]
    assert section["metrics"]["routing_coverage"]["value"] == 0.71


def test_slices_keep_their_order_within_a_column(run: RunFiles, scores: Scores) -> None:
    section = scoring.slices_section(scores, run)
    assert [row["value"] for row in section["columns"][0]["rows"]] == ["B", "A"]
    assert section["metrics"] == ["macro_f1"]


def test_what_was_not_measured_says_what_to_run(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"), slices=[], curve=[], reliability={}, baselines={}, differences={})
    run = RunFiles.read(folder)
    scores = Scores.read(run)
    assert scores is not None
    assert "python -m recipes.vision test RUN" in scoring.slices_section(scores, run)["missing"]
    assert "python -m recipes.vision test RUN" in scoring.threshold_section(scores, run)["curve_hint"]
    assert scoring.calibration_section(scores, run)["reliability_hint"]
    assert scoring.score_section(scores)["baseline_hint"].startswith("Not measured: set `--evaluation.baselines`")
    assert scoring.reliability_charts(scores) == []


def test_without_a_negative_class_there_is_no_threshold(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"), negative_class=None, calibration={"temperature": 1.0})
    run = RunFiles.read(folder)
    data = {**run.data, "negative_class": None}
    scores = Scores.read(RunFiles(**{**vars(run), "data": data}))
    assert scores is not None
    assert "name no negative class" in scoring.threshold_section(scores, run)["missing"]


def test_temperature_is_beside_the_errors_before_and_after_it(run: RunFiles, scores: Scores) -> None:
    section = scoring.calibration_section(scores, run)
    assert section["temperature"] == 1.5
    [ece, brier] = section["errors"]
    assert (ece["name"], ece["before"], ece["after"]["value"]) == ("ECE", 0.1, 0.06)
    assert (brier["before"], brier["after"]["value"]) == (0.4, 0.35)


def test_the_reliability_chart_has_the_diagonal_and_both_lines(scores: Scores) -> None:
    [chart] = scoring.reliability_charts(scores)
    assert [line["name"] for line in chart.lines] == ["as it should be", "before temperature", "after temperature"]
    assert chart.lines[1]["dots"][0][-1].endswith("12 records")


def test_operating_points_lie_on_the_chart(scores: Scores) -> None:
    costs, both = scoring.operating_charts(scores)
    assert costs.x_label == "share of “good” rejected"
    chosen = next(line for line in costs.lines if line["name"] == "chosen")
    assert chosen["dots"][0][-1] == "chosen: 0.800 at 0.050"
    assert [kind for _, kind in both.marks] == ["chosen"]
    # (0, 1), (0.4, 0.6), (1, 0): the share that is rejected falls with the threshold.
    assert both.lines[0]["name"] == "“good” rejected"
    assert both.description.startswith("Both over the threshold. “good” rejected: 1.000 to 0.000")


def test_metrics_that_are_undefined_stay_in_the_table(tmp_path: Path) -> None:
    metrics = {**evaluation()["metrics"], "auroc": item(None, reason="one class only")}
    scores = Scores.read(RunFiles.read(make_test(make_fit(tmp_path / "run"), metrics=metrics)))
    assert scores is not None
    assert scoring.score_section(scores)["metrics"]["auroc"]["reason"] == "one class only"
    assert "auroc" in scores.shown
