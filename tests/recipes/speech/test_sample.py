"""The demo's speech: what is written, that its splits share no speaker, and that the line is a telephone's."""

import csv
import hashlib
import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.errors import DataError
from recipes.speech.sample import make
from recipes.speech.sample.make import Sample, call_sentence, mu_law, telephone, write_sample
from recipes.speech.sentences import lexicon

SMALL = {"num_speakers": 4, "calls_per_speaker": 3, "num_general": 6}
PRODUCTS = (Path(make.__file__).parent / "products.txt").read_text().split()


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def sound(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    pytest.importorskip("espeakng_loader", reason="the synthesiser's wheel is missing: pip install espeakng-loader")
    return write_sample(tmp_path_factory.mktemp("speech") / "deep" / "set", **SMALL)


def test_both_tables_say_what_is_there(written: Sample) -> None:
    calls, general = rows(written.calls), rows(written.general)
    assert (len(calls), len(general)) == (12, 6)
    assert list(calls[0]) == list(general[0]) == ["path", "text", "speaker", "accent", "channel", "duration", "split"]
    paths = {row["path"] for row in calls + general}
    assert paths == {str(path.relative_to(written.root)) for path in written.root.rglob("*.wav")}
    assert len(paths) == 18
    for row in calls + general:
        samples = sound(written.root / row["path"])
        assert float(row["duration"]) == pytest.approx(len(samples) / 16_000, abs=6e-4)
        assert 0.02 < np.abs(samples).max() < 1
        assert re.fullmatch(r"[a-z' ]+", row["text"])
    assert written.keywords.read_text().split() == PRODUCTS


def test_no_speaker_is_in_two_splits_and_accents_are_apart(written: Sample) -> None:
    calls, general = rows(written.calls), rows(written.general)
    for table in (calls, general):
        splits: dict[str, set[str]] = {}
        for row in table:
            splits.setdefault(row["speaker"], set()).add(row["split"])
        assert all(len(found) == 1 for found in splits.values())
    assert {row["split"] for row in calls} == {"train", "val", "test"}
    assert {row["split"] for row in general} == {"val", "test"}
    assert {(row["accent"], row["channel"]) for row in calls} == {("en-gb-scotland", "telephone")}
    assert {(row["accent"], row["channel"]) for row in general} == {("en-us", "wideband")}
    for speaker in {row["speaker"] for row in calls}:
        texts = [row["text"] for row in calls if row["speaker"] == speaker]
        assert len(texts) == len(set(texts)) == 3


def test_only_calls_come_through_a_telephone(written: Sample) -> None:
    def share_above(path: str, limit: float) -> float:
        power = np.abs(np.fft.rfft(sound(written.root / path))) ** 2
        return float(power[int(limit / 8000 * len(power)) :].sum() / power.sum())

    assert max(share_above(row["path"], 4500) for row in rows(written.calls)) < 1e-4
    assert max(share_above(row["path"], 4500) for row in rows(written.general)) > 1e-2


def test_the_same_arguments_write_the_same_bytes(written: Sample, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", **SMALL)
    assert digests(tmp_path / "again") == digests(written.root)
    other = write_sample(tmp_path / "other", seed=1, **SMALL)
    assert not {row["text"] for row in rows(other.general) if row["text"].count(" ") > 3} & {
        row["text"] for row in rows(written.general)
    }


def test_a_set_that_is_there_is_kept(written: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "synthesise", None)
    assert write_sample(written.root, **SMALL) == written
    with pytest.raises(DataError, match=r"other arguments: num_general 6, now 8"):
        write_sample(written.root, **{**SMALL, "num_general": 8})


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.wav").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"not empty and holds no generated speech.*sample\.json"):
        write_sample(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.wav"]


def test_a_damaged_set_is_said(written: Sample, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    (root / "calls").mkdir(parents=True)
    for name in ("calls.csv", "general.csv", "sample.json"):
        (root / name).write_bytes((written.root / name).read_bytes())
    with pytest.raises(DataError, match=r"caller_01_001\.wav` is missing. Delete"):
        write_sample(root, **SMALL)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise DataError("no voice today")

    monkeypatch.setattr(make, "synthesise", broken)
    with pytest.raises(DataError, match="no voice today"):
        write_sample(tmp_path / "set", **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"), [("seed", -1), ("num_speakers", 2), ("calls_per_speaker", 0), ("num_general", -1)]
)
def test_arguments_out_of_range(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"`{name}` of at least .*, got {value}"):
        write_sample(tmp_path / "set", **{name: value})


def test_products_are_in_no_general_sentence() -> None:
    phrases = (Path(make.__file__).parent / "phrases.txt").read_text().splitlines()
    assert len(phrases) == len(set(phrases)) >= 60
    assert len(PRODUCTS) == len(set(PRODUCTS)) >= 10
    assert not set(PRODUCTS) & set(lexicon().everything)
    generator = np.random.default_rng(0)
    drawn = [call_sentence(generator) for _ in range(600)]
    assert all(re.fullmatch(r"[a-z' ]+", text) for text in drawn)
    assert set(PRODUCTS) < {word for text in drawn for word in text.split()}


def test_mu_law_is_that_of_torchaudio() -> None:
    functional = pytest.importorskip("torchaudio.functional", reason="torchaudio is missing")
    samples = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    oracle = functional.mu_law_decoding(functional.mu_law_encoding(samples, 256), 256)
    np.testing.assert_allclose(mu_law(samples.numpy()), oracle.numpy(), atol=1e-6)


def test_the_line_passes_voices_and_nothing_high() -> None:
    pytest.importorskip("torchaudio", reason="torchaudio is missing")
    time = np.arange(16_000) / 16_000
    low, high = (0.5 * np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (1000, 6000))
    heard = telephone(low)
    assert len(heard) == 16_000
    assert np.corrcoef(low, heard)[0, 1] > 0.999
    assert np.abs(heard - low)[100:-100].max() > 1e-4
    assert np.square(telephone(high)).mean() < 1e-3 * np.square(high).mean()


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("espeakng_loader", reason="the synthesiser's wheel is missing: pip install espeakng-loader")
    make.main([str(tmp_path / "set"), "--num_speakers=3", "--calls_per_speaker=1", "--num_general=0", "--seed=4"])
    assert f"calls: {tmp_path / 'set' / 'calls.csv'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "set" / "sample.json").read_text())["seed"] == 4
    assert rows(tmp_path / "set" / "general.csv") == []
