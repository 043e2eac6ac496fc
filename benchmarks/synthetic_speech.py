"""What `benchmarks.pretrain_speech` hears: sentences that are spoken, disturbed, and turned into features."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor, nn

from recipes.speech.sample.make import mu_law
from recipes.speech.sentences import general_sentence
from recipes.speech.synthesis import SAMPLE_RATE, Voice, synthesise

Wave = NDArray[np.float32]
Generator = np.random.Generator

TRAINING_VOICES = tuple(f"en-us+{kind}{n}" for kind, count in (("m", 7), ("f", 4)) for n in range(1, count + 1))
UNSEEN_VOICES = ("en-us+m8", "en-us+f5", "en-us+caleb", "en-us+belinda", "en-us+Andy", "en-us+linda")
OTHER_ACCENT = tuple(f"en-gb-scotland+{variant}" for variant in ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f4"))


@dataclass(frozen=True)
class Utterance:
    """What was said, and how it sounds at 16 kHz."""

    text: str
    wave: Wave


def draw_voice(generator: Generator, names: Sequence[str], calm: bool = False) -> Voice:
    """Draw who speaks; ``calm`` is the middle of the rates and pitches, as sets to judge by have it."""
    low, high = (140, 200) if calm else (105, 260)
    return Voice(
        names[generator.integers(len(names))],
        rate=int(np.clip(generator.normal(170, 32), low, high)),
        pitch=int(generator.integers(30, 70) if calm else generator.integers(12, 90)),
        pitch_range=int(generator.integers(30, 80)),
    )


def trim(wave: Wave) -> Wave:
    """Cut what is silent before and after the speech."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    return wave[max(loud[0] - 160, 0) : loud[-1] + 320]


def speak(
    generator: Generator, count: int, names: Sequence[str], max_words: int, calm: bool = False
) -> list[Utterance]:
    """Draw sentences and speak them."""
    found = []
    for _ in range(count):
        text = general_sentence(generator, max_words)
        found.append(Utterance(text, trim(synthesise(text, draw_voice(generator, names, calm)))))
    return found


def disturb(wave: Wave, generator: Generator) -> Wave:
    """Return the speech as another microphone, room or line would give it; never shorter than 0.1 s."""
    if generator.random() < 0.5:
        factor = generator.uniform(0.85, 1.18)
        wave = np.interp(np.arange(0, len(wave) - 1, factor), np.arange(len(wave)), wave).astype(np.float32)
    silence = generator.integers(0, SAMPLE_RATE // 4, 2) * (generator.random(2) < 0.6)
    wave = np.pad(wave, silence)
    # A length whose factors are small; what rings on is cut off below. All in 32 bits: this is a fifth of the time.
    size = -(-(len(wave) + 1600) // 4000) * 4000
    spectrum = fft.rfft(wave, size)
    frequencies = np.linspace(0, SAMPLE_RATE / 2, len(spectrum), dtype=np.float32)
    if generator.random() < 0.3:
        length = int(generator.integers(400, 3200))
        room = generator.standard_normal(length, np.float32) * np.exp(-np.arange(length, dtype=np.float32) * 5 / length)
        room *= generator.uniform(0.05, 0.4) / np.linalg.norm(room)
        room[0] = 1.0
        spectrum *= fft.rfft(room, size)
    if generator.random() < 0.5:
        knots = np.linspace(0, math.sqrt(SAMPLE_RATE / 2), 8)
        spectrum *= 10 ** (np.interp(np.sqrt(frequencies), knots, generator.normal(0, 5, 8)) / 20).astype(np.float32)
    if generator.random() < 0.65:
        noise = generator.standard_normal(2 * len(spectrum), np.float32).view(np.complex64)
        noise *= np.maximum(frequencies, 60) ** np.float32(-generator.uniform(0, 1.2))
        ratio = 10 ** (-generator.uniform(5, 40) / 20)
        spectrum += noise * np.float32(ratio * np.linalg.norm(spectrum) / np.linalg.norm(noise))
    limit = generator.random()
    if limit < 0.4:
        spectrum[frequencies > (generator.uniform(3300, 4000) if limit < 0.3 else generator.uniform(3000, 7500))] = 0
    if generator.random() < 0.15:
        spectrum[frequencies < generator.uniform(100, 350)] = 0
    wave = fft.irfft(spectrum, size)[: len(wave)]
    wave = wave * np.float32(10 ** generator.uniform(-1.5, 0) / (np.abs(wave).max() + 1e-9))
    if generator.random() < 0.2:
        wave = mu_law(wave).astype(np.float32)
    return wave


def batches(utterances: Sequence[Utterance], generator: Generator, seconds: float) -> Iterator[list[Utterance]]:
    """Group by length, so that little is padding, and shuffle the groups."""
    order = sorted(utterances, key=lambda item: len(item.wave) * generator.uniform(0.95, 1.05))
    found: list[list[Utterance]] = [[]]
    for item in order:
        if (len(found[-1]) + 1) * len(item.wave) > seconds * SAMPLE_RATE or len(found[-1]) == 48:
            found.append([])
        found[-1].append(item)
    for index in generator.permutation(len(found)):
        if found[index]:
            yield found[index]


class FilterBank:
    """The features of `SeamlessM4TFeatureExtractor`, as PyTorch operations: the same numbers, many times as fast."""

    def __init__(self) -> None:
        from transformers import SeamlessM4TFeatureExtractor

        extractor = SeamlessM4TFeatureExtractor()
        self.filters = torch.from_numpy(extractor.mel_filters).float()
        self.window = torch.from_numpy(extractor.window).float()

    def __call__(self, waves: Sequence[Wave]) -> tuple[Tensor, Tensor]:
        """Return features (N, T, 160), padded with zeros, and the lengths."""
        found = [self._features(torch.from_numpy(wave)) for wave in waves]
        lengths = torch.tensor([len(item) for item in found])
        return nn.utils.rnn.pad_sequence(found, batch_first=True), lengths

    def _features(self, wave: Tensor) -> Tensor:
        frames = (wave * 2**15).unfold(0, 400, 160)
        frames = frames - frames.mean(1, keepdim=True)
        frames = torch.cat([frames[:, :1] * (1 - 0.97), frames[:, 1:] - 0.97 * frames[:, :-1]], 1) * self.window
        power = torch.fft.rfft(frames, 512).abs().square()
        mels = (power @ self.filters).clamp_min(1.192092955078125e-07).log()
        mels = (mels - mels.mean(0)) / (mels.var(0) + 1e-7).sqrt()
        if len(mels) % 2:
            mels = torch.cat([mels, mels.new_zeros(1, mels.shape[1])])
        return mels.reshape(-1, 160)


def recordings(folder: Path) -> list[Utterance]:
    """Read the spoken digits of fsdd as they are, at 16 kHz; this set is judged, never learnt."""
    import soundfile
    from torchaudio.functional import resample

    found = []
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            samples, rate = soundfile.read(folder / row["path"], dtype="float32")
            found.append(Utterance(row["transcript"], resample(torch.from_numpy(samples), rate, SAMPLE_RATE).numpy()))
    return found
