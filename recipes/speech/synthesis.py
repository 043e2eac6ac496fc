"""Speech from espeak-ng, a synthesiser that comes as a wheel: no microphone, no download, no third party's recordings.

The library (GPL-3) is loaded by ctypes, here alone; the package `lightning_transfer` never needs it.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import difflib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_transfer.errors import DataError, listing

__all__ = ["SAMPLE_RATE", "Voice", "list_variants", "list_voices", "synthesise"]

SAMPLE_RATE = 16_000

# What speak_lib.h names; the enumerations are part of its stable interface.
_SYNCHRONOUS = 2
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_DONT_EXIT = 0x8000
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_SYNTH_ARGUMENTS: Any = (ctypes.c_char_p, ctypes.c_size_t, *[ctypes.c_uint] * 4, ctypes.c_void_p, ctypes.c_void_p)
_unload: Any = _ctypes.dlclose if hasattr(_ctypes, "dlclose") else _ctypes.FreeLibrary  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Voice:
    """Who speaks, and how.

    Attributes:
        name: A voice (``en-us``, ``en-gb-scotland``), perhaps with a variant: ``en-us+f3``. See `list_voices` and
            `list_variants`.
        rate: Words a minute, 80 to 450.
        pitch: 0 to 99; 50 is the voice's own.
        pitch_range: 0 is monotone, 99 lively; 50 is the voice's own.
        volume: 0 to 200; 100 is full. Over 100 it clips.
    """

    name: str = "en-us"
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 90

    def __post_init__(self) -> None:
        """Refuse what the synthesiser would bend to its own limits without a word."""
        bounds = {"rate": (80, 450), "pitch": (0, 99), "pitch_range": (0, 99), "volume": (1, 200)}
        for field, (low, high) in bounds.items():
            value = getattr(self, field)
            if not low <= value <= high:
                raise ValueError(f"Expected `{field}` of a voice in {low} to {high}, got {value}.")


def synthesise(text: str, voice: Voice, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """Speak a text: one channel, values in [-1, 1].

    The same text and voice give the same samples, whatever was spoken before.

    Args:
        text: What is said; numbers and abbreviations are read as the synthesiser sees fit, so spell them.
        voice: Who says it.
        sample_rate: Of the result, in Hz. The synthesiser's own is 22,050.

    Raises:
        DataError: If the wheel is missing, the voice does not exist, or nothing was said.
    """
    engine = _engine()
    spoken = engine.speak(text, voice)
    if not spoken.any():
        raise DataError(f"espeak-ng says nothing for the text {text!r}. Give it words.")
    wave = torch.from_numpy(spoken.astype(np.float32) / 2**15)
    if engine.sample_rate != sample_rate:
        from torchaudio.functional import resample

        wave = resample(wave, engine.sample_rate, sample_rate)
    found: NDArray[np.float32] = wave.clamp_(-1, 1).numpy()
    return found


def list_voices(language: str = "") -> tuple[str, ...]:
    """Return the names of the voices whose language begins so, sorted."""
    return tuple(name for name in _engine().voices if name.startswith(language))


def list_variants() -> tuple[str, ...]:
    """Return the variants that any voice can have: ``m1``, ``f3``, ``whisper``."""
    return _engine().variants


class _Engine:
    """The library of the wheel, and what it lists; one utterance at a time.

    It is loaded anew for each utterance, in under a millisecond: the oscillators of its voices run on from one
    utterance to the next, and nothing but a fresh start sets them back, so the same words would never sound the same.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise DataError(
                "The speech of this recipe's demo is synthesised by espeak-ng, whose wheel `espeakng-loader` is not"
                " installed. Run `pip install lightning-transfer[offline]`, or give data of your own."
            ) from error
        self._path: str = espeakng_loader.get_library_path()
        self._data = Path(espeakng_loader.get_data_path())
        self._lock = threading.Lock()
        self._parts: list[NDArray[np.int16]] = []
        # Kept as an attribute: ctypes holds no reference to what C calls back.
        self._callback = _CALLBACK(self._collect)
        self.sample_rate = 0
        with self._lock, self._started() as library:
            self.voices = _voice_names(library)
        self.variants = tuple(sorted(path.name for path in (self._data / "voices" / "!v").iterdir()))

    def speak(self, text: str, voice: Voice) -> NDArray[np.int16]:
        """Return what is said, at the library's own rate."""
        self._check_name(voice.name)
        encoded = text.encode() + b"\0"
        with self._lock, self._started() as library:
            code = library.espeak_SetVoiceByName(voice.name.encode())
            if code:
                # `en-gb` is listed, and yet no voice is found by that name.
                raise DataError(
                    f"espeak-ng lists the voice `{voice.name}`, but does not load it (code {code}). Take another:"
                    f" {self._others(voice.name)}."
                )
            parameters = {_RATE: voice.rate, _VOLUME: voice.volume, _PITCH: voice.pitch, _RANGE: voice.pitch_range}
            for parameter, value in parameters.items():
                library.espeak_SetParameter(parameter, value, 0)
            self._parts = []
            code = library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _CHARS_UTF8, None, None)
            parts, self._parts = self._parts, []
        if code:
            raise DataError(f"espeak-ng refuses the text {text!r} (code {code}).")
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)

    @contextlib.contextmanager
    def _started(self) -> Iterator[Any]:
        library = ctypes.CDLL(self._path)
        library.espeak_Synth.argtypes = _SYNTH_ARGUMENTS
        try:
            # The path is that of the folder which holds `espeak-ng-data`.
            self.sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(self._data.parent).encode(), _DONT_EXIT)
            if self.sample_rate <= 0:
                raise DataError(
                    f"espeak-ng does not start with its data in {self._data} (code {self.sample_rate})."
                    " Install `espeakng-loader` anew."
                )
            # Its own seed is the second in which it starts.
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            library.espeak_SetSynthCallback(self._callback)
            yield library
            library.espeak_Terminate()
        finally:
            _unload(library._handle)

    def _collect(self, samples: Any, count: int, _events: Any) -> int:  # noqa: ANN401 - a C pointer, or None at the end
        if samples and count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def _check_name(self, name: str) -> None:
        # The library takes an unknown name for a wish: it keeps the last voice, and leaves an unknown variant away.
        base, plus, variant = name.partition("+")
        if base not in self.voices:
            near = difflib.get_close_matches(base, self.voices, n=3, cutoff=0.5)
            hint = f" Near: {listing(near)}." if near else ""
            raise DataError(f"espeak-ng has no voice `{base}`.{hint} It has: {self._others(base)}.")
        if plus and variant not in self.variants:
            raise DataError(f"espeak-ng has no variant `{variant}` (of `{name}`). It has: {listing(self.variants)}.")

    def _others(self, name: str) -> str:
        language = name.split("-")[0]
        same = [voice for voice in self.voices if voice != name and voice.split("-")[0] == language]
        return listing(same or list(self.voices), limit=20)


class _VoiceFields(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        # A priority byte, then the language; more of them may follow.
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


def _voice_names(library: Any) -> tuple[str, ...]:  # noqa: ANN401 - a ctypes library
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceFields))
    listed = library.espeak_ListVoices(None)
    names, index = set(), 0
    while listed[index]:
        names.add(listed[index].contents.languages[1:].decode())
        index += 1
    return tuple(sorted(names))


@functools.cache
def _engine() -> _Engine:
    return _Engine()
