from __future__ import annotations

import numpy as np
import pytest

from lightning_transfer.data.formula_marks import MARKS

SIZE = 64


def _drawn(name: str, turns: int = 40, size: int = SIZE) -> np.ndarray:
    return np.stack([MARKS[name](np.random.default_rng((3, turn)), size) for turn in range(turns)])


@pytest.mark.parametrize("name", MARKS)
def test_every_mark_is_finite_and_depends_on_its_seed_alone(name: str) -> None:
    drawn = _drawn(name)
    assert drawn.shape == (40, SIZE, SIZE)
    assert np.isfinite(drawn).all()
    np.testing.assert_array_equal(drawn, _drawn(name))


@pytest.mark.parametrize("size", [16, 33, 128])
@pytest.mark.parametrize("name", MARKS)
def test_every_mark_fits_other_sizes(name: str, size: int) -> None:
    drawn = _drawn(name, turns=5, size=size)
    assert drawn.shape == (5, size, size)
    assert np.isfinite(drawn).all()


def test_only_plain_adds_nothing() -> None:
    heights = {name: np.abs(_drawn(name)).max(axis=(1, 2)) for name in MARKS}
    assert heights.pop("plain").max() == 0
    assert all(height.min() > 0.3 for height in heights.values())


def _share(name: str) -> float:
    """Return the mean share of pixels above half the mark's height."""
    drawn = np.abs(_drawn(name))
    return float((drawn > 0.5 * drawn.max(axis=(1, 2), keepdims=True)).mean())


def test_marks_go_from_a_line_of_pixels_to_a_large_region() -> None:
    # A crack is some dozens of pixels long and about two wide; a shade has a radius of a quarter of the image.
    assert 0.005 < _share("crack") < 0.05
    assert _share("pits") < 0.06
    assert _share("patch") < _share("shade")
    assert 0.1 < _share("shade") < 0.5


def test_a_chip_touches_exactly_its_border() -> None:
    drawn = np.abs(_drawn("chip"))
    middle = drawn[:, 24:40, 24:40].mean(axis=(1, 2))
    border = np.stack([drawn[:, 0], drawn[:, -1], drawn[:, :, 0], drawn[:, :, -1]]).mean(axis=2).max(axis=0)
    assert (border > middle).mean() > 0.9


def test_a_shade_has_no_edge_and_a_crack_has() -> None:
    def steepest(name: str) -> float:
        drawn = _drawn(name)
        slope = np.abs(np.diff(drawn, axis=2)).max(axis=(1, 2)) / np.abs(drawn).max(axis=(1, 2))
        return float(np.median(slope))

    assert steepest("shade") < 0.1
    assert steepest("crack") > 0.3


def test_cracks_and_pits_are_mostly_dark() -> None:
    for name, low in (("crack", 0.6), ("pits", 0.5)):
        drawn = _drawn(name, turns=200)
        peak = drawn.reshape(len(drawn), -1)[np.arange(len(drawn)), np.abs(drawn).reshape(len(drawn), -1).argmax(1)]
        assert low < (peak < 0).mean() < 0.95
