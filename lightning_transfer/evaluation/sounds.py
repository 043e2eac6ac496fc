"""Items of sound that a user hands over in Python: files, parts of files, or samples with their rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lightning_transfer.data.audio_files import Waveform, audio_file, resample, segment_seconds
from lightning_transfer.errors import DataError
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.data.audio_preprocessing import AudioPreprocessing

__all__ = ["is_samples", "open_sound", "sound_features", "sound_seconds"]


def open_sound(item: Any, place: int, rate: int) -> AudioSegment | Waveform:  # noqa: ANN401 - whatever a user passes
    """Return a part of a file, or samples at the network's rate.

    Args:
        item: A path, an `AudioSegment`, a record of one, or a pair of samples and their rate: ``(T,)``, or
            ``(T, channels)`` as soundfile reads them, whose mean is taken. Full scale is 1.
        place: Of the item, for messages.
        rate: That the network was trained with.

    Raises:
        TypeError: If it is something else.
        DataError: If the samples are not finite, empty, or no floats.

    Example:
        >>> open_sound((np.ones((8, 2)), 16_000), 0, 16_000).shape, open_sound("a.wav", 0, 16_000).path
        ((8,), 'a.wav')
    """
    if isinstance(item, Record):
        item = item.input
    if isinstance(item, AudioSegment):
        return item
    if isinstance(item, str | Path):
        return AudioSegment(str(item))
    if not is_samples(item):
        raise TypeError(
            f"Item {place} is a {type(item).__name__}. Expected a path, an `AudioSegment`, a record, or a pair of "
            "samples and their rate."
        )
    samples, its_rate = item
    wave = np.asarray(samples.cpu() if isinstance(samples, Tensor) else samples)
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    if wave.ndim != 1 or not wave.size or not np.issubdtype(wave.dtype, np.floating):
        raise DataError(
            f"Item {place} has samples of shape {tuple(wave.shape)} and type {wave.dtype}. Expected floats `(T,)` or "
            "`(T, channels)`, with full scale 1."
        )
    if not np.isfinite(wave).all():
        raise DataError(f"Item {place} has samples that are not finite.")
    return resample(wave.astype(np.float32), int(its_rate), rate, f"item {place}")


def sound_seconds(sound: AudioSegment | Waveform, rate: int) -> float:
    """Return how long an opened item is; of a file the header is read.

    Raises:
        DataError: If the file, or that part of it, cannot be read.
    """
    if isinstance(sound, AudioSegment):
        return segment_seconds(sound, audio_file(sound.path))
    return len(sound) / rate


def sound_features(sound: AudioSegment | Waveform, spec: AudioPreprocessing) -> dict[str, Tensor]:
    """Return what the network reads of an opened item."""
    return spec(sound) if isinstance(sound, AudioSegment) else spec.features(sound)


def is_samples(item: Any) -> bool:  # noqa: ANN401 - as above
    """Tell samples and their rate from other pairs.

    Example:
        >>> is_samples((np.ones(4), 8000)), is_samples(("a.wav", "b.wav"))
        (True, False)
    """
    return (
        isinstance(item, tuple)
        and len(item) == 2
        and isinstance(item[0], np.ndarray | Tensor)
        and isinstance(item[1], int | float | np.integer)
    )
