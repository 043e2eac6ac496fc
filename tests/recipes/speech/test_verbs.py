"""Every verb of the recipe on tones that spell letters, with tiny networks saved as hubs save them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lightning_transfer
from lightning_transfer.cli import main
from lightning_transfer.metrics import word_errors
from recipes.speech.cli import RECIPE
from tests.unit.backbones.speech_toys import save_ctc, save_whisper
from tests.unit.modules.speech_toys import RATE, TEXTS, tones

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("jiwer")
pytest.importorskip("torchaudio")
transformers = pytest.importorskip("transformers")

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1",
         "--trainer.log_every_n_steps=1", "--data.batch_size=6", "--data.on_bad_file=skip"]  # fmt: skip
SPLITS = ("train", "train", "train", "val", "test", "test")
TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C", "D", "'")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six speakers with four calls each, one of which is empty, and one of the test far too long to be heard."""
    folder = tmp_path_factory.mktemp("calls")
    rows = []
    for place in range(24):
        speaker, name = place // 4, f"c{place}.wav"
        text = TEXTS[place % len(TEXTS)]
        text = " ".join([text] * 4) if place == 17 else text
        soundfile.write(folder / name, tones(text, place), RATE)
        rows.append((name, f"{text.upper()}.", f"s{speaker}", "xy"[speaker % 2], SPLITS[speaker]))
    (folder / "c18.wav").write_bytes(b"")
    with (folder / "calls.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "text", "speaker", "accent", "split"), *rows])
    return folder


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wav2vec2")
    save_ctc(folder, "wav2vec2_layer", tokens=TOKENS, conv_stride=[20, 16], conv_kernel=[40, 16])
    return folder


@pytest.fixture(scope="module")
def words(calls: Path, wav2vec2: Path) -> list[str]:
    data = [f"--data.file={calls / 'calls.csv'}", "--data.chunk_seconds=2.0", "--data.overlap_seconds=0.5"]
    return [f"--model.backbone={wav2vec2}", "--model.optimizer=torch.optim.AdamW",
            "--model.optimizer.init_args.lr=0.01", *data, *QUIET]  # fmt: skip


@pytest.fixture(scope="module")
def fitted(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fitted")
    assert main(RECIPE, ["fit", *words, f"--trainer.default_root_dir={root}"]) == 0
    [run] = (root / "speech").iterdir()
    return run


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "runs" / "speech" / "fit"))


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> Done:
        capsys.readouterr()
        code = main(RECIPE, [str(word) for word in words])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return command


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_data_are_checked_before_anything_is_learnt(speech: Callable[..., Done], words: list[str]) -> None:
    done = speech("check-data", *words)
    assert done.code == 0, done.err
    assert "c18.wav" in done.out
    assert "23 records (train 12, val 4, test 7)" in done.out


def test_a_plan_says_what_trains_and_what_memory_it_takes(speech: Callable[..., Done], words: list[str]) -> None:
    done = speech("plan", *words)
    assert done.code == 0, done.err
    assert "test   7" in done.out
    assert "MB" in done.out
    assert "memory: n/a" not in done.out
    assert "Recommendation" not in done.out


def test_a_plan_knows_whisper(speech: Callable[..., Done], words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "whisper"
    save_whisper(folder, list(TEXTS), max_source_positions=150, max_target_positions=60)
    tokenizer = transformers.WhisperTokenizer.from_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=3)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    done = speech("plan", *words[3:], "--model.head=seq2seq", f"--model.backbone={folder}", "--model.language=en")
    assert done.code == 0, done.err
    assert "Groups: not found" not in done.out
    assert "memory: n/a" not in done.out


def test_a_fit_leaves_a_model_that_is_enough_alone(fitted: Path) -> None:
    checkpoint = torch.load(fitted / "model.ckpt", weights_only=True)["lightning_transfer"]
    assert checkpoint["module"] == "CTCModule"
    assert tuple(checkpoint["schema"]["classes"]) == TOKENS
    preprocessing = checkpoint["schema"]["preprocessing"]
    assert (preprocessing["kind"], preprocessing["sampling_rate"]) == ("audio", RATE)
    metrics = json.loads((fitted / "metrics.json").read_text())
    assert metrics["val_wer"]["value"] >= 0
    data = json.loads((fitted / "data.json").read_text())
    assert data["num_records"] == {"train": 12, "val": 4, "test": 7}
    assert "empty" in data["skipped"]["c18.wav"]


def test_a_test_judges_whole_recordings_beside_the_network_before_adapting(
    speech: Callable[..., Done], run: Path, wav2vec2: Path
) -> None:
    done = speech("test", run, "--evaluation.keywords=[bad cab]")
    assert done.code == 0, done.err
    rows = _rows(run / "test" / "predictions.jsonl")
    assert sorted(row["id"] for row in rows) == [f"c{place}.wav" for place in range(16, 24)]
    broken = next(row for row in rows if row["id"] == "c18.wav")
    assert broken["text"] is None
    assert "empty" in broken["reason"]
    long = next(row for row in rows if row["id"] == "c17.wav")
    assert long["seconds"] == pytest.approx(long["duration"], abs=0.05)
    assert long["duration"] > 2.0
    evaluation = json.loads((run / "test" / "evaluation.json").read_text())
    assert (evaluation["n"], evaluation["num_groups"]) == (7, 2)
    assert evaluation["words"]["hits"] + evaluation["words"]["substitutions"] + evaluation["words"]["deletions"] == sum(
        len(row["reference_normalised"].split()) for row in rows if row["reason"] is None
    )
    assert {item["speaker"] for item in evaluation["speakers"]} == {"s4", "s5"}
    assert {item["column"] for item in evaluation["slices"]} >= {"accent"}
    assert [item["keyword"] for item in evaluation["keywords"]] == ["bad cab"]
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["wer_of_pretrained"]["value"] is not None
    assert metrics["real_time_factor"]["value"] > 0
    assert "wer of pretrained" in done.out
    assert f"Report: {run / 'report.html'}" in done.out


def test_the_network_before_adapting_is_the_saved_one(speech: Callable[..., Done], run: Path, wav2vec2: Path) -> None:
    """Judged against transformers' own model, which was saved in that folder."""
    assert speech("test", run).code == 0
    model = transformers.Wav2Vec2ForCTC.from_pretrained(wav2vec2).eval()
    processor = transformers.Wav2Vec2Processor.from_pretrained(wav2vec2)
    rows = [row for row in _rows(run / "test" / "predictions.jsonl") if row["speaker"] == "s5"]
    heard = []
    for row in rows:
        wave, rate = soundfile.read(row["path"], dtype="float32")
        with torch.no_grad():
            logits = model(**processor(wave, sampling_rate=rate, return_tensors="pt")).logits
        heard += [text.lower() for text in processor.batch_decode(logits.argmax(-1))]
    assert any(heard)
    counts = word_errors([row["reference_normalised"] for row in rows], heard)
    expected = sum(item.errors for item in counts) / sum(item.length for item in counts)
    evaluation = json.loads((run / "test" / "evaluation.json").read_text())
    found = next(item for item in evaluation["speakers"] if item["speaker"] == "s5")
    assert found["baselines"]["pretrained"]["value"] == pytest.approx(expected)


def test_validate_gives_the_score_of_the_fit_again(speech: Callable[..., Done], run: Path) -> None:
    before = json.loads((run / "metrics.json").read_text())["val_wer"]["value"]
    done = speech("validate", run)
    assert done.code == 0, done.err
    assert json.loads((run / "validate" / "metrics.json").read_text())["val_wer"]["value"] == pytest.approx(before)


def test_predict_answers_for_every_file_as_python_does(
    speech: Callable[..., Done], run: Path, calls: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for place in (16, 17, 18, 20):
        shutil.copy(calls / f"c{place}.wav", new)
    (new / "text.wav").write_text("no sound")
    done = speech("predict", run, f"--data.file={new}")
    assert done.code == 0, done.err
    rows = {row["id"]: row for row in _rows(run / "predict" / "predictions.jsonl")}
    assert list(rows) == ["c16.wav", "c17.wav", "c18.wav", "c20.wav", "text.wav"]
    assert all(rows[name]["reason"] for name in ("c18.wav", "text.wav"))
    assert "3 recordings transcribed, 2 unreadable" in done.out
    recogniser = lightning_transfer.load(run)
    names = ["c16.wav", "c17.wav", "c20.wav"]
    waves = [soundfile.read(new / name, dtype="float32") for name in names]
    for items in ([new / name for name in names], waves):
        found = recogniser.predict(items)
        assert [item.text for item in found] == [rows[name]["text"] for name in names]
        assert [item.seconds for item in found] == pytest.approx([rows[name]["seconds"] for name in names], abs=1e-3)


def test_classes_of_recordings_have_a_head_too(speech: Callable[..., Done], words: list[str], calls: Path) -> None:
    """The voice of the first three speakers, told apart in one recording of each."""
    rows = list(csv.DictReader((calls / "calls.csv").open()))
    with (calls / "voices.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("path", "kind", "split"))
        for place, row in enumerate(rows[:16]):
            table.writerow(
                (row["path"], "xy"[place % 2], SPLITS[place // 4] if place < 12 else ("val", "test")[place // 2 % 2])
            )
    done = speech("fit", *words, f"--data.file={calls / 'voices.csv'}", "--data.task=multiclass",
                  "--data.label_column=kind", "--model.head=classification", "--evaluation.nearest_examples=0",
                  "--trainer.default_root_dir=classes")  # fmt: skip
    assert done.code == 0, done.err
    [run] = Path("classes/speech").iterdir()
    done = speech("test", run, "--evaluation.baselines=[majority]", "--evaluation.latency_batch_sizes=[]")
    assert done.code == 0, done.err
    assert json.loads((run / "test" / "metrics.json").read_text())["accuracy"]["n"] == 2
    files = [calls / "c1.wav", (tones("ab"), RATE)]
    assert {item.predicted for item in lightning_transfer.load(run).predict(files)} <= {"x", "y"}
    assert np.isfinite(lightning_transfer.load(run).outputs(files)[0].numpy()).all()
