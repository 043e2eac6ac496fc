"""Tests of what a user may hand over as sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_transfer.errors import DataError
from lightning_transfer.evaluation.sounds import is_samples, open_sound, sound_seconds
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import Record


def test_files_stay_files_and_samples_become_one_channel() -> None:
    segment = AudioSegment("a.wav", start=1.0)
    assert open_sound(segment, 0, 100) is segment
    assert open_sound(Record("r", segment), 0, 100) is segment
    wave = open_sound((torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64), 100), 0, 100)
    assert wave.tolist() == [0.5, 1.0]
    assert wave.dtype == np.float32
    assert sound_seconds(wave, 100) == 0.02


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([]), r"shape \(0,\)"),
        (np.ones(4, dtype=np.int16), "type int16"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.array([0.0, np.nan]), "not finite"),
    ],
)
def test_samples_that_are_no_sound_are_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=f"Item 3 has samples.*{message}"):
        open_sound((samples, 100), 3, 100)


def test_other_pairs_are_no_samples() -> None:
    assert not is_samples(["a.wav", 1])
    assert not is_samples((np.ones(2), "8000"))
    with pytest.raises(TypeError, match="Item 0 is a tuple"):
        open_sound(("a.wav", 1), 0, 100)
