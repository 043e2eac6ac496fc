"""Read audio files, whole or in part, without decoding more than is asked for; and say what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.errors import DataError
from lightning_transfer.speech import AudioSegment

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioFile",
    "Waveform",
    "audio_file",
    "blocks",
    "read_audio",
    "resample",
    "segment_seconds",
]

# fmt: off
AUDIO_SUFFIXES = (
    ".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".sph", ".w64", ".wav",
)
# fmt: on

Waveform = npt.NDArray[np.float32]

_BLOCK = 1 << 18
"""Samples a channel that are decoded at once: memory does not grow with the length of a file."""

_RATES = (2_000, 768_000)
_TOLERANCE = 0.05
"""Seconds by which a piece may pass the end of its file: manifests round, and encoders pad."""

_MP3_RUN_UP = 2.0
"""Seconds that are decoded and dropped before a part of an MP3: its frames borrow bits from earlier ones, and right
after a jump the decoder gives silence or noise."""

_MAX_KERNEL = 20_000_000
_STREAMED = 2**31 - 64_000
"""A length in a WAV header from here on is none: what is written to a pipe has it, as its length was not known."""


@dataclass(frozen=True)
class AudioFile:
    """What the header of a file says.

    Attributes:
        num_samples: Of each channel.
        rate: Samples in a second.
        channels: Number of them.
        encoding: As soundfile names it: ``PCM_16``, ``ULAW``, ``MPEG_LAYER_III``.
        container: Likewise: ``WAV``, ``FLAC``.
    """

    num_samples: int
    rate: int
    channels: int
    encoding: str
    container: str

    @property
    def seconds(self) -> float:
        """Length."""
        return self.num_samples / self.rate


def audio_file(path: str | Path) -> AudioFile:
    """Return what the header of a file says; nothing is decoded but an MP3 whose header has no length.

    Raises:
        DataError: If it is missing, empty, no audio, cut off, or holds no sound.
    """
    with _opened(path) as (_, file):
        return file


def segment_seconds(segment: AudioSegment, file: AudioFile) -> float:
    """Return how long a piece of a file is.

    Raises:
        DataError: If it begins behind the file's end, ends there, or asks for a channel that the file has not.
    """
    name = f"`{segment.path}`"
    if segment.start < 0 or segment.start >= file.seconds:
        raise DataError(
            f"Cannot read {name} from {segment.start:g} s on: the file is {file.seconds:.3f} s long. Correct the"
            " offset."
        )
    rest = file.seconds - segment.start
    if segment.duration is not None:
        if segment.duration <= 0:
            raise DataError(f"Cannot read {segment.duration:g} s of {name}. Give a duration above 0.")
        if segment.duration > rest + _TOLERANCE:
            raise DataError(
                f"Cannot read {name} from {segment.start:g} to {segment.start + segment.duration:g} s: the file is"
                f" {file.seconds:.3f} s long. Correct the offset or the duration; the file may also be cut off."
            )
        rest = min(rest, segment.duration)
    if segment.channel != "mix" and not 0 <= segment.channel < file.channels:
        raise DataError(
            f"{name} has {file.channels} channel{'s' * (file.channels > 1)}, counted from 0, and channel"
            f" {segment.channel} is asked for. Choose an existing one, or `mix`."
        )
    return rest


def read_audio(segment: AudioSegment, rate: int) -> Waveform:
    """Return a piece of a file as one channel at a wanted rate.

    The rest of the file is not read (of an MP3 two seconds before the piece are, see `_MP3_RUN_UP`). Several channels
    become their mean unless the segment names one. Another rate is changed by torchaudio's ``resample``.

    Args:
        segment: Where the piece lies.
        rate: Samples in a second that the network was trained with.

    Returns:
        ``(T,)`` float32; full scale is 1.

    Raises:
        DataError: If the file, or the piece, cannot be read, or holds NaN or infinite values.
    """
    with _opened(segment.path) as (sound, file):
        parts = list(_decode(sound, segment, file))
    return resample(np.concatenate(parts), file.rate, rate, segment.path)


def blocks(segment: AudioSegment) -> Iterator[Waveform]:
    """Yield a piece of a file at its own rate in blocks, so that memory does not grow with its length.

    Raises:
        DataError: As `read_audio`.
    """
    with _opened(segment.path) as (sound, file):
        yield from _decode(sound, segment, file)


def resample(wave: Waveform, rate: int, wanted: int, name: str = "the sound") -> Waveform:
    """Return a waveform at another rate, by torchaudio's windowed sinc.

    Raises:
        DataError: If torchaudio is missing or broken, or the two rates have so little in common that its table of
            filters would fill the memory.
    """
    if rate == wanted:
        return wave
    common = int(np.gcd(rate, wanted))
    if (rate // common) * (wanted // common) > _MAX_KERNEL:
        raise DataError(
            f"Cannot bring `{name}` from {rate} to {wanted} samples a second: the two have no factor in common above"
            f" {common}. Write it anew with a usual rate, such as {wanted}."
        )
    import torch

    found = _torchaudio().functional.resample(torch.from_numpy(np.ascontiguousarray(wave)), rate, wanted)
    return np.asarray(found.numpy(), dtype=np.float32)


def _decode(sound: Any, segment: AudioSegment, file: AudioFile) -> Iterator[Waveform]:  # noqa: ANN401 - SoundFile
    """Yield blocks of one channel; short reads and values that are none are errors."""
    length = round(segment_seconds(segment, file) * file.rate)
    start = round(segment.start * file.rate)
    length = max(1, min(length, file.num_samples - start))
    skipped = _go_to(sound, start, file)
    left = skipped + length
    while left:
        block = sound.read(min(_BLOCK, left), dtype="float32", always_2d=True)
        if not len(block):
            raise DataError(
                f"Cannot read `{segment.path}`: the file is cut off; its header promises {file.seconds:.3f} s, and"
                f" {sound.tell() / file.rate:.3f} s are there."
            )
        left -= len(block)
        block, skipped = block[skipped:], max(0, skipped - len(block))
        if len(block):
            mono = block.mean(axis=1) if segment.channel == "mix" else block[:, segment.channel]
            if not np.isfinite(mono).all():
                raise DataError(f"Cannot use `{segment.path}`: it holds NaN or infinite values. Write it anew.")
            yield np.ascontiguousarray(mono, dtype=np.float32)


def _go_to(sound: Any, start: int, file: AudioFile) -> int:  # noqa: ANN401 - as above
    """Move to a sample, or near it; return how many samples must be decoded and dropped from there."""
    if start == 0:
        return 0
    if not sound.seekable():  # GSM
        return start
    place = max(0, start - round(_MP3_RUN_UP * file.rate)) if file.container == "MP3" else start
    sound.seek(place)
    return start - place


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, AudioFile]]:
    """Open a file for reading, and turn what a broken one raises into our error."""
    library = _soundfile()
    file = Path(path)
    try:
        if file.stat().st_size == 0:
            raise DataError(f"Cannot read `{file}`: the file is empty.")
        with library.SoundFile(file) as sound:
            length = sound.frames
            if sound.format == "MP3" and not _states_length(file):
                length = _count(file, file.stat().st_mtime_ns)
            _check_header(sound, file, length)
            yield sound, AudioFile(length, sound.samplerate, sound.channels, sound.subtype, sound.format)
    except FileNotFoundError as error:
        raise DataError(f"Cannot read `{file}`: there is no such file.") from error
    except library.LibsndfileError as error:
        raise DataError(
            f"Cannot read `{file}`: {_reason(error)}. It is no audio file that libsndfile knows, or it is broken."
        ) from error
    except OSError as error:
        raise DataError(f"Cannot read `{file}`: {error.strerror or error}.") from error


def _check_header(sound: Any, file: Path, length: int) -> None:  # noqa: ANN401 - as above
    """Refuse a file that is cut off, has no sound, or a rate that no recording has."""
    # libsndfile reads what is there of a WAV, AIFF or W64 that is cut off, and says so in its log alone.
    cut = re.search(r"^ ?(?:data|SSND|riff) : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if cut is not None and int(cut[2]) < int(cut[1]) < _STREAMED:
        raise DataError(
            f"Cannot read `{file}`: the file is cut off; its header promises {cut[1]} bytes of sound, and {cut[2]} are"
            " there. Copy it anew."
        )
    if length <= 0:
        raise DataError(f"Cannot read `{file}`: it holds no sound (0 samples).")
    if not _RATES[0] <= sound.samplerate <= _RATES[1]:
        raise DataError(
            f"Cannot read `{file}`: {sound.samplerate} samples a second is no usual rate ({_RATES[0]} to {_RATES[1]})."
            " Its header is broken."
        )


def _states_length(file: Path) -> bool:
    """Whether an MP3 says in its first frame how long it is; without that the library guesses by the first bit rate."""
    with file.open("rb") as stream:
        tag = stream.read(10)
        start = 0
        if tag[:3] == b"ID3" and len(tag) == 10:  # its size has seven bits a byte
            start = 10 + sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        stream.seek(start)
        first = stream.read(512)
    return any(name in first for name in (b"Xing", b"Info", b"VBRI"))


@lru_cache(maxsize=256)
def _count(file: Path, changed: int) -> int:
    """Return the number of samples of a file, by decoding it; ``changed`` makes a new file a new question."""
    with _soundfile().SoundFile(file) as sound:
        return sum(iter(lambda: len(sound.read(_BLOCK, dtype="float32", always_2d=True)), 0))


@lru_cache(maxsize=1)
def _soundfile() -> Any:  # noqa: ANN401 - a module without types
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, its library is not
        raise DataError(
            f"Audio files are read by the package `soundfile`, which cannot be loaded"
            f" ({_first_line(error)}). Run"
            " `pip install lightning-transfer[speech]`; where its wheel has no library, install libsndfile."
        ) from error
    return soundfile


@lru_cache(maxsize=1)
def _torchaudio() -> Any:  # noqa: ANN401 - as above
    try:
        import torchaudio
    except (ImportError, OSError) as error:
        import torch

        raise DataError(
            f"Another sampling rate needs `torchaudio`, which cannot be loaded ({_first_line(error)}). It must be of"
            f" the same version and CUDA build as torch, which is {torch.__version__}: run `pip install"
            f" torchaudio=={torch.__version__.split('+')[0]}` from the index that torch came from."
        ) from error
    return torchaudio


def _reason(error: Any) -> str:  # noqa: ANN401 - LibsndfileError
    # Several threads at once may leave it without its text.
    return str(error.error_string).strip(" .") if error.code else "it cannot be decoded"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
