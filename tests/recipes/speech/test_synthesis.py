"""The synthesiser: what it refuses, and that rate, pitch and volume are those of the sound."""

import ast
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_transfer
from lightning_transfer.errors import DataError
from recipes.speech import synthesis
from recipes.speech.synthesis import SAMPLE_RATE, Voice, list_variants, list_voices, synthesise

TEXT = "hello there my friend"


@pytest.fixture
def engine() -> None:
    pytest.importorskip("espeakng_loader", reason="the synthesiser's wheel is missing: pip install espeakng-loader")


def pitch(wave: np.ndarray) -> float:
    """Return the frequency of the highest peak of the autocorrelation between 60 and 400 Hz."""
    spectrum = np.fft.rfft(wave, 2 * len(wave))
    found = np.fft.irfft(np.abs(spectrum) ** 2)
    low, high = SAMPLE_RATE // 400, SAMPLE_RATE // 60
    return SAMPLE_RATE / (low + int(np.argmax(found[low:high])))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ["en-us", "en-us+f3", "en-gb-scotland+m2"])
def test_the_same_words_sound_the_same_whatever_was_said_before(name: str) -> None:
    first = synthesise(TEXT, Voice(name))
    synthesise("one two three", Voice("en-gb-x-rp+f2", rate=250, pitch=80))
    # The library itself begins its noise with the second of the day.
    time.sleep(1.1)
    np.testing.assert_array_equal(first, synthesise(TEXT, Voice(name)))
    assert first.dtype == np.float32
    assert first.ndim == 1
    assert 0.05 < np.abs(first).max() <= 1


@pytest.mark.usefixtures("engine")
def test_accents_and_variants_differ() -> None:
    names = ["en-us", "en-us+m1", "en-us+f1", "en-gb-scotland", "en-gb-x-rp", "en-029"]
    waves = [synthesise(TEXT, Voice(name)) for name in names]
    for index, wave in enumerate(waves):
        for other in waves[:index]:
            assert len(wave) != len(other) or np.abs(wave - other).max() > 0.1


@pytest.mark.usefixtures("engine")
def test_rate_pitch_and_volume_are_heard() -> None:
    text = "mama may know more than anyone"
    slow, fast = (synthesise(text, Voice("en-us", rate=rate)) for rate in (110, 220))
    assert 1.6 < len(slow) / len(fast) < 2.4
    low, high = (pitch(synthesise(text, Voice("en-us", pitch=value, pitch_range=0))) for value in (20, 80))
    assert 60 < low < 0.8 * high
    quiet, loud = (np.square(synthesise(text, Voice("en-us", volume=value))).mean() for value in (20, 80))
    assert loud > 4 * quiet


@pytest.mark.usefixtures("engine")
def test_the_sampling_rate_is_what_is_asked_for() -> None:
    """The synthesiser's own rate, brought down by another resampler, is the same sound."""
    from scipy.signal import resample_poly

    own, asked = synthesise(TEXT, Voice(), 22_050), synthesise(TEXT, Voice())
    assert len(asked) == -(-len(own) * 16_000 // 22_050)
    oracle = resample_poly(own, 320, 441)[: len(asked)]
    assert np.corrcoef(oracle, asked)[0, 1] > 0.99


@pytest.mark.usefixtures("engine")
def test_voices_that_do_not_exist_are_refused_with_those_that_do() -> None:
    before = synthesise(TEXT, Voice("en-us+f1"))
    with pytest.raises(DataError, match=r"no voice `en-scotland`.*Near: en-gb-scotland.*en-us"):
        synthesise(TEXT, Voice("en-scotland"))
    # The library lists this one, and keeps the last voice when it is asked for.
    with pytest.raises(DataError, match=r"`en-gb`.*code 2.*en-gb-x-rp"):
        synthesise(TEXT, Voice("en-gb"))
    # The library says that all is well.
    with pytest.raises(DataError, match=r"no variant `f99` \(of `en-us\+f99`\).*more"):
        synthesise(TEXT, Voice("en-us+f99"))
    np.testing.assert_array_equal(before, synthesise(TEXT, Voice("en-us+f1")))


@pytest.mark.usefixtures("engine")
def test_what_exists_is_listed() -> None:
    assert {"en-us", "en-gb-scotland", "en-gb-x-rp", "en-029"} < set(list_voices("en"))
    assert all(name.startswith("en") for name in list_voices("en"))
    assert len(list_voices()) > 100
    assert {f"m{number}" for number in range(1, 8)} | {"f1", "f2", "f3", "f4"} < set(list_variants())


@pytest.mark.usefixtures("engine")
def test_a_text_without_words_is_refused() -> None:
    with pytest.raises(DataError, match=r"says nothing for the text ' \.'"):
        synthesise(" .", Voice())


@pytest.mark.parametrize(("field", "value"), [("rate", 20), ("pitch", 100), ("pitch_range", -1), ("volume", 0)])
def test_values_that_the_library_would_bend_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"`{field}` of a voice in .*, got {value}"):
        Voice(**{field: value})


def test_without_the_wheel_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    synthesis._engine.cache_clear()
    with pytest.raises(DataError, match=r"pip install lightning-transfer\[offline\]"):
        synthesise(TEXT, Voice())


def test_the_package_never_imports_the_synthesiser() -> None:
    """Its licence is GPL-3, the package's Apache-2.0."""
    for path in Path(lightning_transfer.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any("espeak" in name or name.startswith("recipes") for name in names), path


@pytest.mark.usefixtures("engine")
def test_threads_take_turns() -> None:
    from concurrent.futures import ThreadPoolExecutor

    voices = [Voice("en-us+m1"), Voice("en-gb-scotland+f2", rate=220)] * 4
    alone = [synthesise(TEXT, voice) for voice in voices]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda voice: synthesise(TEXT, voice), voices))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(torch.from_numpy(one), torch.from_numpy(other))
