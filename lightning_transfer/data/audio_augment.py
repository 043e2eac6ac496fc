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

__all__ = ["AudioAugmentation", "mu_law", "telephone"]

_TELEPHONE_RATE = 8_000
_MU = 255.0
_COLOURS = (0.0, 1.0, 2.0)
"""Powers of the frequency by which the energy of noise falls: white, pink, brown."""


@dataclass(frozen=True)
class AudioAugmentation:
    """How training recordings are changed; nothing by default. The generator alone decides what happens.

    In this order: speed, noise, loudness, telephone: a line carries the noise of the room.

    Attributes:
        speed: Factors of which one is drawn, such as ``[0.9, 1.0, 1.1]`` (Ko et al. 2015): pitch and length change.
        noise_snr: Lowest and highest ratio of speech to noise, in dB; None adds none.
        noise_probability: Share of the recordings that get noise.
        noise_folder: Recordings of noise, of which a part is drawn; None draws white, pink or brown noise.
        gain: Lowest and highest change of the loudness, in dB; None changes none.
        telephone_probability: Share of the recordings that pass a telephone line, see `telephone`.

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
        for name, span in (("noise_snr", self.noise_snr), ("gain", self.gain)):
            if span is not None and not (len(span) == 2 and span[0] <= span[1]):
                raise ValueError(f"Expected `{name}` as lowest and highest dB, got {list(span)}.")

    def __bool__(self) -> bool:
        return bool(self.speed or self.noise_snr or self.gain or self.telephone_probability)

    @property
    def stretch(self) -> float:
        """How much longer than before a recording may become.

        Example:
            >>> AudioAugmentation(speed=(0.8, 1.0)).stretch
            1.25
        """
        return max([1.0, *(1 / factor for factor in self.speed)])

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
        if self.noise_snr is not None and _chance(generator) < self.noise_probability:
            snr = _between(self.noise_snr, generator)
            wave = _mix(wave, self._noise(len(wave), rate, generator), snr)
        if self.gain is not None:
            wave = wave * 10 ** (_between(self.gain, generator) / 20)
        if self.telephone_probability and _chance(generator) < self.telephone_probability:
            wave = telephone(wave, rate)
        return wave.clamp(-1, 1)

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
