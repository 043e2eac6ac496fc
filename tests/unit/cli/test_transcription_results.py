"""A recipe that transcribes, through the command line, with a toy that learns to hear three letters."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_transfer.cli import main
from tests.unit.cli.conftest import Done, runner

pytest.importorskip("jiwer")

Speech = Callable[..., Done]
FIT = ("fit", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
       "--trainer.log_every_n_steps", "1")  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toy_recipe.speech import RECIPE

    root = tmp_path_factory.mktemp("heard") / "runs"
    assert main(RECIPE, [*FIT, "--trainer.default_root_dir", str(root)]) == 0
    [run] = (root / "toyspeech").iterdir()
    return run


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "runs" / "toyspeech" / fitted.name))


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Speech:
    from toy_recipe.speech import RECIPE

    monkeypatch.chdir(tmp_path)
    return runner(RECIPE, capsys)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_fit_keeps_the_checkpoint_with_the_lowest_val_wer(fitted: Path) -> None:
    [best] = (fitted / "checkpoints").glob("best-*")
    before, after = (torch.load(path, weights_only=True) for path in (best, fitted / "model.ckpt"))
    assert all(torch.equal(value, after["state_dict"][name]) for name, value in before["state_dict"].items())
    assert "optimizer_states" not in after
    payload = after["lightning_transfer"]
    assert payload["schema"]["task"] == "transcription"
    assert payload["schema"]["preprocessing"]["scoring_normaliser"] == "basic"
    assert payload["card"]["processor"]["vocabulary"]["tokens"] == payload["schema"]["classes"]
    metrics = json.loads((fitted / "metrics.json").read_text())
    assert metrics["val_wer"]["value"] == 0.0
    assert metrics["fit_seconds"]["value"] > 0
    assert json.loads((fitted / "data.json").read_text())["num_records"] == {"train": 24, "val": 8, "test": 16}


def test_a_test_writes_transcripts_scores_and_a_table(speech: Speech, run: Path) -> None:
    done = speech("test", run, "--evaluation.keywords", "[abc, zzz]")
    assert done.code == 0, done.err
    rows = _rows(run / "test" / "predictions.jsonl")
    assert [row["id"] for row in rows[:4]] == ["u32", "u33", "broken", "u34"]
    assert rows[2]["reason"] == "no sound in it"
    assert len(rows) == 17
    assert rows[0]["reference"].endswith(".")
    assert rows[0]["text"] == rows[0]["reference_normalised"]
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["wer"]["value"] == 0.0
    assert metrics["wer_raw"]["value"] == 1.0
    assert metrics["wer_of_pretrained"]["value"] == 1.0
    assert metrics["wer_minus_pretrained"]["value"] == -1.0
    assert metrics["keyword_recall"]["value"] == 1.0
    assert metrics["real_time_factor"]["value"] > 0
    evaluation = json.loads((run / "test" / "evaluation.json").read_text())
    assert evaluation["task"] == "transcription"
    assert {item["speaker"] for item in evaluation["speakers"]} == {"s4", "s5"}
    assert {item["column"] for item in evaluation["slices"]} == {"accent", "duration"}
    assert set(evaluation["seconds"]) == {"fit", "baseline_pretrained"}
    assert "wer of pretrained" in done.out
    assert "Not judged, as it could not be read: broken" in done.out


def test_other_options_judge_otherwise(speech: Speech, run: Path) -> None:
    (run.parent / "words.txt").write_text("# products\nABC.\n\nbca\n")
    done = speech("test", run, "--evaluation.scoring_normaliser", "none", "--evaluation.baselines", "[]",
                  "--evaluation.slices", "[accent]", "--evaluation.keywords", run.parent / "words.txt")  # fmt: skip
    assert done.code == 0, done.err
    evaluation = json.loads((run / "test" / "evaluation.json").read_text())
    assert evaluation["normaliser"] == "none"
    assert evaluation["metrics"]["wer"]["value"] == 1.0
    assert evaluation["baselines"] == {}
    assert [item["keyword"] for item in evaluation["keywords"]] == ["ABC.", "bca"]
    assert {item["column"] for item in evaluation["slices"]} == {"accent"}


def test_part_of_a_split_gives_part_of_the_transcripts(speech: Speech, run: Path) -> None:
    done = speech("test", run, "--trainer.limit_test_batches", "0.5")
    assert done.code == 0, done.err
    assert [row["id"] for row in _rows(run / "test" / "predictions.jsonl")] == [f"u{place}" for place in range(32, 40)]
    evaluation = json.loads((run / "test" / "evaluation.json").read_text())
    assert evaluation["n"] == 8
    assert evaluation["baselines"]["pretrained"]["wer"]["n"] == 8


def test_predict_writes_a_row_for_each_input(speech: Speech, run: Path) -> None:
    done = speech("predict", run, "--data.labelled", "false")
    assert done.code == 0, done.err
    rows = _rows(run / "predict" / "predictions.jsonl")
    assert len(rows) == 17
    assert rows[2] == {**dict.fromkeys(rows[2]), "id": "broken", "path": "broken.wav", "start": 0.0,
                       "reason": "no sound in it"}  # fmt: skip
    assert all(row["text"] and row["wer"] is None and row["reference"] is None for row in rows if row["id"] != "broken")
    assert "16 recordings transcribed, 1 unreadable" in done.out


def test_tested_runs_are_compared(speech: Speech, run: Path) -> None:
    other = Path(shutil.copytree(run, run.parent / "other"))
    assert speech("test", run).code == 0
    done = speech("test", other)
    assert done.code == 0, done.err
    path = other / "test" / "predictions.jsonl"
    path.write_text(path.read_text().replace('"text_normalised": "bca', '"text_normalised": "xyz'))
    done = speech("compare", run, other)
    assert done.code == 0, done.err
    [wer, *_] = [line.split() for line in done.out.splitlines() if line.startswith("wer")]
    assert wer[1] == "0.000"
    assert 0 < float(wer[4]) < 1


def test_validate_gives_the_score_of_the_fit_again(speech: Speech, run: Path) -> None:
    done = speech("validate", run)
    assert done.code == 0, done.err
    assert json.loads((run / "validate" / "metrics.json").read_text())["val_wer"]["value"] == 0.0


def test_a_plan_says_no_more_than_it_knows(speech: Speech) -> None:
    done = speech("plan", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu")
    assert done.code == 0, done.err
    assert "utterances" not in done.out
    assert "train  24" in done.out
    assert "Recommendation" not in done.out
    assert "recommendation" not in json.loads((done.run / "plan.json").read_text())


def test_what_is_for_classifiers_is_refused(speech: Speech, run: Path) -> None:
    for words, message in (
        (("check-data", "--suspects"), "Unknown option `--suspects`"),
        (("test", run, "--evaluation.baselines", "[majority]"), "got `majority`"),
        (("test", run, "--evaluation.max_false_reject_rate", "0.1"), "max_false_reject_rate"),
        (("fit", "--evaluation.keywords", "none.txt"), "There is no file `none.txt`"),
    ):
        done = speech(*words)
        assert done.code == 2, words
        assert message in done.err
