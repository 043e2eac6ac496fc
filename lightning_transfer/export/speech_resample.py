"""Change the sampling rate of sound, in numpy. No torch: this file travels with exported models.

The filter is that of ``torchaudio.functional.resample`` with its defaults, a sinc of six zero crossings in a Hann
window that ends at 0.99 of the lower rate's half; the code is not, which it is checked by.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["resample"]

Array = NDArray[Any]

_CROSSINGS, _ROLL_OFF = 6, 0.99
# Samples that are computed at once: what bounds the memory that an hour of sound takes.
_BLOCK = 1 << 16


def resample(waveform: Array, rate: int, new_rate: int) -> Array:
    """Return a waveform ``(T,)`` at another rate, float32, of ``ceil(T * new_rate / rate)`` samples.

    Args:
        waveform: At ``rate`` samples a second.
        rate: Of the waveform.
        new_rate: Of the result.

    Raises:
        ValueError: If a rate is not positive.

    Example:
        >>> tone = np.sin(2 * np.pi * 100 * np.arange(8000) / 8000)
        >>> twice = resample(tone, 8000, 16000)
        >>> len(twice), bool(np.abs(twice[1000:-1000:2] - tone[500:-500]).max() < 1e-3)
        (16000, True)
    """
    if rate < 1 or new_rate < 1:
        raise ValueError(f"Expected sampling rates of at least 1, got {rate} and {new_rate}.")
    if rate == new_rate:
        return np.asarray(waveform, dtype=np.float32)
    shared = math.gcd(rate, new_rate)
    old, new = rate // shared, new_rate // shared
    weights, first = _weights(old, new)
    taps = weights.shape[1]
    length = math.ceil(len(waveform) * new / old)
    found = np.empty(length, dtype=np.float32)
    # Zeros around it, so that every sample has all its neighbours.
    wide = np.pad(waveform.astype(np.float64), (taps, taps + old))
    for start in range(0, length, _BLOCK):
        places = np.arange(start, min(start + _BLOCK, length))
        phases = places % new
        begins = places // new * old + first[phases] + taps
        total = np.zeros(len(places))
        for tap in range(taps):
            total += wide[begins + tap] * weights[phases, tap]
        found[places] = total
    return found


def _weights(old: int, new: int) -> tuple[Array, Array]:
    """Return for each phase of the new samples its weights ``(new, taps)``, and where the first one's sample lies.

    Only what is inside the window is computed: of rates such as 44,101 and 16,000 the whole matrix has 10^9 weights,
    nearly all of them 0.
    """
    lower = min(old, new) * _ROLL_OFF
    reach = math.ceil(_CROSSINGS * old / lower)
    phases = np.arange(new)
    first = phases * old // new - reach
    taps = first[:, None] + np.arange(2 * reach + 2)[None]
    # In float32 and in this order, as torchaudio does: at 11,025 Hz the rounding moves a sample by up to 3e-5.
    behind = (-phases / new).astype(np.float32)[:, None] + (taps / old).astype(np.float32)
    distance = np.clip(behind * np.float32(lower), -_CROSSINGS, _CROSSINGS).astype(np.float64)
    window = np.cos(distance * math.pi / _CROSSINGS / 2) ** 2
    return np.sinc(distance) * window * lower / old, first
