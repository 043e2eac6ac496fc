"""The script beside a recogniser, without torch, transformers or this package, against the package."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lightning_transfer.evaluation import load
from lightning_transfer.export import predict_onnx_speech
from lightning_transfer.export.predict_onnx_speech import Model, Sound, Steps, cut_points, main, read_sounds
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import Batch
from tests.unit.export.speech_toys import RATE, preprocessing, recogniser, sound
from tests.unit.export.test_predict_onnx_text import alone, lines

WITHOUT = (
    "torch",
    "torchaudio",
    "lightning_transfer",
    "lightning",
    "transformers",
    "scipy",
    "onnx",
    "jiwer",
    "tokenizers",
)


def sounds(paths) -> list[Sound]:
    return [Sound(Path(path).name, AudioSegment(str(path))) for path in paths]


def test_in_a_process_without_torch_it_writes_what_the_checkpoint_writes(exported_speech, tmp_path) -> None:
    shutil.copytree(exported_speech.folder / "sounds", tmp_path / "calls")
    (tmp_path / "calls" / "broken.wav").write_bytes(b"RIFF nothing")
    (tmp_path / "calls" / "read me.txt").write_text("no sound")
    printed, error = alone(
        exported_speech.folder / "predict_onnx_speech.py", tmp_path / "calls", code=1, refused=WITHOUT
    )
    found = {Path(line["id"]).name: line for line in lines(printed)}
    assert list(found) == sorted([path.name for path in exported_speech.sounds] + ["broken.wav"])
    assert "1 of 8 recordings could not be read" in error
    assert "broken" in found["broken.wav"]["reason"]
    assert found.pop("broken.wav")["text"] is None
    wanted = load(exported_speech.folder).predict([str(path) for path in exported_speech.sounds])
    for path, expected in zip(exported_speech.sounds, wanted, strict=True):
        line = found[path.name]
        assert line["text"] == expected.text
        assert line["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
        assert line["seconds"] == pytest.approx(expected.seconds, abs=1e-3)
        assert line["reason"] is None
    assert len({line["text"] for line in found.values()}) == 7
    assert len(found["f.wav"]["text"].split()) > 3


@pytest.mark.parametrize("size", [1, 2, 8])
def test_the_same_in_batches_of_every_size(exported_speech, size) -> None:
    model = Model(exported_speech.onnx)
    given = sounds(exported_speech.sounds)
    found = [line["text"] for line in model.transcribe(given, size)]
    assert found == [line["text"] for line in model.transcribe(given[::-1], 3)][::-1]
    assert found == [item.text for item in load(exported_speech.folder).predict([item.segment for item in given])]


def test_features_are_those_of_the_checkpoints_preprocessing(exported_speech) -> None:
    steps, ours = Steps(exported_speech.facts), preprocessing(exported_speech.module)
    for path in exported_speech.sounds:
        for piece in steps.pieces(AudioSegment(str(path))):
            wanted = ours(piece.segment)
            # Behind an odd number of frames the extractor puts a step that it hides itself.
            real = wanted["input_features"][wanted["attention_mask"].bool()].numpy()
            np.testing.assert_allclose(steps.features(piece), real, rtol=1e-4, atol=1e-4)


def test_pieces_are_those_of_the_package(exported_speech) -> None:
    steps, recogniser = Steps(exported_speech.facts), load(exported_speech.folder)
    for path in exported_speech.sounds:
        segment = AudioSegment(str(path), start=0.01)
        mine = [(piece.start, piece.seconds, piece.segment) for piece in steps.pieces(segment)]
        assert mine == [(piece.start, piece.seconds, piece.sound) for piece in recogniser._pieces(segment, 0)]


@pytest.mark.parametrize(("chunk", "overlap"), [(3.0, 0.5), (30.0, 4.0), (1.0, 0.0)])
def test_pieces_cover_a_recording_and_overlap(chunk, overlap) -> None:
    for seconds in (0.01, 0.99, 1.0, 3.0, 3.01, 5.5, 29.0, 61.7, 3600.0):
        found = cut_points(seconds, chunk, overlap)
        assert found[0][0] == 0.0
        assert sum(found[-1]) == pytest.approx(seconds)
        for (begin, length), (later, _) in pairwise(found):
            assert length == chunk
            assert begin + length - later == pytest.approx(overlap)
        assert len(found) == 1 or found[-1][1] > overlap


def test_a_network_that_hears_padding_gets_none(exported_speech) -> None:
    lengths = [5, 3, 5, 9, 3, 3]
    hears = Steps({**exported_speech.facts, "sees_mask": False})
    assert hears.batches(lengths, 2) == [[1, 4], [5], [0, 2], [3]]
    assert Steps(exported_speech.facts).batches(lengths, 4) == [[1, 4, 5, 0], [2, 3]]


def test_a_manifest_is_read_row_by_row(exported_speech, tmp_path) -> None:
    shutil.copy(exported_speech.sounds[5], tmp_path / "long.wav")
    stereo = np.stack([sound(1.0, 1), sound(1.0, 2)], axis=1)
    soundfile.write(tmp_path / "two.wav", stereo, RATE)
    rows = [
        {"audio_filepath": "long.wav", "offset": 1.0, "duration": 2.0, "text": "unused", "id": "part"},
        {"audio_filepath": str(tmp_path / "two.wav"), "channel": 1},
        {"audio_filepath": "gone.wav"},
        {"text": "no path"},
        {"audio_filepath": "long.wav", "offset": 99},
        [1],
    ]
    text = "\ufeff" + "\n".join(json.dumps(row) for row in rows) + "\nnot json\n\n"
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    output = tmp_path / "out.jsonl"
    assert main([str(tmp_path / "rows.jsonl"), "--model", str(exported_speech.onnx), "--output", str(output)]) == 1
    found = lines(output.read_text())
    recogniser = load(exported_speech.folder)
    assert [line["id"] for line in found] == ["part", str(tmp_path / "two.wav"), "gone.wav", "line 4", "long.wav",
                                              "line 6", "line 7"]  # fmt: skip
    wanted = recogniser.predict([AudioSegment(str(tmp_path / "long.wav"), 1.0, 2.0), (stereo[:, 1], RATE)])
    assert [line["text"] for line in found[:2]] == [item.text for item in wanted]
    assert (found[0]["start"], found[0]["duration"]) == (1.0, 2.0)
    reasons = [line["reason"] for line in found[2:]]
    for reason, part in zip(reasons, ("no such file", "none of audio_filepath", "99", "line 6", "line 7"), strict=True):
        assert part in reason
    with pytest.raises(SystemExit):
        main([str(tmp_path / "rows.jsonl"), "--model", str(exported_speech.onnx), "--output", str(output)])


def test_hidden_files_are_left_out_and_manifests_may_name_their_path_otherwise(tmp_path) -> None:
    (tmp_path / ".cache").mkdir()
    for name in (".cache/a.wav", "b.WAV", "c.txt", ".d.wav"):
        (tmp_path / name).touch()
    assert [Path(item.id).name for item in read_sounds([str(tmp_path)])] == ["b.WAV"]
    (tmp_path / "m.json").write_text('{"path": "b.WAV", "start": "0.5"}\n')
    [found] = read_sounds([str(tmp_path / "m.json")])
    assert found.segment == AudioSegment(str(tmp_path / "b.WAV"), 0.5)


def test_wrong_words_are_said(exported_speech, tmp_path, capsys) -> None:
    wav = str(exported_speech.sounds[0])
    (tmp_path / "empty").mkdir()
    model = ["--model", str(exported_speech.onnx)]
    for words, message in (
        ([str(tmp_path / "gone.wav")], "there is no"),
        ([wav, *model, "--batch_size", "0"], "at least 1, got 0"),
        ([wav, "--model", str(tmp_path / "gone.onnx")], "cannot use the model"),
        ([str(tmp_path / "empty"), *model], "no sound in"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_a_model_of_something_else_is_refused(exported, exported_texts) -> None:
    for path, kind in ((exported.onnx, "image"), (exported_texts.onnx, "text")):
        with pytest.raises(ValueError, match=f"no model of speech, but of kind `{kind}`"):
            Model(path)


def test_many_recordings_keep_their_order(exported_speech, monkeypatch) -> None:
    monkeypatch.setattr(predict_onnx_speech, "_WINDOW", 3)
    given = [Sound(f"{number}", item.segment) for number, item in enumerate(sounds(exported_speech.sounds) * 2)]
    found = list(Model(exported_speech.onnx).transcribe(given))
    assert [line["id"] for line in found] == [item.id for item in given]
    assert [line["text"] for line in found[:7]] == [line["text"] for line in found[7:]]


def test_the_graph_knows_no_padding(exported_speech) -> None:
    """A short recording beside a long one has the logits that it has alone, and those of torch."""
    model = Model(exported_speech.onnx)
    rows = [model.prepared(sound(seconds, 7)) for seconds in (0.3, 2.9, 1.1)]
    together = model.run(model.batch(rows))
    for row, logits in zip(rows, together, strict=True):
        [lone] = model.run(model.batch([row]))
        np.testing.assert_allclose(logits, lone, rtol=0, atol=1e-4)
        inputs = {name: torch.from_numpy(values) for name, values in model.batch([row]).items()}
        with torch.no_grad():
            wanted = recogniser().transcribe(Batch(inputs, None, torch.arange(1)))[0].text
        assert model.decode(logits, len(row)).text == wanted
