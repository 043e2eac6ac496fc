from __future__ import annotations

import numpy as np
import pytest

from lightning_transfer.data.formula_textures import TEXTURES, filtered, frequencies, grid

SIZE = 64


def _drawn(name: str, turns: int = 8, size: int = SIZE) -> np.ndarray:
    return np.stack([TEXTURES[name](np.random.default_rng((3, turn)), size) for turn in range(turns)])


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("name", TEXTURES)
def test_every_texture_is_finite_varies_and_depends_on_its_seed_alone(name: str, size: int) -> None:
    drawn = _drawn(name, size=size)
    assert drawn.shape == (8, size, size)
    assert np.isfinite(drawn).all()
    assert drawn.std(axis=(1, 2)).min() > 0
    np.testing.assert_array_equal(drawn, _drawn(name, size=size))
    assert len({image.tobytes() for image in drawn}) == len(drawn)


def _mean_frequency(name: str) -> float:
    """Return the mean distance from zero frequency, in cycles per image, weighed by power."""
    drawn = _drawn(name, turns=16)
    power = (np.abs(np.fft.fft2(drawn - drawn.mean(axis=(1, 2), keepdims=True))) ** 2).mean(axis=0)
    axis = np.fft.fftfreq(SIZE, 1 / SIZE)
    return float((power * np.hypot(*np.meshgrid(axis, axis))).sum() / power.sum())


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [
        ("coarse grating", "fine grating"),
        ("coarse checker", "fine checker"),
        ("coarse blobs", "fine blobs"),
        ("cloud noise", "pink noise"),
        ("pink noise", "flat noise"),
    ],
)
def test_the_names_say_which_is_finer(coarse: str, fine: str) -> None:
    assert _mean_frequency(coarse) < 0.8 * _mean_frequency(fine)


def test_the_spectrum_of_filtered_noise_is_what_was_asked_for() -> None:
    radius = frequencies(SIZE)[2]
    images = np.stack([filtered(np.random.default_rng(turn), SIZE, radius**-1.0) for turn in range(200)])
    power = (np.abs(np.fft.rfft2(images)) ** 2).mean(axis=0)
    # Power is the square of the amplitude: from 4 to 16 cycles it falls by a factor of 16.
    assert power[0, 4] / power[0, 16] == pytest.approx(16, rel=0.4)
    assert images.mean(axis=(1, 2)) == pytest.approx(0, abs=1e-5)


def test_the_grid_holds_pixel_centres() -> None:
    x, y = grid(4)
    assert x[0].tolist() == y[:, 0].tolist() == [-0.375, -0.125, 0.125, 0.375]
