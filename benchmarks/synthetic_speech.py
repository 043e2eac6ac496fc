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

from benchmarks import flite_speech
from lightning_transfer.data.audio_augment import move_resonances
from recipes.speech.sample.make import mu_law
from recipes.speech.sentences import general_sentence
from recipes.speech.synthesis import SAMPLE_RATE, Voice, synthesise

Wave = NDArray[np.float32]
Generator = np.random.Generator

_NUMBERED = [f"{kind}{n}" for kind, count in (("m", 7), ("f", 4)) for n in range(1, count + 1)]
# The synthesiser's variants that sound like people, but for those that are judged, and one that resembles one of them.
_NAMED = """Alex Alicia Andrea Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed
RicishayMax RicishayMax2 RicishayMax3 Storm Tweaky adam anika antonio aunty benjamin boris croak david ed edward edward2
grandma grandpa gustave ian iven iven2 iven3 iven4 john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 klatt6 marcelo max
michel miguel mike2 norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 travis victor whisper
whisperf zac""".split()
TRAINING_VOICES = tuple(f"en-us+{name}" for name in (*_NUMBERED, *_NAMED))
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


def speak_by_recordings(
    generator: Generator, count: int, max_words: int, voices: Sequence[str] = flite_speech.VOICES, calm: bool = False
) -> list[Utterance]:
    """Draw sentences and let Flite speak them, whose voices are made of recordings; ``calm`` as in `draw_voice`."""
    found = []
    for _ in range(count):
        text = general_sentence(generator, max_words)
        voice = voices[generator.integers(len(voices))]
        spread = 0.1 if calm else 1.0
        stretch = float(np.clip(1.05 * math.exp(spread * generator.normal(0, 0.22)), 0.65, 1.7))
        pitch = 140 * math.exp(spread * generator.uniform(-0.5, 0.55))
        wave = flite_speech.synthesise(text, voice, stretch, pitch, generator.uniform(5, 30))
        found.append(Utterance(text, trim(wave)))
    return found


def disturb(wave: Wave, generator: Generator) -> Wave:
    """Return the speech as another throat, microphone, room or line would give it; never shorter than 0.1 s."""
    if generator.random() < 0.8:
        wave = _other_throat(wave, generator)
    if generator.random() < 0.5:
        wave = _other_resonances(wave, generator)
    if generator.random() < 0.3:
        # Recordings are often cut too close to the speech.
        cut = generator.integers(0, SAMPLE_RATE // 30, 2)
        wave = wave[cut[0] : len(wave) - cut[1]]
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
    if limit < 0.25:
        spectrum[frequencies > (generator.uniform(3300, 4000) if limit < 0.15 else generator.uniform(3000, 7500))] = 0
    if generator.random() < 0.15:
        spectrum[frequencies < generator.uniform(100, 350)] = 0
    wave = fft.irfft(spectrum, size)[: len(wave)]
    wave = wave * np.float32(10 ** generator.uniform(-1.5, 0) / (np.abs(wave).max() + 1e-9))
    if generator.random() < 0.2:
        wave = mu_law(wave).astype(np.float32)
    if limit > 0.7:
        wave = _eight_kilohertz(wave)
    return wave


def _other_throat(wave: Wave, generator: Generator) -> Wave:
    """Play faster or slower, unevenly: resonances, pitch and tempo move together, by at most a third.

    The synthesiser draws pitch and tempo too, so what is left is mostly a longer or a shorter vocal tract.
    """
    knots = np.linspace(0, len(wave), max(3, round(len(wave) / SAMPLE_RATE / 0.15)))
    bends = np.interp(np.arange(len(wave)), knots, generator.normal(0, 0.05, len(knots)))
    places = np.cumsum(np.exp(generator.uniform(-0.26, 0.26) + bends))
    return np.interp(np.arange(places[0], places[-1]), places, wave).astype(np.float32)


def _other_resonances(wave: Wave, generator: Generator) -> Wave:
    """Move the resonances by factors that differ along the frequencies; pitch and tempo stay."""
    factors = np.exp(generator.uniform(-0.15, 0.15) + generator.normal(0, 0.05, 6)).astype(np.float32)
    return move_resonances(torch.from_numpy(wave), torch.from_numpy(factors)).numpy()


def _eight_kilohertz(wave: Wave) -> Wave:
    """Return what is left of a recording of 8 kHz and 16 bits, read at 16 kHz as the recipe reads it."""
    from torchaudio.functional import resample

    low = resample(torch.from_numpy(wave), SAMPLE_RATE, 8000).mul(2**15).round().div(2**15)
    return resample(low, 8000, SAMPLE_RATE)[: len(wave)].numpy()


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
