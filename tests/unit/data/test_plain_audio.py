"""Cepstra are torchaudio's, and tell voices apart."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.data.plain_audio import _cepstra, plain_audio_features
from lightning_transfer.errors import DataError
from lightning_transfer.speech import AudioSegment
from tests.data.speech.make import noise, say, write

torchaudio = pytest.importorskip("torchaudio")


def test_cepstra_are_those_of_torchaudio() -> None:
    wave = noise(0.5)
    window = {"n_fft": 512, "win_length": 400, "hop_length": 160, "center": False, "n_mels": 40}
    theirs = torchaudio.transforms.MFCC(
        16_000,
        n_mfcc=20,
        log_mels=True,
        melkwargs={**window, "window_fn": lambda size: torch.from_numpy(np.hanning(size)).float()},
    )(torch.from_numpy(wave)).T.numpy()
    mine = _cepstra(wave)
    # torchaudio centres the window in the transform, and its frames end with it: theirs lie 56 samples later.
    assert np.abs(mine[: len(theirs)].mean(axis=0) - theirs.mean(axis=0)).max() < 0.35
    assert np.corrcoef(mine.mean(axis=0), theirs.mean(axis=0))[0, 1] > 0.999


def test_loudness_moves_the_first_coefficient_alone() -> None:
    wave = noise(0.5)
    change = _cepstra(0.5 * wave).mean(axis=0) - _cepstra(wave).mean(axis=0)
    assert change[0] == pytest.approx(np.log(0.25) * np.sqrt(40))
    assert np.abs(change[1:]).max() < 1e-9


def test_voices_are_told_apart(tmp_path: Path) -> None:
    segments = []
    for number in range(24):
        wave = say(("hello", "agent", "please")[number % 3], pitch=1.0 if number < 12 else 1.3, seed=number)
        segments.append(AudioSegment(str(write(tmp_path / f"{number}.wav", wave))))
    found = plain_audio_features(segments)
    assert found.shape == (24, 81)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    scaled = (found - found.mean(axis=0)) / (found.std(axis=0) + 1e-6)
    distances = np.linalg.norm(scaled[:, None] - scaled[None], axis=2) + np.eye(24) * 1e9
    assert np.mean((distances.argmin(axis=1) < 12) == (np.arange(24) < 12)) > 0.9


def test_the_shortest_and_the_unreadable(tmp_path: Path) -> None:
    short = AudioSegment(str(write(tmp_path / "a.wav", noise(0.005))))
    assert np.isfinite(plain_audio_features([short])).all()
    assert plain_audio_features([]).shape == (0, 81)
    with pytest.raises(DataError, match="no such file"):
        plain_audio_features([AudioSegment(str(tmp_path / "none.wav"))])
