"""Every format reads as soundfile reads it, in parts too; what is broken says so."""

import builtins
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from lightning_transfer.data import audio_files
from lightning_transfer.data.audio_files import audio_file, blocks, read_audio, resample, segment_seconds
from lightning_transfer.errors import DataError
from lightning_transfer.speech import AudioSegment
from tests.data.speech.make import FORMATS, noise, write, write_formats

soundfile = pytest.importorskip("soundfile")
torchaudio = pytest.importorskip("torchaudio")


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    return noise(4.0, rate=8000)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, wave: np.ndarray) -> dict[str, Path]:
    return write_formats(tmp_path_factory.mktemp("formats"), wave, 8000)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_whole_and_in_part(files: dict[str, Path], name: str, wave: np.ndarray) -> None:
    whole, rate = soundfile.read(files[name], dtype="float32")
    found = read_audio(AudioSegment(str(files[name])), rate)
    assert found.dtype == np.float32
    assert np.abs(found - whole).max() <= (1e-7 if name == "layer3.mp3" else 0)  # its decoder's rounding is not its own
    if name != "opus.ogg":  # another rate inside
        assert np.abs(found[: len(wave)] - wave).max() <= FORMATS[name][1]
    for start, seconds in ((0.0, 0.5), (1.25, 1.0), (2.9, 0.3)):
        part = read_audio(AudioSegment(str(files[name]), start, seconds), rate)
        first = round(start * rate)
        assert len(part) == round(seconds * rate)
        assert np.abs(part - whole[first : first + len(part)]).max() < 1e-6


@pytest.mark.parametrize("name", ["pcm16.wav", "float.wav", "eight.wav"])
def test_scipy_reads_the_same(files: dict[str, Path], name: str) -> None:
    rate, values = wavfile.read(files[name])
    scaled = {"uint8": lambda v: (v - 128.0) / 128, "int16": lambda v: v / 32768.0, "float32": lambda v: v}
    expected = scaled[str(values.dtype)](values.astype(np.float64))
    assert np.allclose(read_audio(AudioSegment(str(files[name])), rate), expected, atol=1e-7)


def test_mu_law_is_that_of_the_standard(files: dict[str, Path]) -> None:
    codes = np.frombuffer(files["mulaw.wav"].read_bytes()[-32000:], dtype=np.uint8)
    codes = ~codes
    sign, exponent, mantissa = codes & 128, (codes >> 4) & 7, codes & 15
    size = ((mantissa.astype(int) << 3) + 132 << exponent) - 132  # ITU-T G.711
    expected = np.where(sign, -size, size) / 32768.0
    assert np.allclose(read_audio(AudioSegment(str(files["mulaw.wav"])), 8000), expected, atol=1e-7)


def test_the_header_tells_without_decoding(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    found = audio_file(files["plain.flac"])
    assert (found.seconds, found.rate, found.channels) == (4.0, 8000, 1)
    assert (found.encoding, found.container) == ("PCM_16", "FLAC")
    assert audio_file(files["layer3.mp3"]).seconds == 4.0


def test_parts_of_an_mp3_are_exact_where_bits_are_borrowed(tmp_path: Path) -> None:
    """Silence and noise in turns: right after a jump the decoder gives other samples."""
    wave = np.concatenate([noise(0.5, seed=k) if k % 2 else np.zeros(8000, dtype=np.float32) for k in range(60)])
    path = write(tmp_path / "a.mp3", wave, 16_000, bitrate_mode="VARIABLE", compression_level=0.5)
    whole, _ = soundfile.read(path, dtype="float32")
    for start in np.linspace(0.3, 29.0, 23):
        part = read_audio(AudioSegment(str(path), float(start), 0.2), 16_000)
        first = round(float(start) * 16_000)
        assert np.abs(part - whole[first : first + len(part)]).max() < 1e-4, start


def test_an_mp3_without_length_in_its_header_is_counted(tmp_path: Path) -> None:
    wave = np.concatenate([np.zeros(80_000, dtype=np.float32), noise(5)])
    path = write(tmp_path / "a.mp3", wave, 16_000, bitrate_mode="VARIABLE", compression_level=0.5)
    content = path.read_bytes()
    start = content.index(b"\xff\xf3", content.index(b"Xing"))
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(content[start:])
    assert abs(soundfile.info(bare).duration - 10) > 1  # what the header lets one guess
    assert abs(audio_file(bare).seconds - 10) < 0.2
    tagged = tmp_path / "tagged.mp3"
    tagged.write_bytes(b"ID3\x04\0\0" + bytes([0, 0, 8, 0]) + bytes(1024) + content)
    assert audio_file(tagged).seconds == 10


def test_channels_are_chosen_or_mixed(tmp_path: Path) -> None:
    both = noise(1.0, channels=2)
    path = write(tmp_path / "stereo.wav", both, subtype="FLOAT")
    left, right, mixed = (read_audio(AudioSegment(str(path), channel=c), 16_000) for c in (0, 1, "mix"))
    assert np.array_equal(left, both[:, 0])
    assert np.array_equal(right, both[:, 1])
    assert np.allclose(mixed, both.mean(axis=1), atol=1e-7)
    with pytest.raises(DataError, match="has 2 channels, counted from 0, and channel 2 is asked for"):
        read_audio(AudioSegment(str(path), channel=2), 16_000)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_other_rates_are_those_of_torchaudio(tmp_path: Path, rate: int) -> None:
    import torch

    wave = noise(0.5, rate=rate)
    path = write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    found = read_audio(AudioSegment(str(path)), 16_000)
    expected = torchaudio.functional.resample(torch.from_numpy(wave), rate, 16_000).numpy()
    assert np.array_equal(found, expected)
    assert abs(len(found) - 8000) <= 1


def test_rates_without_a_common_factor_are_refused() -> None:
    with pytest.raises(DataError, match="from 44101 to 16000 samples a second: the two have no factor in common"):
        resample(np.zeros(100, dtype=np.float32), 44_101, 16_000, "a.wav")


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Ten minutes are 38 MB as float32; a block is 1 MB, and a second of the middle even less."""
    path = write(tmp_path / "long.wav", np.tile(noise(10.0), 60))
    tracemalloc.start()
    assert sum(len(block) for block in blocks(AudioSegment(str(path)))) == 600 * 16_000
    all_of_it = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    read_audio(AudioSegment(str(path), 300.0, 1.0), 16_000)
    one_second = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all_of_it < 6e6
    assert one_second < 2e6


def _cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    cut = path.with_name(f"cut-{path.name}")
    cut.write_bytes(content[: int(len(content) * share)])
    return cut


@pytest.mark.parametrize("name", ["pcm16.wav", "mulaw.wav", "plain.aiff", "plain.w64", "plain.flac", "layer3.mp3"])
def test_what_is_cut_off_is_found(files: dict[str, Path], name: str) -> None:
    with pytest.raises(DataError, match=r"Cannot read `.*cut-.*`: .*(cut off|lost sync|decoded)"):
        list(blocks(AudioSegment(str(_cut(files[name], 0.6)))))


def test_a_wav_from_a_pipe_is_not_cut_off(files: dict[str, Path], tmp_path: Path) -> None:
    """ffmpeg cannot go back to write the length, and writes the highest number."""
    content = bytearray(files["pcm16.wav"].read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path = tmp_path / "piped.wav"
    path.write_bytes(bytes(content))
    assert audio_file(path).seconds == 4.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"This is no sound at all, whatever its name says.", "Format not recognised"),
    ],
)
def test_what_is_no_audio_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        audio_file(path)


def test_other_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.wav`: there is no such file"):
        audio_file(tmp_path / "none.wav")
    with pytest.raises(DataError, match="it holds no sound"):
        audio_file(write(tmp_path / "zero.wav", np.zeros(0, dtype=np.float32)))
    wave = noise(0.2)
    wave[100] = np.nan
    with pytest.raises(DataError, match=r"nan\.wav`: it holds NaN or infinite values"):
        read_audio(AudioSegment(str(write(tmp_path / "nan.wav", wave, subtype="FLOAT"))), 16_000)
    wave[100] = np.inf
    with pytest.raises(DataError, match="it holds NaN or infinite values"):
        read_audio(AudioSegment(str(write(tmp_path / "inf.wav", wave, subtype="FLOAT"))), 16_000)
    with pytest.raises(DataError, match="1 samples a second is no usual rate"):
        audio_file(write(tmp_path / "slow.wav", noise(0.2), 1))
    with pytest.raises(DataError, match="Cannot read"):
        audio_file(tmp_path)


@pytest.mark.parametrize(
    ("start", "duration", "message"),
    [
        (4.0, None, r"from 4 s on: the file is 4\.000 s long"),
        (-1.0, None, "from -1 s on"),
        (3.0, 2.0, r"from 3 to 5 s: the file is 4\.000 s long"),
        (1.0, 0.0, "Cannot read 0 s of"),
    ],
)
def test_a_piece_outside_its_file(files: dict[str, Path], start: float, duration: float | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_audio(AudioSegment(str(files["pcm16.wav"]), start, duration), 8000)


def test_a_piece_may_pass_the_end_by_what_rounding_does(files: dict[str, Path]) -> None:
    segment = AudioSegment(str(files["pcm16.wav"]), 3.0, 1.04)
    assert segment_seconds(segment, audio_file(segment.path)) == 1.0
    assert len(read_audio(segment, 8000)) == 8000


@pytest.mark.parametrize(
    ("package", "call", "message"),
    [
        ("soundfile", lambda: audio_file("a.wav"), r"`soundfile`, which cannot be loaded \(libsndfile.so: no.*speech"),
        (
            "torchaudio",
            lambda: resample(np.zeros(9, dtype=np.float32), 8000, 16_000),
            r"`torchaudio`, which cannot be loaded \(libsndfile.so: no.*pip install torchaudio==2",
        ),
    ],
)
def test_a_missing_or_broken_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, package, call, message) -> None:
    real = builtins.__import__

    def broken(name: str, *args, **options):
        if name == package:
            raise OSError("libsndfile.so: no such thing\nand more lines")
        return real(name, *args, **options)

    audio_files._soundfile.cache_clear()
    audio_files._torchaudio.cache_clear()
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(DataError, match=message):
        call()
