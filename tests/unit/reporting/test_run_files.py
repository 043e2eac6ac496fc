import json
from pathlib import Path

import pytest
from make_run import make_fit, make_test

from lightning_transfer.errors import TransferError
from lightning_transfer.reporting.run_files import RunFiles


def test_everything_of_a_run_is_read(tmp_path: Path) -> None:
    run = RunFiles.read(make_test(make_fit(tmp_path / "run")))
    assert (run.name, run.command, run.modality) == ("run", "python -m recipes.vision", "image")
    assert run.section("trainer") == {"max_epochs": 4}
    assert run.kept_epoch == 2
    assert run.test == tmp_path / "run" / "test"
    assert run.curves[1] == {"epoch": 0.0, "step": 9.0, "val_loss": 1.0, "val_macro_f1": 0.0}
    assert [row["decision"] for row in run.predictions] == ["good", "pit", "scratch"]
    assert run.evaluation["headline"] == "macro_f1"
    assert run.problems == ()


def test_what_is_missing_is_empty_and_what_is_broken_is_named(tmp_path: Path) -> None:
    run = make_test(make_fit(tmp_path / "run"))
    (run / "data.json").write_text("{")
    (run / "plan.json").write_text("[1]")
    (run / "cost.json").unlink()
    (run / "test" / "evaluation.json").write_bytes(b"\xff\xfe{}")
    found = RunFiles.read(run)
    assert found.plan == found.cost == found.evaluation == {}
    assert found.data["task"] == "multiclass"  # from the test, which read the same data
    named = [text.split(" ")[0] for text in found.problems]
    assert named == ["run/data.json", "test/evaluation.json", "run/plan.json"]
    assert "holds a list" in found.problems[2]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"no `config.yaml`: it is no run folder"):
        RunFiles.read(tmp_path)
    with pytest.raises(TransferError, match=r"`.*none` does not exist"):
        RunFiles.read(tmp_path / "none")


def test_the_latest_finished_test_counts(tmp_path: Path) -> None:
    run = make_fit(tmp_path / "run")
    for name in ("test", "test-2", "test-10"):
        make_test(run, name=name, pictures=False)
    (run / "test-11").mkdir()  # not finished
    (run / "test-data").mkdir()
    found = RunFiles.read(run)
    assert found.test == run / "test-10"
    assert found.num_tests == 3


def test_a_checkpoint_that_was_tested_alone_has_the_config_of_the_test(tmp_path: Path) -> None:
    run = make_test(make_fit(tmp_path / "run"))
    (run / "config.yaml").rename(run / "test" / "config.yaml")
    assert RunFiles.read(run).section("trainer") == {"max_epochs": 4}


def test_text_that_no_file_could_hold_is_replaced(tmp_path: Path) -> None:
    run = make_fit(tmp_path / "run")
    (run / "check.json").write_text(json.dumps({"findings": [{"message": "a\udcffb", "examples": ["\ud800"]}]}))
    found = RunFiles.read(run).check["findings"][0]
    assert (found["message"], found["examples"]) == ("a?b", ["?"])


def test_cells_that_were_made_safe_for_a_spreadsheet_are_read_as_they_were(tmp_path: Path) -> None:
    run = make_test(make_fit(tmp_path / "run"), ids=["=a.png", "+b.png", "'c.png"])
    assert (run / "test" / "predictions.csv").read_text().splitlines()[1].startswith("'=a.png")
    assert [row["id"] for row in RunFiles.read(run).predictions] == ["=a.png", "+b.png", "'c.png"]


def test_a_long_text_is_read(tmp_path: Path) -> None:
    run = make_test(make_fit(tmp_path / "run"), texts=["x" * 200_000, "b", "c"])
    assert len(RunFiles.read(run).predictions[0]["path"]) == 200_000


def test_the_kept_epoch_may_be_unknown(tmp_path: Path) -> None:
    run = make_fit(tmp_path / "run")
    (run / "checkpoints" / "best-epoch=2.ckpt").unlink()
    assert RunFiles.read(run).kept_epoch is None
