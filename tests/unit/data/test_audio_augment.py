"""Changes are those that they are called, and the generator alone decides."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.data.audio_augment import AudioAugmentation, move_resonances, mu_law, telephone
from lightning_transfer.errors import DataError
from tests.data.speech.make import noise, write

torchaudio = pytest.importorskip("torchaudio")

RATE = 16_000
WAVE = torch.from_numpy(noise(1.0))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _level(wave: torch.Tensor) -> float:
    return float(wave.square().mean().sqrt())


def test_nothing_by_default() -> None:
    change = AudioAugmentation()
    assert not change
    assert torch.equal(change(WAVE, RATE, _generator(0)), WAVE)
    assert change.stretch == 1


def test_speed_changes_length_and_pitch() -> None:
    tone = torch.sin(2 * torch.pi * 500 * torch.arange(RATE) / RATE)
    for factor in (0.9, 1.1, 0.97):
        found = AudioAugmentation(speed=[factor])(tone, RATE, _generator(0))
        assert len(found) == pytest.approx(RATE / factor, abs=2)
        peak = torch.fft.rfft(found).abs().argmax() * RATE / len(found)
        assert float(peak) == pytest.approx(500 * factor, rel=0.01)
        expected = torchaudio.functional.resample(tone, round(RATE * factor), RATE).clamp(-1, 1)
        assert torch.equal(found, expected)
    assert AudioAugmentation(speed=[0.9, 1.1]).stretch == pytest.approx(1 / 0.9)
    lengths = {len(AudioAugmentation(speed=[0.9, 1.0, 1.1])(tone, RATE, _generator(seed))) for seed in range(20)}
    assert len(lengths) == 3


def test_another_voice_moves_a_tone_and_the_length_by_the_same_factor() -> None:
    tone = torch.sin(2 * torch.pi * 500 * torch.arange(RATE) / RATE)
    change = AudioAugmentation(voice=0.3)
    found = []
    for seed in range(30):
        changed = change(tone, RATE, _generator(seed))
        crossings = int((changed[1:] * changed[:-1] < 0).sum())
        assert crossings == pytest.approx(1000, abs=3)  # nothing is cut off or repeated
        found.append(RATE / len(changed))
        assert len(changed) / RATE <= change.stretch
    assert 0.7 < min(found) < 0.85
    assert 1.15 < max(found) < 1.45
    # Uneven: in one recording the tone is not the same everywhere.
    parts = changed.split(len(changed) // 4)[:4]
    rates = [int((part[1:] * part[:-1] < 0).sum()) for part in parts]
    assert max(rates) - min(rates) > 3


def test_resonances_move_and_the_pitch_stays() -> None:
    """A buzz of 100 Hz through one resonance at 1,000 Hz: harmonics stay where they are, the loudest is another."""
    buzz = torch.zeros(RATE)
    buzz[:: RATE // 100] = 1.0
    places = torch.fft.rfftfreq(RATE, 1 / RATE)
    wave = torch.fft.irfft(torch.fft.rfft(buzz) / (1 + ((places - 1000) / 200) ** 2))
    wave = 0.3 * wave / wave.abs().max()
    # The envelope is smooth, so a sharp peak moves by less than the factor.
    for factor, lowest, highest in ((0.8, 1100, 1250), (1.25, 800, 900)):
        found = move_resonances(wave, torch.full((6,), factor))
        assert len(found) == len(wave)
        assert _level(found) == pytest.approx(_level(wave), rel=1e-4)
        spectrum = torch.fft.rfft(found).abs()
        harmonics = spectrum[::100]
        assert float(harmonics.square().sum() / spectrum.square().sum()) > 0.98
        assert lowest <= int(harmonics.argmax() * 100) <= highest
    assert torch.equal(move_resonances(wave[:300], torch.full((6,), 0.8)), wave[:300])
    silence = torch.zeros(2000)
    assert torch.equal(move_resonances(silence, torch.ones(2)), silence)
    changed = [
        not torch.equal(AudioAugmentation(resonances=0.15)(wave, RATE, _generator(seed)), wave) for seed in range(40)
    ]
    assert 10 < sum(changed) < 30


def test_an_equaliser_changes_bands_and_keeps_the_loudness() -> None:
    spread = []
    for seed in range(20):
        found = AudioAugmentation(equaliser=5.0)(0.2 * WAVE, RATE, _generator(seed))
        assert len(found) == len(WAVE)
        assert _level(found) == pytest.approx(_level(0.2 * WAVE), rel=0.01)
        before, after = (torch.fft.rfft(wave).abs().square() for wave in (WAVE, found))
        bands = [
            10 * np.log10(float(after[i : i + 400].sum() / before[i : i + 400].sum())) for i in range(0, 8000, 400)
        ]
        spread.append(np.std(bands))
    assert 1.5 < np.mean(spread) < 6
    silence = torch.zeros(500)
    assert torch.equal(AudioAugmentation(equaliser=5.0)(silence, RATE, _generator(0)), silence)


@pytest.mark.parametrize("snr", [0.0, 10.0, 25.0])
@pytest.mark.parametrize("folder", [False, True])
def test_noise_has_the_ratio_that_is_asked_for(tmp_path: Path, snr: float, folder: bool) -> None:
    if folder:
        write(tmp_path / "short.wav", noise(0.3, seed=5, rate=8000), 8000)
        write(tmp_path / "long.flac", noise(3.0, seed=6))
    change = AudioAugmentation(
        noise_snr=(snr, snr), noise_probability=1.0, noise_folder=str(tmp_path) if folder else None
    )
    quiet = 0.3 * WAVE
    seen = set()
    for seed in range(6):
        added = change(quiet, RATE, _generator(seed)) - quiet
        assert 20 * np.log10(_level(quiet) / _level(added)) == pytest.approx(snr, abs=0.1)
        spectrum = torch.fft.rfft(added).abs().square()
        seen.add(round(float(spectrum[:800].sum() / spectrum.sum()), 1))
    assert len(seen) > 1  # not always the same kind
    assert torch.equal(change(torch.zeros(500), RATE, _generator(0)), torch.zeros(500))


def test_some_recordings_stay_without_noise() -> None:
    change = AudioAugmentation(noise_snr=(5.0, 10.0), noise_probability=0.5)
    same = [torch.equal(change(WAVE, RATE, _generator(seed)), WAVE) for seed in range(40)]
    assert 10 < sum(same) < 30


def test_gain_is_in_decibel_and_stays_within_full_scale() -> None:
    found = AudioAugmentation(gain=(-6.0, -6.0))(WAVE, RATE, _generator(0))
    assert _level(found) / _level(WAVE) == pytest.approx(10 ** (-6 / 20), rel=1e-5)
    assert AudioAugmentation(gain=(60.0, 60.0))(WAVE, RATE, _generator(0)).abs().max() == 1


def test_mu_law_is_that_of_torchaudio() -> None:
    wave = torch.linspace(-1, 1, 1001)
    codes = torchaudio.functional.mu_law_encoding(wave, 256)
    expected = torchaudio.functional.mu_law_decoding(codes, 256)
    assert torch.allclose(mu_law(wave), expected, atol=1e-6)
    assert len(mu_law(torch.linspace(-1, 1, 5000)).unique()) <= 256


def test_a_telephone_carries_nothing_above_four_kilohertz() -> None:
    white = torch.randn(RATE, generator=_generator(1)).clamp(-3, 3) / 6
    found = telephone(white, RATE)
    assert len(found) == RATE
    spectrum = torch.fft.rfft(found).abs().square()
    assert float(spectrum[4500:].sum() / spectrum.sum()) < 1e-3
    narrow = torchaudio.functional.resample(torchaudio.functional.resample(white, RATE, 8000), 8000, RATE)
    assert 0 < _level(found - narrow) < 0.1 * _level(narrow)
    assert torch.equal(telephone(white, 8000), mu_law(white))
    share = [
        bool(torch.equal(AudioAugmentation(telephone_probability=0.5)(WAVE, RATE, _generator(seed)), WAVE))
        for seed in range(40)
    ]
    assert 10 < sum(share) < 30


def test_the_generator_decides_alone_and_workers_receive_it() -> None:
    change = AudioAugmentation([0.9, 1.0, 1.1], (5.0, 20.0), 0.8, None, (-3.0, 3.0), 0.5, 0.3, 0.15, 4.0)
    torch.manual_seed(0)
    first = [change(WAVE, RATE, _generator(seed)) for seed in range(5)]
    torch.manual_seed(1)
    sent = pickle.loads(pickle.dumps(change))  # noqa: S301
    assert all(torch.equal(sent(WAVE, RATE, _generator(seed)), first[seed]) for seed in range(5))
    assert len({tuple(wave[:50].tolist()) for wave in first}) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": [0.9, 3.0]}, r"`speed` from 0.5 to 2 .*got \[0.9, 3.0\]"),
        ({"speed": [0.955]}, r"got \[0.955\]"),
        ({"noise_probability": 1.5}, "`noise_probability` from 0 to 1, got 1.5"),
        ({"telephone_probability": -0.1}, "got -0.1"),
        ({"noise_snr": (20.0, 5.0)}, r"`noise_snr` as lowest and highest dB, got \[20.0, 5.0\]"),
        ({"gain": (1.0,)}, r"`gain` .*got \[1.0\]"),
        ({"voice": 0.9}, "`voice` from 0 to 0.5, got 0.9"),
        ({"resonances": 0.6}, "`resonances` from 0 to 0.5, got 0.6"),
        ({"equaliser": -1.0}, "`equaliser` from 0 to 20 dB, got -1.0"),
    ],
)
def test_impossible_numbers(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioAugmentation(**options)


def test_a_folder_without_noise(tmp_path: Path) -> None:
    change = AudioAugmentation(noise_snr=(0.0, 0.0), noise_probability=1.0, noise_folder=str(tmp_path))
    with pytest.raises(DataError, match="holds no file that ends in"):
        change(WAVE, RATE, _generator(0))
