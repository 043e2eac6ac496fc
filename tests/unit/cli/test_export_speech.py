"""How speech is exported, step by step; the verb as a whole is tested in `tests/recipes/speech/test_export.py`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lightning_transfer.cli.export_speech import MIXED, ONE, RealTime, SpeechForm, _batches
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation import load
from lightning_transfer.export import ExportError, ParityError
from lightning_transfer.export import predict_onnx_speech as script
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import Record
from tests.unit.export.speech_toys import recogniser, save, write_sounds


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    paths = write_sounds(tmp_path_factory.mktemp("sounds"))
    return [Record(path.name, AudioSegment(str(path)), "abc d", "test", path.name) for path in paths]


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    runs = {}

    def make(kind: str = "conformer") -> SpeechForm:
        if kind not in runs:
            runs[kind] = save(tmp_path_factory.mktemp("run"), recogniser(kind))
        predictor = load(runs[kind])
        return SpeechForm(SimpleNamespace(trainer=SimpleNamespace(progress_bar_callback=None)), predictor)

    return make


def exported(form: SpeechForm, change=lambda logits: logits):
    """What an exported file would be, with another network in it."""
    own = form.torch_run(form.predictor.module)
    return {"model.onnx": SimpleNamespace(run=lambda inputs: [change(row) for row in own(inputs)])}


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_every_piece_is_in_one_batch(count: int) -> None:
    lengths = np.random.default_rng(count).integers(2, 60, count).tolist()
    for way, most in ((ONE, 1), (MIXED, 8)):
        found = _batches(lengths, way)
        assert sorted(place for part in found for place in part) == list(range(count))
        assert max(map(len, found)) <= most
    assert all(min(part) < 5 and max(part) > 34 for part in _batches(list(range(40)), MIXED))


@pytest.mark.parametrize("kind", ["conformer", "wav2vec2, group norm"])
def test_the_checkpoint_is_its_own_equal_whatever_the_batches(forms, records, kind) -> None:
    form = forms(kind)
    found = form.compare(exported(form), form.reference(records), records)["model.onnx"]
    assert (found.n, found.changed, found.ties) == (len(records), {}, [])
    assert found.max_difference <= 0.2 * found.tolerance
    assert form.feature_difference < 1e-4
    report = form.report({}, records)
    assert report["batches"] == [ONE, MIXED]
    assert report["seconds"]["max"] == pytest.approx(7.3 + 2 * 0.5)  # of its pieces, which overlap


def test_a_network_that_hears_padding_is_compared_on_the_same_batches(forms, records) -> None:
    """Its logits change with the company, so a graph that ignored that would be the wrong one."""
    form = forms("wav2vec2, group norm")
    own = form.torch_run(form.predictor.module)
    lone = SimpleNamespace(run=lambda inputs: _each_alone(own, inputs))
    with pytest.raises(ParityError, match="logits differ by up to"):
        form.compare({"model.onnx": lone}, form.reference(records), records)


def _each_alone(own, inputs):
    rows = []
    for place, length in enumerate(inputs["attention_mask"].sum(axis=1)):
        rows += own({name: values[place : place + 1, :length] for name, values in inputs.items()})
    return rows


def test_a_graph_that_hears_padding_is_refused_where_the_checkpoint_does_not(forms, records) -> None:
    form = forms()
    own = form.torch_run(form.predictor.module)

    def deaf(inputs):
        lengths = inputs["attention_mask"].sum(axis=1)
        rows = own({**inputs, "attention_mask": np.ones_like(inputs["attention_mask"])})
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]

    with pytest.raises(ParityError, match="does not write what the checkpoint writes on 7 recordings"):
        form.compare({"model.onnx": SimpleNamespace(run=deaf)}, form.reference(records), records)


def test_other_logits_and_other_words_are_refused(forms, records) -> None:
    form = forms()
    wanted = form.reference(records)
    with pytest.raises(ParityError, match="logits differ by up to"):
        form.compare(exported(form, lambda row: 1.001 * row), wanted, records)
    with pytest.raises(ParityError, match=r"1 texts differ: a\.wav"):
        form.compare(exported(form), ["other", *wanted[1:]], records)


def test_other_features_are_seen(forms, records, monkeypatch) -> None:
    form = forms()
    exact = script.extract
    monkeypatch.setattr(script, "extract", lambda *given: exact(*given) + np.float32(0.25) * exact(*given)[::-1])
    with pytest.raises(ParityError, match="logits differ by up to"):
        form.compare(exported(form), form.reference(records), records)
    assert form.feature_difference > 0.25
    monkeypatch.setattr(script, "extract", lambda *given: exact(*given)[1:])
    with pytest.raises(ParityError, match=r"makes \d+ steps of features of `a\.wav`, and the checkpoint's"):
        form.compare(exported(form), form.reference(records), records)


def test_the_script_itself_is_asked_at_the_end(forms, records, tmp_path, monkeypatch) -> None:
    form = forms()
    form.reference(records)
    form.check(tmp_path, records)  # no ONNX, nothing to ask
    (tmp_path / "model.onnx").touch()
    lines = {record.id: text for record, text in zip(records, form.reference(records), strict=True)}

    class Written:
        def __init__(self, path, threads):
            self.path = path

        def transcribe(self, sounds):
            return [{"id": item.id, "text": lines[item.id], "reason": None} for item in sounds]

    monkeypatch.setattr("lightning_transfer.cli.export_speech.Model", Written)
    form.check(tmp_path, records)
    lines["c.flac"] = "other"
    with pytest.raises(ParityError, match=r"writes of 1 of 7 samples: c\.flac \(other\)"):
        form.check(tmp_path, records)


def test_what_cannot_be_read_is_named(forms, tmp_path) -> None:
    (tmp_path / "x.wav").write_bytes(b"no sound")
    form = forms()
    with pytest.raises(ParityError, match=r"`predict_onnx_speech\.py` cannot read `x`: .*Nothing was kept"):
        form.report({}, [Record("x", AudioSegment(str(tmp_path / "x.wav")))])


def test_samples_are_files_of_a_folder_or_rows_of_a_manifest(forms, records, tmp_path) -> None:
    folder = str(Path(records[0].input.path).parent)
    found = forms().samples(folder, 3)
    assert [Path(record.id).name for record in found.records] == ["a.wav", "d.wav", "g.mp3"]
    assert found.rule == f"3 of 7 recordings of `{folder}`"
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav"}\nbroken\n')
    assert len(forms().samples(str(tmp_path / "m.jsonl"), 9).records) == 1
    with pytest.raises(DataError, match="There is no `gone`"):
        forms().samples("gone", 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no audio files"):
        forms().samples(str(tmp_path / "empty"), 3)


def test_times_are_of_pieces_as_they_come(forms, records, monkeypatch) -> None:
    monkeypatch.setattr("lightning_transfer.export.latency._TURNS", 3)
    form = forms()
    seen = []
    found = form.timing({"eager": lambda inputs: seen.append(inputs["input_features"].shape)}, records)
    assert [row["batch_size"] for row in found.rows] == [1, 8]
    assert {shape[0] for shape in seen} == {1, 2, 8}  # ten pieces in all
    assert found.preparation > 0


def test_the_lines_of_the_terminal() -> None:
    row = {"batch_size": 1, "runs": 9, "seconds_of_sound": 60.0, "speedup_onnx": 2.0, "speedup_int8": 4.0}
    row |= {"real_time_factor_eager": 0.02, "real_time_factor_onnx": 0.01, "real_time_factor_int8": 0.005}
    found = RealTime([row], 0.003)
    lines = found.text().splitlines()
    assert lines[1] == "  batch of 1: eager 0.0200, onnx 0.0100 (2.0x), int8 0.0050 (4.0x)"
    assert lines[2].endswith("reading and features: 0.0030")
    assert found.of("int8", "onnx") == {"real_time_factor_eager": 0.02, "real_time_factor_onnx": 0.005}


def test_what_lies_beside_the_model(forms, tmp_path) -> None:
    forms().write_script(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"predict_onnx_speech.py", "speech_parts"}
    assert {path.stem for path in (tmp_path / "speech_parts").iterdir()} == {
        "__init__", "audio_files", "errors", "files", "predict_onnx", "speech", "speech_decode", "speech_features",
        "speech_resample",
    }  # fmt: skip


def test_whisper_is_refused_with_what_to_use_instead(forms) -> None:
    form = forms()
    form.predictor.schema.preprocessing["feature_extractor"]["feature_extractor_type"] = "WhisperFeatureExtractor"
    with pytest.raises(ExportError, match=r"Whisper is not exported.*optimum-cli export onnx"):
        SpeechForm(form.cli, form.predictor)
