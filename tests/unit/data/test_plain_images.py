from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data import plain_image_features
from lightning_transfer.errors import DataError

THUMBNAIL, MEANS, DEVIATIONS = slice(0, 256), slice(256, 259), slice(259, 262)
HISTOGRAMS, PERCENTILES, CELLS, STEPS = slice(262, 286), slice(286, 295), slice(295, 423), slice(423, 428)


def _one(pixels: np.ndarray) -> np.ndarray:
    [row] = plain_image_features([pixels])
    assert row.shape == (431,)
    assert row.dtype == np.float32
    return row


def test_brightness_and_colour_are_counted() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    found, unit = _one(pixels), pixels / 255.0
    assert found[MEANS] == pytest.approx(unit.mean(axis=(0, 1)), abs=1e-5)
    assert found[DEVIATIONS] == pytest.approx(unit.std(axis=(0, 1)), abs=1e-5)
    counts = [np.histogram(unit[..., place], bins=8, range=(0, 1))[0] / 1500 for place in range(3)]
    assert found[HISTOGRAMS] == pytest.approx(np.concatenate(counts), abs=2e-3)
    grey = unit @ [0.299, 0.587, 0.114]
    assert found[PERCENTILES] == pytest.approx(np.percentile(grey, [0, 1, 5, 25, 50, 75, 95, 99, 100]), abs=1e-5)


def test_the_thumbnail_is_the_mean_of_each_block() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32), dtype=np.uint8)
    blocks = (pixels / 255.0).reshape(16, 4, 16, 2).mean(axis=(1, 3))
    assert _one(pixels)[THUMBNAIL].reshape(16, 16) == pytest.approx(blocks, abs=1e-5)


def test_edges_fall_into_their_cell_and_orientation() -> None:
    pixels = np.zeros((128, 128), dtype=np.uint8)
    pixels[40:60, 10:20] = 255  # cells (1, 0): upright and lying edges
    cells = _one(pixels)[CELLS].reshape(4, 4, 8)
    assert cells[1, 0].sum() > 0
    assert cells[[0, 2, 3]].sum() == 0
    assert cells[1, 1:].sum() == 0
    # Upright edges point sideways (orientation 0), lying ones up (4). Outside of the box they are 20 and 10 pixels
    # long, inside of it two shorter, as its corners point askew; each has a step of one half.
    expected = [2 * (20 + 18) * 0.5, 2 * (10 + 8) * 0.5]
    assert 128 * 128 * cells[1, 0, [0, 4]] ** 2 == pytest.approx(expected, rel=1e-4)


def test_a_flat_picture_has_no_edges_and_an_edge_has_its_step() -> None:
    assert _one(np.full((20, 20), 77, dtype=np.uint8))[CELLS.start :].sum() == 0
    half = np.zeros((128, 128), dtype=np.uint8)
    half[:, 64:] = 56  # 0.22: the gradient over two pixels is 0.11
    # Two columns of 128 lie at the edge.
    assert _one(half)[STEPS] == pytest.approx([2 / 128, 2 / 128, 2 / 128, 0, 0], abs=1e-6)


def test_depth_alpha_and_grey_colour_are_the_same_picture(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)
    expected = _one(grey)
    alpha = np.dstack([grey, grey, grey, np.full_like(grey, 9)])
    for other in (np.repeat(grey[..., None], 3, axis=2), alpha, grey.astype(np.uint16) * 257, grey / np.float32(255)):
        assert _one(other) == pytest.approx(expected, abs=1e-4)
    Image.fromarray(grey).save(tmp_path / "a.png")
    rows = plain_image_features([tmp_path / "a.png", grey, tmp_path / "a.png"])
    assert rows == pytest.approx(np.stack([expected] * 3), abs=1e-6)


def test_no_images_have_no_rows_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert plain_image_features([]).shape == (0, 431)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        plain_image_features([tmp_path / "broken.png"])
    assert plain_image_features([1, 2], read=lambda _: np.zeros((4, 4, 1), dtype=np.uint8)).shape == (2, 431)
