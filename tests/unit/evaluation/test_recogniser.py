"""Tests of sound in, transcripts out, with a module that hears words as levels of loudness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation.recogniser import Recogniser
from lightning_transfer.speech import AudioSegment, Transcript
from lightning_transfer.types import Batch, Calibration, Record, Schema

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("torchaudio")

RATE = 2000
SPEC = AudioPreprocessing(
    {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": RATE, "do_normalize": False},
    chunk_seconds=4.0,
    overlap_seconds=1.5,
)


class Ears(nn.Module):
    """Each stretch of one level is the word of its number of tenths; one below 0.35 s is not understood."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.sizes: list[int] = []

    def transcribe(self, batch: Batch) -> list[Transcript]:
        assert not self.training
        self.sizes.append(len(batch.index))
        found = []
        rows = zip(batch.index.tolist(), batch.input["input_values"], batch.input["attention_mask"].sum(1), strict=True)
        for (place, number, count), values, length in rows:
            levels = (10 * values[:length]).round().int()
            words, begin = [], 0
            for end in [*((levels[1:] != levels[:-1]).nonzero()[:, 0] + 1).tolist(), int(length)]:
                if levels[begin]:
                    whole = end - begin > 0.35 * RATE
                    words.append((str(int(levels[begin])) if whole else "?", begin / RATE, end / RATE))
                begin = end
            text = " ".join(word for word, _, _ in words)
            found.append(Transcript(place, text, 0.5, int(length) / RATE, "", number, count, words=tuple(words)))
        return found


def sound(words: list[int], seconds: float = 0.4, pause: float = 0.2) -> np.ndarray:
    parts = [np.r_[np.full(round(seconds * RATE), word / 10), np.zeros(round(pause * RATE))] for word in words]
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture
def recogniser() -> Recogniser:
    schema = Schema("transcription", ("<pad>", "|"), preprocessing=SPEC.to_dict())
    return Recogniser(Ears().train(), schema, Calibration(), SPEC, Path("model.ckpt"))  # type: ignore[arg-type]


def test_files_parts_of_files_and_samples_are_heard_in_order(recogniser: Recogniser, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sound([1, 2, 3]), RATE)
    stereo = np.stack([sound([2, 6]), sound([4, 6])], axis=1)
    items: list[Any] = [
        str(path),
        path,
        AudioSegment(str(path), start=0.6, duration=0.6),
        Record("r", AudioSegment(str(path), start=1.2)),
        (sound([5, 1]), RATE),
        (torch.from_numpy(stereo), RATE),
    ]
    found = recogniser.predict(items, batch_size=4)
    assert [item.text for item in found] == ["1 2 3", "1 2 3", "2", "3", "5 1", "3 6"]
    assert [item.index for item in found] == list(range(6))
    assert found[2].seconds == pytest.approx(0.6)
    assert recogniser.module.sizes == [4, 2]
    assert recogniser.module.training


def test_long_sound_is_cut_and_joined(recogniser: Recogniser, tmp_path: Path) -> None:
    words = [int(word) for word in np.random.default_rng(0).permutation(np.arange(40) % 9 + 1)]
    words = [word for place, word in enumerate(words) if not place or words[place - 1] != word]
    long = sound(words)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.r_[np.zeros(round(0.7 * RATE)), long].astype(np.float32), RATE)
    found = recogniser.predict([(long, RATE), AudioSegment(str(path), start=0.7), (sound([7]), RATE)], batch_size=3)
    assert [item.text for item in found] == [" ".join(map(str, words))] * 2 + ["7"]
    assert found[0].seconds == pytest.approx(len(long) / RATE)
    assert sum(recogniser.module.sizes) > 2 * len(long) / RATE / 4


def test_another_rate_is_resampled(recogniser: Recogniser) -> None:
    [found] = recogniser.predict([(np.repeat(sound([4]), 2), 2 * RATE)])
    assert "4" in found.text.split()
    assert found.seconds == pytest.approx(0.6)


def test_wrong_items_are_named(recogniser: Recogniser, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"got one str\. Write `predict\(\[item\]\)`"):
        recogniser.predict("a.wav")
    with pytest.raises(TypeError, match="got one tuple"):
        recogniser.predict((sound([1]), RATE))
    with pytest.raises(TypeError, match="Item 1 is a dict"):
        recogniser.predict([(sound([1]), RATE), {}])
    with pytest.raises(DataError, match=r"none\.wav"):
        recogniser.predict([tmp_path / "none.wav"])
    with pytest.raises(ValueError, match="got 0"):
        recogniser.predict([], batch_size=0)
    with pytest.raises(ValueError, match="Use `predict`"):
        recogniser.outputs([])
    assert recogniser.predict([]) == []
