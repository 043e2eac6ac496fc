"""The same backbone with another head: classes of recordings, through the whole command line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

import lightning_transfer
from tests.data.speech.make import RATE, say
from tests.recipes.verbs import Run, run_folder
from tests.unit.backbones.speech_toys import save_ctc

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("LT_DATA_DIR", ROOT.parent / "shared" / "data")) / "fsdd"
CONFIG = ROOT / "recipes" / "speech" / "configs" / "calls_embedded_classification.yaml"
KINDS = {"complaint": "ab", "order": "gh"}
FEW = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.callbacks=null"]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Calls of ten callers: complaints are low, orders are high, whatever is said."""
    root = tmp_path / "calls"
    root.mkdir()
    rng = np.random.default_rng(0)
    with (root / "calls.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "call_type", "speaker", "channel"))
        for caller in range(10):
            for number in range(8):
                kind = list(KINDS)[number % 2]
                text = "".join(rng.choice(list(KINDS[kind]), 6))
                name = f"{caller}_{number}.wav"
                soundfile.write(root / name, say(text, pitch=1 + caller / 200, seed=number), RATE)
                writer.writerow((name, kind, f"caller {caller}", "telephone"))
    return root / "calls.csv"


def test_kinds_of_calls_are_told_apart_by_the_whole_command_line(calls: Path, tmp_path: Path, run: Run) -> None:
    save_ctc(tmp_path / "network", "wav2vec2_bert", initializer_range=0.3)
    words = ["--config", str(CONFIG), f"--model.backbone={tmp_path / 'network'}", f"--data.file={calls}", *FEW]
    code, printed = run("fit", *words, "--data.batch_size=16", "--model.optimizer.init_args.lr=0.02")
    assert code == 0, printed
    assert "Calibration: temperature" in printed
    folder = run_folder(printed)
    code, printed = run("test", str(folder), "--evaluation.baselines=[majority, plain]")
    assert code == 0, printed
    found = json.loads((folder / "test" / "metrics.json").read_text())
    assert found["macro_f1"]["value"] > 0.9
    assert found["macro_f1"]["num_groups"] == 3
    assert "wer" not in found
    assert "plain method" in printed
    code, printed = run("predict", str(folder), "--data.file", str(calls.parent))
    assert code == 0, printed
    with (folder / "predict" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 80
    wav = calls.parent / "3_1.wav"
    [mine] = lightning_transfer.load(folder).predict([str(wav)])
    [theirs] = [row for row in rows if row["id"].endswith("3_1.wav")]
    assert mine.decision == theirs["predicted"] == "order"


def test_an_option_of_recognisers_is_none_of_classes(calls: Path, run: Run) -> None:
    code, printed = run("fit", "--config", str(CONFIG), f"--data.file={calls}", "--evaluation.keywords=[acme]")
    assert code == 2
    assert "keywords" in printed


def test_a_classifier_of_sound_is_not_exported(calls: Path, tmp_path: Path, run: Run) -> None:
    save_ctc(tmp_path / "network", "wav2vec2_bert")
    words = ["--config", str(CONFIG), f"--model.backbone={tmp_path / 'network'}", f"--data.file={calls}", *FEW]
    code, printed = run("fit", *words, "--trainer.max_epochs=1")
    assert code == 0, printed
    code, printed = run("export", str(run_folder(printed)))
    assert code == 2
    assert "classifier whose preprocessing is of kind `audio`" in printed


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.real_data
def test_digits_of_speakers_that_were_never_heard(tmp_path: Path, run: Run) -> None:
    """Eight takes of each digit; two speakers to test on, two to learn from."""
    if not DATA.is_dir():
        pytest.skip(f"no {DATA}: set LT_DATA_DIR")
    rows = [row for row in csv.DictReader((DATA / "manifest.csv").open()) if int(row["take"]) < 8]
    with (tmp_path / "digits.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, printed = run(
        "fit", "--config", str(CONFIG), f"--data.file={tmp_path / 'digits.csv'}", f"--data.root={DATA}",
        "--data.label_column=transcript", "--data.test_fraction=0.34", "--data.val_fraction=0.17",
        "--data.calibration_fraction=0.17", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    )  # fmt: skip
    assert code == 0, printed
    folder = run_folder(printed)
    code, printed = run("test", str(folder), "--evaluation.baselines=[majority]")
    assert code == 0, printed
    found = json.loads((folder / "test" / "metrics.json").read_text())
    assert found["macro_f1"]["value"] > 10 * found["macro_f1_of_majority"]["value"]
