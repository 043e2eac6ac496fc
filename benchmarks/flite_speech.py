"""Speech from Flite, whose voices are made of recordings: what espeak-ng's formants lack to sound like people.

Its libraries (free, by Carnegie Mellon University) are loaded by ctypes, for the pretraining alone. Debian has them as
``libflite1``.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCOT", "VOICES", "synthesise"]

VOICES = ("kal", "kal16", "rms", "slt")
"""American voices of three people: a man's diphones at 8 and 16 kHz, a man's and a woman's statistical voices."""
SCOT = "awb"
"""Made of recordings of a Scot; none of these sentences teach."""


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


def synthesise(text: str, voice: str, stretch: float, pitch: float, pitch_range: float) -> NDArray[np.float32]:
    """Speak a text at 16 kHz, values in [-1, 1].

    Args:
        text: What is said.
        voice: One of `VOICES`, or `SCOT`.
        stretch: Factor of the length.
        pitch: Mean, in Hz; ``rms`` and ``awb`` keep their own.
        pitch_range: Standard deviation, in Hz.
    """
    import torch
    from torchaudio.functional import resample

    library, voices = _engine()
    chosen = voices[voice]
    values = {"duration_stretch": stretch, "int_f0_target_mean": pitch, "int_f0_target_stddev": pitch_range}
    for name, value in values.items():
        library.flite_feat_set_float(chosen.contents.features, name.encode(), value)
    spoken = library.flite_text_to_wave(text.encode(), chosen)
    try:
        rate, count = spoken.contents.sample_rate, spoken.contents.num_samples
        samples = np.ctypeslib.as_array(spoken.contents.samples, (count,)).astype(np.float32) / 2**15
    finally:
        library.delete_wave(spoken)
    found: NDArray[np.float32] = resample(torch.from_numpy(samples), rate, 16_000).clamp_(-1, 1).numpy()
    return found


@functools.cache
def _engine() -> tuple[Any, dict[str, Any]]:
    try:
        library = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        for part in ("usenglish", "cmulex"):
            ctypes.CDLL(f"libflite_{part}.so.1", mode=ctypes.RTLD_GLOBAL)
        parts = {name: ctypes.CDLL(f"libflite_cmu_us_{name}.so.1") for name in (*VOICES, SCOT)}
    except OSError as error:
        raise SystemExit(f"Flite is not installed ({error}). On Debian: `apt install libflite1`.") from error
    library.flite_init()
    library.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    library.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    library.flite_feat_set_float.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float]
    library.delete_wave.argtypes = [ctypes.c_void_p]
    voices = {}
    for name, part in parts.items():
        register = getattr(part, f"register_cmu_us_{name}")
        register.restype, register.argtypes = ctypes.POINTER(_Voice), [ctypes.c_char_p]
        voices[name] = register(None)
    return library, voices
