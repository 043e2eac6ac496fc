"""The configs whose weights come from a hub: a step each, with a tiny network of their kind, in their layout."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import yaml

from lightning_transfer.cli import main
from recipes.speech.cli import RECIPE
from tests.data.speech.make import RATE, say
from tests.unit.backbones.speech_toys import save_ctc, save_whisper

CONFIGS = Path(__file__).parents[3] / "recipes" / "speech" / "configs"
TEXTS = ["ab cd", "dab", "cab dad", "bad", "abc d", "add"]


def _sounds(folder: Path, speakers: int = 6) -> list[dict[str, str]]:
    """Write tones; each speaker says every text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for speaker in range(speakers):
        for number, text in enumerate(TEXTS):
            wave = say(text, pitch=1 + speaker / 40, seed=speaker)
            name = f"{speaker}_{number}.wav"
            soundfile.write(folder / name, wave, RATE)
            rows.append({"name": name, "text": text, "speaker": f"s{speaker}", "duration": f"{len(wave) / RATE:.3f}"})
    return rows


def _nemo(folder: Path) -> list[str]:
    lines = [
        {
            "audio_filepath": row["name"],
            "duration": float(row["duration"]),
            "text": row["text"],
            "speaker": row["speaker"],
        }
        for row in _sounds(folder)
    ]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return [f"--data.file={folder / 'manifest.jsonl'}"]


def _common_voice(folder: Path) -> list[str]:
    rows = _sounds(folder / "clips")
    for name, speakers in (("train", "s0 s1 s2"), ("dev", "s3 s4"), ("test", "s5")):
        with (folder / f"{name}.tsv").open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t")
            writer.writerow(("client_id", "path", "sentence"))
            writer.writerows(
                (row["speaker"], row["name"], row["text"]) for row in rows if row["speaker"] in speakers.split()
            )
    return [f"--data.file={folder}"]


def _calls(folder: Path) -> list[str]:
    rows = _sounds(folder)
    for name in ("calls", "general"):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "text", "speaker"))
            writer.writerows((row["name"], row["text"], row["speaker"]) for row in rows)
    return [f"--data.file={folder / 'calls.csv'}", f"--data.general_file={folder / 'general.csv'}"]


def _network(folder: Path, kind: str) -> None:
    if kind != "whisper":
        # Pretrained without transcripts, and with as many blocks as the networks of these configs.
        save_ctc(folder, kind, head=False, num_hidden_layers=12)
        (folder / "vocab.json").unlink()
        return
    model = save_whisper(folder, TEXTS)
    model.save_pretrained(folder)
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    from tests.unit.backbones.speech_toys import whisper_tokenizer

    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    WhisperProcessor(extractor, whisper_tokenizer(TEXTS)).save_pretrained(folder)


CASES: dict[str, tuple[Callable[[Path], list[str]], str, list[str]]] = {
    "nemo_manifest_wav2vec2_lp_ft": (_nemo, "wav2vec2_group", []),
    "commonvoice_wavlm_gradual": (_common_voice, "wavlm", []),
    "whisper_small_lora": (_calls, "whisper", ["--trainer.precision=32-true"]),
}


def test_every_config_that_was_not_measured_is_tried_here() -> None:
    unmeasured = {path.stem for path in CONFIGS.glob("*.yaml") if "Measured: not measured" in path.read_text()}
    assert set(CASES) == unmeasured
    assert all("a test runs one step" in (CONFIGS / f"{name}.yaml").read_text() for name in CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_step_runs_and_the_schedule_is_as_the_config_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, kind, words = CASES[name]
    _network(tmp_path / "network", kind)
    data = write(tmp_path / "data")
    config = CONFIGS / f"{name}.yaml"
    monkeypatch.chdir(tmp_path)
    code = main(
        RECIPE,
        ["fit", "--config", str(config), f"--model.backbone={tmp_path / 'network'}", "--data.batch_size=4", *data,
         "--data.num_workers=0", "--trainer.max_steps=1", "--trainer.limit_val_batches=2", "--trainer.accelerator=cpu",
         "--trainer.enable_progress_bar=false", *words],
    )  # fmt: skip
    assert code == 0
    (folder,) = (tmp_path / "runs" / "speech").iterdir()
    assert (folder / "model.ckpt").is_file()
    values = yaml.safe_load(config.read_text())
    epochs = values["trainer"]["max_epochs"]
    stages = json.loads((folder / "plan.json").read_text()).get("stages") or []
    assert all(stage["epoch"] < epochs for stage in stages), "a stage never comes"
    assert values["model"]["scheduler"]["init_args"]["T_max"] == epochs
