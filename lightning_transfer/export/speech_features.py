"""From a waveform to a network's input, in numpy. No torch: this file travels with exported models.

It computes what transformers' extractors compute, and shares no code with them, which it is checked by: waveforms of
zero mean and unit variance (``Wav2Vec2FeatureExtractor``) and Kaldi's filter banks (``SeamlessM4TFeatureExtractor``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FILTER_BANK", "WAVEFORM", "extract", "input_name", "padded", "shortest"]

Array = NDArray[Any]

WAVEFORM, FILTER_BANK = "Wav2Vec2FeatureExtractor", "SeamlessM4TFeatureExtractor"
"""The kinds that can be computed, by transformers' names."""

_EPSILON = 1e-7
# Kaldi's: 25 ms and 10 ms at 16 kHz. The extractor keeps these counts of samples whatever the rate.
_WINDOW, _HOP, _TRANSFORM = 400, 160, 512
# The extractor's own mask is right for two frames that are joined, and for no other number.
_STRIDE = 2
_PREEMPHASIS, _FLOOR, _LOWEST = 0.97, 1.192092955078125e-07, 20.0


def input_name(spec: Mapping[str, Any]) -> str:
    """Return the name of the network's main input.

    Raises:
        ValueError: If the features are of a kind that cannot be computed here.

    Example:
        >>> input_name({"feature_extractor_type": "Wav2Vec2FeatureExtractor"})
        'input_values'
    """
    kind = spec.get("feature_extractor_type")
    if kind not in (WAVEFORM, FILTER_BANK):
        raise ValueError(f"features of kind `{kind}`; known are `{WAVEFORM}` and `{FILTER_BANK}`")
    if kind == FILTER_BANK and spec.get("stride", _STRIDE) != _STRIDE:
        raise ValueError(f"filter banks of which each {spec['stride']} are joined; known is {_STRIDE}")
    return "input_values" if kind == WAVEFORM else "input_features"


def shortest(spec: Mapping[str, Any]) -> int:
    """Return the fewest samples that give features.

    Example:
        >>> shortest({"feature_extractor_type": "SeamlessM4TFeatureExtractor", "stride": 2})
        560
    """
    return 1 if input_name(spec) == "input_values" else _WINDOW + (_STRIDE - 1) * _HOP


def extract(waveform: Array, spec: Mapping[str, Any]) -> Array:
    """Return the features of one piece of sound, float32: ``(T,)``, or ``(T', F)`` of a filter bank.

    Args:
        waveform: ``(T,)`` in ``[-1, 1]``, at the extractor's sampling rate.
        spec: Of the extractor, as transformers' ``to_dict`` gives it.

    Example:
        >>> spec = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}
        >>> extract(np.array([0.5, -0.5, 0.5, -0.5]), spec).round(3).tolist()
        [1.0, -1.0, 1.0, -1.0]
    """
    if input_name(spec) == "input_values":
        values = waveform.astype(np.float64)
        if spec.get("do_normalize", True):
            values = (values - values.mean()) / np.sqrt(values.var() + _EPSILON)
        return np.asarray(values, dtype=np.float32)
    rows = _filter_bank(waveform, int(spec.get("num_mel_bins", 80)), int(spec.get("sampling_rate", 16000)))
    rows = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0, ddof=1) + _EPSILON)
    steps = len(rows) // _STRIDE
    return np.ascontiguousarray(rows[: steps * _STRIDE].reshape(steps, -1), dtype=np.float32)


def padded(rows: Sequence[Array], spec: Mapping[str, Any]) -> dict[str, Array]:
    """Return the features of several pieces as one batch, filled up behind the shorter ones, and their mask.

    Example:
        >>> spec = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "padding_value": 0.0}
        >>> batch = padded([np.ones(3), np.ones(1)], spec)
        >>> batch["input_values"].tolist(), batch["attention_mask"].tolist()
        ([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], [[1, 1, 1], [1, 0, 0]])
    """
    longest = max(len(row) for row in rows)
    values = np.full((len(rows), longest, *rows[0].shape[1:]), float(spec.get("padding_value", 0.0)), dtype=np.float32)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for place, row in enumerate(rows):
        values[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return {input_name(spec): values, "attention_mask": mask}


def _filter_bank(waveform: Array, bins: int, rate: int) -> Array:
    """Return the logarithms of Kaldi's filter bank ``(frames, bins)``."""
    # Kaldi reads 16-bit integers.
    wide = waveform.astype(np.float64) * 2**15
    frames = np.lib.stride_tricks.sliding_window_view(wide, _WINDOW)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    # Each sample less most of the one before it; the first one less most of itself.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - _PREEMPHASIS * before) * _window()
    # Rounded where the extractor rounds: in a steady tone a bin hardly changes, and is divided by how little it does.
    spectrum = np.fft.rfft(frames, n=_TRANSFORM, axis=1).astype(np.complex64)
    power = np.abs(spectrum, dtype=np.float64) ** 2
    logs: Array = np.log(np.maximum(power @ _filters(bins, rate), _FLOOR)).astype(np.float32)
    # Each bin's values side by side: numpy's sums depend on that, too.
    return np.asfortranarray(logs)


@lru_cache(maxsize=1)
def _window() -> Array:
    """Return Povey's window, a Hann window to the power of 0.85."""
    places = np.arange(_WINDOW) / (_WINDOW - 1)
    return np.asarray((0.5 - 0.5 * np.cos(2 * np.pi * places)) ** 0.85)


@lru_cache(maxsize=4)
def _filters(bins: int, rate: int) -> Array:
    """Return triangles on the mel scale ``(frequencies, bins)``, each from the centre before it to the one after it."""
    edges = np.linspace(_mel(_LOWEST), _mel(float(rate // 2)), bins + 2)
    mels = np.array([_mel(place * rate / _TRANSFORM) for place in range(_TRANSFORM // 2 + 1)])[:, None]
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


def _mel(frequency: float) -> float:
    return 1127.0 * math.log(1.0 + frequency / 700.0)
