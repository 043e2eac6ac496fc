"""A recogniser becomes files that write what it writes, in a process that knows no torch."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lightning_transfer.cli import main
from lightning_transfer.modules.transfer import CHECKPOINT_KEY
from recipes.speech.cli import RECIPE
from tests.data.speech.make import RATE, say
from tests.recipes.verbs import Run, run_folder
from tests.unit.backbones.speech_toys import save_ctc
from tests.unit.export.test_predict_onnx_speech import WITHOUT
from tests.unit.export.test_predict_onnx_text import alone, lines

LETTERS = "abcd"
OPTIONS = [
    *("--data.chunk_seconds=2", "--data.overlap_seconds=0.5", "--data.val_fraction=0.2", "--data.test_fraction=0.3"),
    *("--data.calibration_fraction=0", "--data.batch_size=8", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--model.optimizer=torch.optim.AdamW"),
    "--model.optimizer.init_args.lr=0.001",
]


@pytest.fixture(scope="module", autouse=True)
def _short_clock() -> Iterator[None]:
    """Time each model a few times: the table's form is tested here, not its numbers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_TURNS", 2), ("_LEAST_TURNS", 1)):
            patch.setattr(f"lightning_transfer.export.latency.{name}", value)
        yield


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of ten speakers; of each one is longer than a piece."""
    root = tmp_path_factory.mktemp("calls")
    rng = np.random.default_rng(0)
    rows = []
    for speaker in range(10):
        for number, words in enumerate((1, 2, 3, 10)):
            text = " ".join("".join(rng.choice(list(LETTERS), 3)) for _ in range(words))
            name = f"{speaker}_{number}.wav"
            soundfile.write(root / name, say(text, pitch=1 + speaker / 40, seed=speaker), RATE)
            rows.append((name, text, f"speaker {speaker}"))
    with (root / "calls.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "text", "speaker"), *rows])
    return root / "calls.csv"


def fit(place: Path, calls: Path, family: str) -> Path:
    save_ctc(place / "network", family, initializer_range=0.6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(RECIPE, ["fit", f"--model.backbone={place / 'network'}", f"--data.file={calls}", *OPTIONS]) == 0
    (found,) = (place / "runs" / "speech").iterdir()
    return found


@pytest.fixture(scope="module")
def fitted(calls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("fitted"), calls, "wav2vec2_bert")


@pytest.fixture(scope="module")
def written(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its export in every form, made once."""
    run = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("written") / "run"))
    assert main(RECIPE, ["export", str(run), "--format", "both", "--int8"]) == 0
    return run


@pytest.fixture
def folder(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "run"))


def test_everything_is_written_and_measured(written: Path) -> None:
    made = written / "export"
    names = {"export.json", "model.onnx", "model_int8.onnx", "model.pt2", "predict_onnx_speech.py", "speech_parts"}
    assert {path.name for path in made.iterdir()} == names
    report = json.loads((made / "export.json").read_text())
    files = {row["name"]: row for row in report["files"]}
    assert list(files) == ["model.onnx", "model.pt2", "model_int8.onnx"]
    for name in ("model.onnx", "model.pt2"):
        assert files[name]["n"] == files[name]["same_texts"] == 12
        assert files[name]["max_difference"] <= files[name]["tolerance"]
        assert files[name]["real_time_factor_eager"] > 0
    assert files["model.pt2"]["real_time_factor_pt2"] > 0
    loss = files["model_int8.onnx"]
    assert loss["wer"]["lost"]["n"] == loss["n"] == 12
    assert loss["wer"]["lost"]["num_groups"] == 3
    assert "dynamic" in loss["quantisation"]
    assert report["samples"] == "12 of 12 records of the split `test`"
    assert report["batches"] == ["one by one", "up to 8 of all lengths"]
    assert report["seconds"]["max"] > 2.0
    assert report["max_feature_difference"] < 1e-4
    assert [row["batch_size"] for row in report["latency"]["rows"]] == [1, 8]
    assert report["facts"]["preprocessing"]["chunk_seconds"] == 2.0


def test_without_torch_the_lines_are_those_of_the_verb_predict(written: Path, calls: Path, run: Run) -> None:
    code, printed = run("predict", str(written), "--data.file", str(calls))
    assert code == 0, printed
    expected = lines((run_folder(printed) / "predict" / "predictions.jsonl").read_text())
    found, _ = alone(written / "export" / "predict_onnx_speech.py", calls.parent, refused=WITHOUT)
    made = {Path(line["path"]).name: line for line in lines(found)}
    assert len(made) == len(expected) == 40
    for theirs in expected:
        mine = made[Path(theirs["path"]).name]
        assert mine["text"] == theirs["text"]
        assert mine["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)
    assert len({line["text"] for line in expected}) > 20


@pytest.mark.parametrize("fault", ["network", "padding", "facts", "script"])
def test_a_model_that_says_something_else_is_not_kept(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    form = "pt2"
    from lightning_transfer.export.network import _Recogniser

    write = _Recogniser.write
    message = "`model.pt2` does not write what the checkpoint writes on 6 recordings"
    if fault == "network":

        def wrong(self, inputs):
            logits, lengths = write(self, inputs)
            return 1.01 * logits, lengths

        monkeypatch.setattr(_Recogniser, "write", wrong)
    elif fault == "padding":  # right for a recording alone, wrong in a batch

        def deaf(self, inputs):
            _, lengths = write(self, inputs)
            return write(self, {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})[0], lengths

        monkeypatch.setattr(_Recogniser, "write", deaf)
    elif fault == "facts":
        import lightning_transfer.cli.export as verb

        exact = verb.forms.write_program
        monkeypatch.setattr(
            verb.forms, "write_program", lambda a, b, facts: exact(a, b, {**facts, "step_seconds": 9.0})
        )
        message = "does not say what the checkpoint says of `step_seconds`"
    else:
        import lightning_transfer.export.predict_onnx_speech as script

        form, greedy = "onnx", script.greedy
        monkeypatch.setattr(script, "greedy", lambda *given: greedy(*given)._replace(words=()))
        message = "6 texts differ"
    code, printed = run("export", str(folder), "--format", form, "--n_samples", "6")
    assert code == 1
    assert message in printed
    assert not (folder / "export").exists()


def test_whisper_is_refused_before_anything_is_written(folder: Path, run: Run) -> None:
    checkpoint = torch.load(folder / "model.ckpt", weights_only=True)
    schema = checkpoint[CHECKPOINT_KEY]["schema"]
    schema["preprocessing"]["feature_extractor"]["feature_extractor_type"] = "WhisperFeatureExtractor"
    torch.save(checkpoint, folder / "model.ckpt")
    code, printed = run("export", str(folder))
    assert code == 2
    assert "Whisper is not exported" in printed
    assert "optimum-cli" in printed
    assert not (folder / "export").exists()


def test_without_the_data_a_folder_of_recordings_can_be_given(
    fitted: Path, calls: Path, tmp_path: Path, run: Run
) -> None:
    shutil.copy(fitted / "model.ckpt", tmp_path / "model.ckpt")
    words = ["export", str(tmp_path / "model.ckpt"), "--data.file", str(tmp_path / "gone.csv"), "--format", "pt2"]
    code, printed = run(*words)
    assert code == 2
    assert "`--samples FOLDER`" in printed
    code, printed = run(*words, "--samples", str(calls.parent), "--n_samples", "5")
    assert code == 0, printed
    assert f"Compared on 5 of 40 recordings of `{calls.parent}`" in printed


@pytest.mark.slow
def test_a_network_that_hears_padding_too(calls: Path, tmp_path: Path, run: Run) -> None:
    folder = fit(tmp_path, calls, "wav2vec2_group")
    code, printed = run("export", str(folder), "--n_samples", "8", "--int8")
    assert code == 0, printed
    assert "8 of 8 texts are the checkpoint's" in printed
    assert json.loads((folder / "export" / "export.json").read_text())["facts"]["sees_mask"] is False
