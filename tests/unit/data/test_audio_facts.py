"""One look at a piece of sound tells its length, loudness, and what is wrong with it."""

from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data import audio_files
from lightning_transfer.data.audio_facts import inspect_audio
from lightning_transfer.errors import DataError
from lightning_transfer.speech import AudioSegment
from tests.data.speech.make import noise, say, write


def test_numbers_are_those_of_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = noise(1.0)
    path = write(tmp_path / "a.wav", wave, subtype="FLOAT")
    monkeypatch.setattr(audio_files, "_BLOCK", 999)
    found = inspect_audio(AudioSegment(str(path), 0.25, 0.5))
    part = wave[4000:12_000]
    assert found.seconds == 0.5
    assert found.file.seconds == 1.0
    assert found.peak == np.abs(part).max()
    assert found.level == pytest.approx(np.sqrt((part.astype(np.float64) ** 2).mean()))
    assert not found.is_silent
    assert not found.is_clipped


def test_copies_have_one_digest_whatever_their_format(tmp_path: Path) -> None:
    wave = np.round(noise(0.5) * 32768).astype(np.int16)  # formats round in ways of their own
    paths = [write(tmp_path / name, wave, subtype="PCM_16") for name in ("a.wav", "b.flac", "c.aiff")]
    digests = {inspect_audio(AudioSegment(str(path))).digest for path in paths}
    assert len(digests) == 1
    other = write(tmp_path / "d.wav", np.roll(wave, 1), subtype="PCM_16")
    assert inspect_audio(AudioSegment(str(other))).digest not in digests
    assert inspect_audio(AudioSegment(str(paths[0]), 0.1)).digest not in digests


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW", "PCM_U8", "FLOAT"])
@pytest.mark.parametrize("block", [7, 1 << 18])
def test_a_cut_off_wave_is_clipped_and_a_loud_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtype: str, block: int
) -> None:
    monkeypatch.setattr(audio_files, "_BLOCK", block)
    time = np.arange(4000) / 16_000
    sine = np.sin(2 * np.pi * 150 * time)
    cut = inspect_audio(AudioSegment(str(write(tmp_path / "cut.wav", np.clip(1.6 * sine, -1, 1), subtype=subtype))))
    share = np.mean(np.abs(1.6 * sine) >= 1)
    assert cut.is_clipped
    assert 0.6 * share < cut.clipped <= share + 0.06
    loud = inspect_audio(AudioSegment(str(write(tmp_path / "loud.wav", 0.93 * sine, subtype=subtype))))
    assert not loud.is_clipped
    if subtype in ("PCM_16", "FLOAT"):  # the others have few levels up there
        full = inspect_audio(AudioSegment(str(write(tmp_path / "full.wav", 0.9999 * sine, subtype=subtype))))
        assert not full.is_clipped


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64])
def test_a_run_is_counted_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    wave = np.zeros(40, dtype=np.float32)
    wave[3:8], wave[10:12], wave[20:23] = 1.0, 1.0, -1.0  # of five, of two, of three: 3 + 0 + 1 samples end a run
    path = write(tmp_path / "a.wav", wave, subtype="FLOAT")
    monkeypatch.setattr(audio_files, "_BLOCK", block)
    assert inspect_audio(AudioSegment(str(path))).clipped == 4 / 40


def test_silence_is_what_nobody_hears(tmp_path: Path) -> None:
    quiet = inspect_audio(AudioSegment(str(write(tmp_path / "a.wav", 0.002 * noise(0.5)))))
    assert quiet.is_silent
    assert inspect_audio(AudioSegment(str(write(tmp_path / "z.flac", np.zeros(100, dtype=np.float32))))).is_silent
    assert not inspect_audio(AudioSegment(str(write(tmp_path / "b.wav", 0.1 * say("hello"))))).is_silent


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        inspect_audio(AudioSegment(str(tmp_path / "none.wav")))
