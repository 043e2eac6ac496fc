import json
from pathlib import Path
from typing import Any

import pytest
from make_run import make_fit, write

from lightning_transfer.reporting import training
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.run_files import RunFiles


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    return RunFiles.read(make_fit(tmp_path / "run"))


def changed(run: RunFiles, **files: Any) -> RunFiles:
    return RunFiles(**{**vars(run), **files})


def test_the_data_are_counted_with_what_the_check_found(run: RunFiles) -> None:
    section = training.data_section(run)
    assert section["splits"][0] == {"split": "train", "total": 120, "num_groups": 40, "counts": [40, 40, 40]}
    assert section["findings"][0]["message"] == "2 groups lie on both sides."
    assert section["skipped"] == [{"id": "broken.png", "reason": "not an image"}]
    assert not section["check_hint"]
    unchecked = training.data_section(changed(run, check={}))
    assert unchecked["check_hint"] == "Not checked: run `python -m recipes.vision check-data --config FILE`."
    assert training.data_section(changed(run, data={}, plan={}))["missing"]


@pytest.mark.parametrize(("n", "rows"), [(8, 0), (9, 9)])
def test_many_classes_get_rows_and_not_columns(run: RunFiles, n: int, rows: int) -> None:
    names = [f"c{place}" for place in range(n)]
    counts = {"train": {name: place for place, name in enumerate(names)}, "test": {"c1": 5}}
    section = training.data_section(changed(run, data={"classes": names, "counts": counts}))
    assert len(section["by_class"]) == rows
    if rows:
        assert section["by_class"][1] == {"name": "c1", "counts": [1, 5]}


def test_a_clean_check_is_no_missing_check(run: RunFiles) -> None:
    section = training.data_section(changed(run, check={"errors": 0, "findings": []}))
    assert section["checked"]
    assert not section["check_hint"]


def test_stages_say_when_they_begin(run: RunFiles) -> None:
    assert [stage["begins"] for stage in training.plan_section(run)["stages"]] == ["epoch 0", "epoch 2"]
    stages = [{**run.plan["stages"][0], "epoch": None, "step": 50}, {**run.plan["stages"][1], "epoch": None}]
    found = changed(run, plan={**run.plan, "stages": stages})
    assert [stage["begins"] for stage in training.plan_section(found)["stages"]] == [
        "step 50", "when the watched metric stalls",
    ]  # fmt: skip
    assert training.plan_timeline(found) is None


def test_the_timeline_goes_from_the_head_down_with_the_rates_of_each_group(run: RunFiles) -> None:
    found = training.plan_timeline(run)
    assert found is not None
    assert [row["name"] for row in found.rows] == ["head", "layer4", "stem"]
    assert [row["rate"] for row in found.rows] == ["0.001", "0.0001", ""]
    assert found.rows[0]["length"] == 2 * found.rows[1]["length"] > 0
    assert found.rows[2]["length"] == 0


def test_a_group_has_its_own_rates_and_not_those_of_a_longer_name(run: RunFiles) -> None:
    rates = [{"name": "features.1-depth1", "lr": 1e-5}, {"name": "features.10-depth9", "lr": 1e-3}]
    groups = [{"name": name} for name in ("features.1", "features.10", "head")]
    plan = {**run.plan, "groups": groups, "learning_rates": rates, "stages": [
        {"epoch": 0, "opened": [], "open_groups": ["features.1", "features.10"], "reached": True}]}  # fmt: skip
    found = training.plan_timeline(changed(run, plan=plan))
    assert found is not None
    assert [row["rate"] for row in found.rows] == ["", "0.001", "1e-05"]


def test_curves_are_over_epochs_done(run: RunFiles) -> None:
    assert training.validation_points(run, "val_macro_f1") == [(1.0, 0.0), (2.0, 0.1), (3.0, 0.2), (4.0, 0.3)]
    assert training.validation_points(run, "train_loss")[0] == (1.0, 1.0)
    losses, scores = training.curve_charts(run)
    assert [line["name"] for line in losses.lines] == ["training loss", "validation loss"]
    assert [line["name"] for line in scores.lines] == ["validation macro-F1"]
    # The stage opens after two epochs; the third one was kept.
    assert [kind for _, kind in losses.marks] == ["stage", "kept"]
    left, _, right, _ = losses.frame
    last = float(losses.x_ticks[-1][1])
    assert last >= 4
    assert [place for place, _ in losses.marks] == [round(left + (right - left) * done / last, 1) for done in (2, 3)]


def test_forgetting_is_drawn_against_the_new_task(run: RunFiles) -> None:
    charts = training.forgetting_charts(run, Forgetting.read(run))
    assert [chart.title for chart in charts] == [
        "Forgetting while training",
        "New task against old task, epoch by epoch",
    ]
    assert [dot[-1] for dot in charts[1].lines[0]["dots"]][3] == "forgetting accuracy: 0.300 at 0.030"
    section = training.forgetting_section(run, Forgetting.read(run))
    assert section["readings"][0]["worst"] == 0.03
    nothing = training.forgetting_section(run, Forgetting())
    assert "ForgettingMonitor" in nothing["missing"]


def test_the_seconds_of_a_stage_are_those_of_its_epochs(run: RunFiles) -> None:
    epochs = [{"epoch": epoch, "seconds": float(10**epoch)} for epoch in range(4)]
    section = training.cost_section(changed(run, cost={"epochs": epochs}), {})
    assert [(stage["epochs"], stage["seconds"]) for stage in section["stages"]] == [
        ("0 to 1", 11.0),
        ("2 to 3", 1100.0),
    ]
    assert section["fit_seconds"] == 40.0
    bare = training.cost_section(changed(run, cost={}, fit={}), {})
    assert "cost.json" in bare["stage_hint"]
    assert "fit_seconds" in bare["fit_hint"]
    assert "export RUN" in bare["export_hint"]


def test_the_environment_is_named(run: RunFiles, tmp_path: Path) -> None:
    section = training.environment_section(run)
    assert {"name": "device", "value": "cpu"} in section["facts"]
    assert {"name": "torch", "version": "2.11.0"} in section["versions"]
    write(run.folder / "environment.json", {})
    assert training.environment_section(RunFiles.read(run.folder))["missing"]


def test_the_sections_are_plain_values(run: RunFiles) -> None:
    sections = [training.data_section(run), training.plan_section(run), training.cost_section(run, {})]
    assert json.loads(json.dumps(sections)) == sections
