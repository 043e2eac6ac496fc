"""The whole path on small data: fit, test, report, predict; no ticket is lost, and the checkpoint travels alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lightning_transfer
from tests.recipes.nlp.conftest import QUEUES, make_rows, small_fit, write_rows
from tests.recipes.verbs import run_folder

Run = Callable[..., tuple[int, str]]


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def folder(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "run"))


def test_the_checkpoint_holds_all_that_prediction_needs(fitted: Path) -> None:
    payload = torch.load(fitted / "model.ckpt", weights_only=True)["lightning_transfer"]
    assert payload["schema"]["classes"] == sorted(QUEUES)
    assert payload["schema"]["preprocessing"]["kind"] == "text"
    assert "[SEP]" in payload["card"]["processor"]["tokenizer_json"]
    assert payload["routing"]["target_precision"] == 0.95
    assert payload["routing"]["n_out_of_scope"] > 0
    assert payload["calibration"]["temperature"] != 1.0
    # The tokenizer is in the checkpoint alone, not in what people read.
    assert all("[SEP]" not in (fitted / name).read_text() for name in ("data.json", "config.yaml", "plan.json"))


def test_test_judges_queues_levels_and_routing(folder: Path, run: Run) -> None:
    code, printed = run("test", str(folder))
    assert code == 0, printed
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    for name in ("macro_f1", "accuracy", "top_3_accuracy", "macro_f1_level_1", "routing_aurc", "macro_f1_of_plain"):
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"], name
    assert metrics["macro_f1"]["value"] > 0.8  # the toy's words tell its queues
    assert metrics["macro_f1_level_1"]["value"] >= metrics["macro_f1"]["value"] - 0.05
    found = json.loads((folder / "test" / "evaluation.json").read_text())["routing"]
    assert set(found["out_of_scope"]["scores"]) == {"max_logit", "energy", "knn"}
    assert sum(found["decisions"].values()) == found["n"] + found["n_out_of_scope"]
    rows = _lines(folder / "test" / "predictions.jsonl")
    assert len(rows) == found["n"] + found["n_out_of_scope"]
    page = (folder / "report.html").read_text()
    assert "When to route" in page
    assert "Grad-CAM" not in page
    assert "TF-IDF" in printed


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_every_row_has_its_line_in_order(folder: Path, tmp_path: Path, run: Run, batch_size: int) -> None:
    rows = make_rows(40, seed=3)
    rows[2]["body"], rows[5]["body"], rows[9]["id"] = "", " \u200b\x00 ", "T001"
    rows[11]["body"], rows[12]["body"] = "lamp broken " * 90_000, "Out of office until Monday, I am on holiday."
    rows[14]["queue"] = "never heard of"
    file = write_rows(tmp_path / "new.csv", rows)
    code, printed = run("predict", str(folder), f"--data.file={file}", f"--data.batch_size={batch_size}")
    assert code == 0, printed
    found = _lines(run_folder(printed) / "predict" / "predictions.jsonl")
    assert [line["id"] for line in found] == [row["id"] for row in rows]
    unreadable = [place for place, line in enumerate(found) if line["decision"] == "unreadable"]
    assert unreadable == [2, 5, 9]
    assert all(found[place]["reason"] for place in unreadable)
    assert found[11]["queues"][0]["queue"] == "technical"
    for line in found:
        if line["decision"] != "unreadable":
            shares = [item["probability"] for item in line["queues"]]
            assert len(shares) == 3
            assert shares == sorted(shares, reverse=True)


def test_python_says_what_the_table_says(folder: Path, tickets: Path, run: Run) -> None:
    _, printed = run("predict", str(folder), f"--data.file={tickets}")
    found = _lines(run_folder(printed) / "predict" / "predictions.jsonl")[:20]
    predictor = lightning_transfer.load(folder)
    said = predictor.predict([row["body"] for row in make_rows()[:20]])
    for line, one in zip(found, said, strict=True):
        assert line["queues"][0]["queue"] == one.predicted
        assert line["confidence"] == pytest.approx(max(one.probabilities.values()), abs=1e-5)


def test_the_encoder_may_be_gone(encoder: Path, tickets: Path, tmp_path: Path, run: Run) -> None:
    moved = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    code, printed = run(*small_fit(moved, tickets), "--trainer.max_epochs=1")
    assert code == 0, printed
    shutil.rmtree(moved)
    code, printed = run("predict", str(run_folder(printed)), f"--data.file={tickets}")
    assert code == 0, printed


@pytest.mark.parametrize("rule", ["head", "chunks"])
def test_long_texts_by_every_rule(encoder: Path, tickets: Path, run: Run, rule: str) -> None:
    words = ["--trainer.max_epochs=1", "--data.max_length=6", f"--data.long_texts={rule}"]
    code, printed = run(*small_fit(encoder, tickets), *words)
    assert code == 0, printed
    code, printed = run("predict", str(run_folder(printed)), f"--data.file={tickets}")
    assert code == 0, printed
    assert len(_lines(run_folder(printed) / "predict" / "predictions.jsonl")) == 240


def test_several_queues_a_ticket(encoder: Path, tmp_path: Path, run: Run) -> None:
    rows = make_rows(120)
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        one["body"], one["queue"] = f"{one['body']} {two['body']}", f"{one['queue']}|{two['queue']}"
    file = write_rows(tmp_path / "tickets.csv", [row for row in rows if "none" not in row["queue"]])
    names = ",".join(QUEUES)
    words = [word for word in small_fit(encoder, file) if "out_of_scope" not in word]
    code, printed = run(*words, "--data.task=multilabel", f"--data.classes=[{names}]", "--data.max_length=24")
    assert code == 0, printed
    found = run_folder(printed)
    payload = torch.load(found / "model.ckpt", weights_only=True)["lightning_transfer"]
    assert len(payload["calibration"]["label_thresholds"]) == 4
    code, printed = run("test", str(found))
    assert code == 0, printed
    assert "micro_f1" in json.loads((found / "test" / "metrics.json").read_text())
