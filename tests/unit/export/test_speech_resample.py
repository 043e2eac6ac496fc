"""Resampling in numpy against torchaudio's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchaudio.functional import resample as by_torchaudio

from lightning_transfer.export import speech_resample
from lightning_transfer.export.speech_resample import resample

TOLERANCE = 1e-6
"""Of samples in [-1, 1]: what a sum in single precision loses (seen: 3e-7). A 16-bit step is 3e-5."""


@pytest.mark.parametrize(
    ("rate", "new_rate"),
    [(8000, 16000), (16000, 8000), (44100, 16000), (48000, 16000), (22050, 16000), (11025, 16000), (192000, 16000),
     (7350, 16000), (16000, 16000), (8001, 800)],
)  # fmt: skip
@pytest.mark.parametrize("length", [1, 17, 4001])
def test_samples_are_those_of_torchaudio(rate: int, new_rate: int, length: int) -> None:
    sound = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    wanted = by_torchaudio(torch.from_numpy(sound), rate, new_rate).numpy()
    found = resample(sound, rate, new_rate)
    assert (found.shape, found.dtype) == (wanted.shape, np.float32)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


def test_a_long_sound_in_blocks_is_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    whole = resample(sound, 11025, 16000)
    monkeypatch.setattr(speech_resample, "_BLOCK", 100)
    np.testing.assert_array_equal(resample(sound, 11025, 16000), whole)


def test_rates_without_a_common_divisor_take_no_memory() -> None:
    """torchaudio makes a matrix of 16,000 x 16,015 for these."""
    tone = np.sin(2 * np.pi * 200 * np.arange(16001) / 16001)
    found = resample(tone, 16001, 16000)
    wanted = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)
    assert np.abs(found - wanted)[100:-100].max() < 2e-3


@pytest.mark.parametrize(("rate", "new_rate"), [(0, 16000), (16000, -1)])
def test_impossible_rates(rate: int, new_rate: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {rate} and {new_rate}"):
        resample(np.zeros(4), rate, new_rate)
