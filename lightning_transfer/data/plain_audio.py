"""What a recording sounds like without any network: cepstra and their spread. For the baseline of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from lightning_transfer.data.audio_files import Waveform, read_audio
from lightning_transfer.speech import AudioSegment

__all__ = ["plain_audio_features"]

_RATE = 16_000
_WINDOW, _HOP, _FFT = 400, 160, 512
_BANDS, _CEPSTRA = 40, 20
_FLOOR = 1e-8


def plain_audio_features(
    segments: Sequence[AudioSegment],
    read: Callable[[AudioSegment, int], Waveform] = read_audio,
    num_threads: int = 4,
) -> npt.NDArray[np.float32]:
    """Return ``(N, 81)`` numbers that describe recordings: the field's plain method for emotion, speaker, call type.

    Mean and standard deviation over time of 20 mel-frequency cepstral coefficients (Davis and Mermelstein 1980) and of
    their change from frame to frame, and the logarithm of the length.

    Args:
        segments: Recordings.
        read: Decodes one at 16,000 samples a second.
        num_threads: Recordings decoded at the same time.

    Raises:
        DataError: If a recording cannot be read.

    Example:
        >>> def silence(segment: AudioSegment, rate: int) -> Waveform:
        ...     return np.zeros(rate, dtype=np.float32)
        >>> plain_audio_features([AudioSegment("a.wav")], silence).shape
        (1, 81)
    """
    with ThreadPoolExecutor(num_threads) as pool:
        rows = list(pool.map(lambda segment: _describe(read(segment, _RATE)), segments))
    return np.stack(rows) if rows else np.zeros((0, 4 * _CEPSTRA + 1), dtype=np.float32)


def _describe(wave: Waveform) -> npt.NDArray[np.float32]:
    seconds = len(wave) / _RATE
    found = _cepstra(wave)
    change = np.diff(found, axis=0) if len(found) > 1 else np.zeros_like(found)
    parts = [found.mean(axis=0), found.std(axis=0), change.mean(axis=0), change.std(axis=0), [np.log(seconds)]]
    return np.concatenate(parts).astype(np.float32)


def _cepstra(wave: Waveform) -> npt.NDArray[np.float64]:
    """Return mel-frequency cepstral coefficients ``(frames, 20)``."""
    samples = np.pad(wave.astype(np.float64), (0, max(0, _WINDOW - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP] * np.hanning(_WINDOW)
    energy = np.abs(np.fft.rfft(frames, _FFT)) ** 2 @ _filters()
    bands = np.log(np.maximum(energy, _FLOOR))
    return np.asarray(dct(bands, type=2, norm="ortho", axis=1)[:, :_CEPSTRA])


@lru_cache(maxsize=1)
def _filters() -> npt.NDArray[np.float64]:
    """Return triangles that are even on the mel scale, ``(257, 40)``."""
    top = 2595 * np.log10(1 + _RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _BANDS + 2) / 2595) - 1)
    places = np.fft.rfftfreq(_FFT, 1 / _RATE)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((places - low) / (middle - low), (high - places) / (high - middle)))
