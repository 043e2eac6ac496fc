import json
from pathlib import Path

from make_run import make_fit

from lightning_transfer.reporting.forgetting import Forgetting, steps_per_epoch
from lightning_transfer.reporting.run_files import RunFiles


def test_what_the_monitor_left_is_read(tmp_path: Path) -> None:
    run = RunFiles.read(make_fit(tmp_path / "run"))
    found = Forgetting.read(run)
    assert steps_per_epoch(run) == 10
    assert found.sources["source accuracy"]["before"]["value"] == 0.8
    assert found.readings == {"forgetting_accuracy": ((1.0, 0.0), (2.0, 0.01), (3.0, 0.02), (4.0, 0.03))}
    assert not found.frozen


def test_a_backbone_that_never_opens_is_frozen(tmp_path: Path) -> None:
    folder = make_fit(tmp_path / "run")
    plan = json.loads((folder / "plan.json").read_text())
    plan["stages"][1]["reached"] = False
    (folder / "plan.json").write_text(json.dumps(plan))
    assert Forgetting.read(RunFiles.read(folder)).frozen
    (folder / "plan.json").unlink()
    assert not Forgetting.read(RunFiles.read(folder)).frozen


def test_without_rows_there_is_nothing(tmp_path: Path) -> None:
    folder = make_fit(tmp_path / "run")
    (folder / "logs" / "csv" / "metrics.csv").unlink()
    (folder / "metrics.json").unlink()
    run = RunFiles.read(folder)
    assert steps_per_epoch(run) == 1.0
    assert Forgetting.read(run) == Forgetting()
