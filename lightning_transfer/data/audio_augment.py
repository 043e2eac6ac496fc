"""Change training recordings at random as telephones, rooms and speakers do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.data.audio_files import AUDIO_SUFFIXES, audio_file, read_audio, resample
from lightning_transfer.data.folders import records_from_files
from lightning_transfer.speech import AudioSegment

__all__ = ["AudioAugmentation", "move_resonances", "mu_law", "telephone"]

_TELEPHONE_RATE = 8_000
_MU = 255.0
_BEND, _MOST_BENT, _BEND_SECONDS = 0.2, 0.5, 0.15
"""Standard deviation and limit of what wanders, as parts of `voice`; how often it turns."""
_EQUALISER_KNOTS = 10
_RESONANCE_KNOTS = 6
_SPECTRUM, _CEPSTRUM = 512, 20
"""Samples of a spectrum and coefficients of its envelope: 32 ms, and resonances 400 Hz apart, at 16 kHz."""
_COLOURS = (0.0, 1.0, 2.0)
"""Powers of the frequency by which the energy of noise falls: white, pink, brown."""


@dataclass(frozen=True)
class AudioAugmentation:
    """How training recordings are changed; nothing by default. The generator alone decides what happens.

    In this order: speed, voice, resonances, equaliser, noise, loudness, telephone: a line carries the noise of a room.

    Attributes:
        speed: Factors of which one is drawn, such as ``[0.9, 1.0, 1.1]`` (Ko et al. 2015): pitch and length change.
        noise_snr: Lowest and highest ratio of speech to noise, in dB; None adds none.
        noise_probability: Share of the recordings that get noise.
        noise_folder: Recordings of noise, of which a part is drawn; None draws white, pink or brown noise.
        gain: Lowest and highest change of the loudness, in dB; None changes none.
        telephone_probability: Share of the recordings that pass a telephone line, see `telephone`.
        voice: Largest share by which resonances, pitch and tempo are changed together, unevenly in time: 0.3 makes them
            up to 1.3 times as high or as low. Stands in for the throats of speakers that are not in the data; 0 for
            none.
        resonances: Largest share by which resonances alone are moved, pitch and tempo not: see `move_resonances`; 0 for
            none. Half of the recordings keep theirs.
        equaliser: Standard deviation, in dB, of a smooth curve over the frequencies: other microphones, other
            voices; 0 for none.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> change = AudioAugmentation(gain=(-6.0, 6.0), telephone_probability=0.5)
        >>> wave = torch.sin(torch.arange(1600) * 0.2)
        >>> one, other = (change(wave, 16_000, torch.Generator().manual_seed(3)) for _ in range(2))
        >>> bool(torch.equal(one, other)), bool(torch.equal(one, wave))
        (True, False)
    """

    speed: Sequence[float] = ()
    noise_snr: tuple[float, float] | None = None
    noise_probability: float = 0.5
    noise_folder: str | None = None
    gain: tuple[float, float] | None = None
    telephone_probability: float = 0.0
    voice: float = 0.0
    resonances: float = 0.0
    equaliser: float = 0.0

    def __post_init__(self) -> None:
        if any(not 0.5 <= factor <= 2.0 or abs(factor * 100 - round(factor * 100)) > 1e-6 for factor in self.speed):
            raise ValueError(
                f"Expected factors of `speed` from 0.5 to 2 in steps of 0.01, got {list(self.speed)}. Usual are 0.9, 1"
                " and 1.1."
            )
        for name, value in (
            ("noise_probability", self.noise_probability),
            ("telephone_probability", self.telephone_probability),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"Expected `{name}` from 0 to 1, got {value}.")
        for name, value in (("voice", self.voice), ("resonances", self.resonances)):
            if not 0 <= value <= 0.5:
                raise ValueError(f"Expected `{name}` from 0 to 0.5, got {value}. Beyond, nobody speaks so.")
        if not 0 <= self.equaliser <= 20:
            raise ValueError(f"Expected `equaliser` from 0 to 20 dB, got {self.equaliser}. 5 is much already.")
        for name, span in (("noise_snr", self.noise_snr), ("gain", self.gain)):
            if span is not None and not (len(span) == 2 and span[0] <= span[1]):
                raise ValueError(f"Expected `{name}` as lowest and highest dB, got {list(span)}.")

    def __bool__(self) -> bool:
        parts = (self.speed, self.voice, self.resonances, self.equaliser, self.noise_snr, self.gain)
        return any(parts) or self.telephone_probability > 0

    @property
    def stretch(self) -> float:
        """How much longer than before a recording may become.

        Example:
            >>> AudioAugmentation(speed=(0.8, 1.0)).stretch
            1.25
        """
        slowest = max([1.0, *(1 / factor for factor in self.speed)])
        return slowest * (1 + self.voice) * math.exp(_MOST_BENT * self.voice)

    def __call__(self, wave: Tensor, rate: int, generator: torch.Generator) -> Tensor:
        """Return the changed recording ``(T,)``, within full scale.

        Args:
            wave: Samples.
            rate: Samples in a second.
            generator: Decides; the same state gives the same change.
        """
        if self.speed:
            factor = self.speed[int(torch.randint(len(self.speed), (), generator=generator))]
            wave = _resample(wave, round(rate * factor), rate)
        if self.voice:
            wave = _other_voice(wave, rate, self.voice, generator)
        if self.resonances and _chance(generator) < 0.5:
            wave = move_resonances(wave, self._resonance_factors(generator))
        if self.equaliser:
            wave = _equalise(wave, self.equaliser, generator)
        if self.noise_snr is not None and _chance(generator) < self.noise_probability:
            snr = _between(self.noise_snr, generator)
            wave = _mix(wave, self._noise(len(wave), rate, generator), snr)
        if self.gain is not None:
            wave = wave * 10 ** (_between(self.gain, generator) / 20)
        if self.telephone_probability and _chance(generator) < self.telephone_probability:
            wave = telephone(wave, rate)
        return wave.clamp(-1, 1)

    def _resonance_factors(self, generator: torch.Generator) -> Tensor:
        """Draw one factor for all, and small ones that differ along the frequencies."""
        wander = self.resonances / 3 * torch.randn(_RESONANCE_KNOTS, generator=generator)
        return torch.exp(_between((-self.resonances, self.resonances), generator) + wander)

    def _noise(self, length: int, rate: int, generator: torch.Generator) -> Tensor:
        if self.noise_folder is None:
            colour = _COLOURS[int(torch.randint(len(_COLOURS), (), generator=generator))]
            return _coloured(length, colour, generator)
        path = self._files[int(torch.randint(len(self._files), (), generator=generator))]
        seconds = audio_file(path).seconds
        wanted = min(length / rate, seconds)
        start = _chance(generator) * max(0.0, seconds - wanted)
        noise = torch.from_numpy(read_audio(AudioSegment(path, start, wanted), rate))
        return noise.repeat(math.ceil(length / len(noise)))[:length]  # a short one again and again

    @cached_property
    def _files(self) -> list[str]:
        records = records_from_files(Path(self.noise_folder or "."), suffixes=AUDIO_SUFFIXES)
        return [str(record.input) for record in records]


def telephone(wave: Tensor, rate: int) -> Tensor:
    """Return what arrives over a telephone line: 8,000 samples a second, each in 8 bits of mu-law.

    Args:
        wave: Samples ``(T,)``.
        rate: Samples in a second, before and after.
    """
    narrow = mu_law(_resample(wave, rate, _TELEPHONE_RATE).clamp(-1, 1))
    return _resample(narrow, _TELEPHONE_RATE, rate)[: len(wave)]


def move_resonances(wave: Tensor, factors: Tensor) -> Tensor:
    """Return speech as a vocal tract of another shape would form it, with the same pitch and tempo.

    The envelope of each short spectrum is what its low cepstrum says (Oppenheim and Schafer 1975, chapter 10); it is
    read at other frequencies and laid over the fine structure anew. Recordings shorter than a spectrum stay as they
    are.

    Args:
        wave: Samples ``(T,)``.
        factors: By which frequencies are multiplied to find what lies there afterwards, ``(K,)``, at places spread
            evenly from 0 to half the sampling rate: 0.9 everywhere raises all resonances by a ninth.

    Example:
        >>> wave = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(move_resonances(wave, torch.ones(2)), wave, atol=1e-4))
        True
    """
    size, hop, kept = _SPECTRUM, _SPECTRUM // 4, _CEPSTRUM
    if len(wave) < size:
        return wave
    window = torch.hann_window(size)
    spectrum = torch.stft(wave, size, hop, window=window, return_complex=True)
    cepstrum = torch.fft.irfft((spectrum.abs() + 1e-6).log().T, n=size)
    cepstrum[:, kept : size - kept + 1] = 0
    envelope = torch.fft.rfft(cepstrum).real.T
    top = size // 2
    places = np.interp(np.linspace(0, 1, top + 1), np.linspace(0, 1, len(factors)), factors.numpy())
    sources = np.clip(np.arange(top + 1) * places, 0, top)
    low = np.minimum(sources.astype(np.int64), top - 1)
    part = torch.from_numpy((sources - low).astype(np.float32))[:, None]
    moved = envelope[low] * (1 - part) + envelope[low + 1] * part
    changed = spectrum * (moved - envelope).clamp(-4, 4).exp()
    found: Tensor = torch.istft(changed, size, hop, window=window, length=len(wave))
    loud = found.square().mean().sqrt()
    return found * (wave.square().mean().sqrt() / loud) if float(loud) > 0 else wave


def mu_law(wave: Tensor) -> Tensor:
    """Round samples to the 256 levels of mu-law, which lie close together where sound is quiet.

    Example:
        >>> mu_law(torch.tensor([0.5, -1.0]))
        tensor([ 0.4967, -1.0000])
    """
    loud = torch.sign(wave) * torch.log1p(_MU * wave.abs()) / math.log1p(_MU)
    level = torch.floor((loud + 1) / 2 * _MU + 0.5) / _MU * 2 - 1
    found: Tensor = torch.sign(level) * (torch.exp(level.abs() * math.log1p(_MU)) - 1) / _MU
    return found


def _resample(wave: Tensor, rate: int, wanted: int) -> Tensor:
    return torch.from_numpy(resample(np.asarray(wave, dtype=np.float32), rate, wanted))


def _other_voice(wave: Tensor, rate: int, share: float, generator: torch.Generator) -> Tensor:
    """Play faster or slower, by one factor for the whole and by small ones that wander."""
    samples = np.asarray(wave, dtype=np.float32)
    knots = max(2, round(len(wave) / rate / _BEND_SECONDS) + 1)
    bends = (_BEND * share * torch.randn(knots, generator=generator)).clamp(-_MOST_BENT * share, _MOST_BENT * share)
    most = math.log1p(share)
    steps = np.interp(np.linspace(0, knots - 1, len(samples)), np.arange(knots), bends.numpy())
    places = np.cumsum(np.exp(steps + _between((-most, most), generator)))
    return torch.from_numpy(np.interp(np.arange(places[0], places[-1]), places, samples).astype(np.float32))


def _equalise(wave: Tensor, decibel: float, generator: torch.Generator) -> Tensor:
    """Raise and lower bands, wider ones at high frequencies; the loudness stays."""
    size = 2 ** math.ceil(math.log2(len(wave)))  # small factors: a transform of any length may take far longer
    spectrum = torch.fft.rfft(wave, n=size)
    knots = decibel * torch.randn(_EQUALISER_KNOTS, generator=generator)
    places = np.sqrt(np.linspace(0, 1, len(spectrum))) * (_EQUALISER_KNOTS - 1)
    curve = torch.from_numpy(np.interp(places, np.arange(_EQUALISER_KNOTS), knots.numpy()).astype(np.float32))
    found: Tensor = torch.fft.irfft(spectrum * 10 ** (curve / 20), n=size)[: len(wave)]
    loud = found.square().mean().sqrt()
    return found * (wave.square().mean().sqrt() / loud) if float(loud) > 0 else wave


def _coloured(length: int, power: float, generator: torch.Generator) -> Tensor:
    """Draw noise whose energy falls with a power of the frequency."""
    spectrum = torch.fft.rfft(torch.randn(length, generator=generator))
    places = torch.arange(len(spectrum), dtype=torch.float32).clamp(min=1)
    found: Tensor = torch.fft.irfft(spectrum * places ** (-power / 2), n=length)
    return found


def _mix(wave: Tensor, noise: Tensor, snr: float) -> Tensor:
    """Add noise so much quieter than the recording; silence stays silent."""
    loud, hiss = wave.square().mean().sqrt(), noise.square().mean().sqrt()
    if not float(hiss) > 0:
        return wave
    mixed: Tensor = wave + noise * (loud / hiss * 10 ** (-snr / 20))
    return mixed


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _between(span: tuple[float, float], generator: torch.Generator) -> float:
    return span[0] + (span[1] - span[0]) * _chance(generator)
