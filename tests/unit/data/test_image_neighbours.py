import csv
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lightning_transfer.data.image_facts import inspect_image
from lightning_transfer.data.image_neighbours import MAX_DISTANCE, MIN_CORRELATION, find_similar, hash_thumbnails

MANIFEST = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile" / "manifest.csv"
RNG = np.random.default_rng(0)


def _pictures(count: int, size: int = 96) -> list[npt.NDArray[np.uint8]]:
    """Smooth random pictures, all different."""
    found = []
    for _ in range(count):
        small = Image.fromarray(RNG.integers(0, 256, (7, 7), dtype=np.uint8))
        found.append(np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)))
    return found


def _thumbnails(pictures: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float16]:
    return np.stack([inspect_image(picture).thumbnail for picture in pictures])


def _pairs(thumbnails: npt.NDArray[np.float16], aspects: npt.NDArray[np.float64] | None = None) -> set[tuple[int, int]]:
    found = find_similar(thumbnails, np.ones(len(thumbnails)) if aspects is None else aspects)
    return {pair for one, other, _ in found for pair in zip(one.tolist(), other.tolist(), strict=True)}


def _all_pairs(thumbnails: npt.NDArray[np.float16]) -> set[tuple[int, int]]:
    """The same by brute force."""
    hashes, units = hash_thumbnails(thumbnails)
    bits = (hashes[:, None] >> np.arange(63, dtype=np.uint64)) & np.uint64(1)
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    near = np.triu((distance <= MAX_DISTANCE) & (units @ units.T >= MIN_CORRELATION), 1)
    return set(zip(*(place.tolist() for place in np.nonzero(near)), strict=True))


def test_prints_of_one_picture_are_found_and_others_are_not() -> None:
    pictures = _pictures(60)
    darker = (pictures[3] * 0.7 + 20).astype(np.uint8)
    smaller = np.asarray(Image.fromarray(pictures[9]).resize((48, 48), Image.Resampling.BILINEAR))
    noisy = np.clip(pictures[30] + RNG.normal(0, 8, pictures[30].shape), 0, 255).astype(np.uint8)
    assert _pairs(_thumbnails([*pictures, darker, smaller, noisy])) == {(3, 60), (9, 61), (30, 62)}
    assert _pairs(_thumbnails([pictures[0], pictures[0], pictures[1]])) == {(0, 1)}


def test_pictures_of_one_product_on_one_fixture_are_not_all_the_same() -> None:
    common = _pictures(1)[0].astype(np.float64)
    parts = [np.clip(common + 0.15 * (own - 128.0), 0, 255).astype(np.uint8) for own in _pictures(300)]
    again = np.clip(parts[7] + RNG.normal(0, 2, parts[7].shape), 0, 255).astype(np.uint8)
    thumbnails = _thumbnails([*parts, again])
    assert _pairs(thumbnails) == {(7, 300)}
    plain = thumbnails.astype(np.float64).reshape(301, -1)
    assert np.corrcoef(plain).min() > 0.9  # by the whole picture, any two are


def test_buckets_find_what_brute_force_finds_each_pair_once() -> None:
    base = _pictures(40)
    shaken = [np.clip(p + RNG.normal(0, s, p.shape), 0, 255).astype(np.uint8) for p in base for s in (5, 40, 90, 120)]
    thumbnails = _thumbnails([*base, *shaken])
    pairs = [
        pair
        for one, other, _ in find_similar(thumbnails, np.ones(len(thumbnails)))
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    ]
    assert len(pairs) == len(set(pairs)) > 100
    assert set(pairs) == _all_pairs(thumbnails)


def test_proportions_and_constant_pictures() -> None:
    thumbnails = _thumbnails([_pictures(1)[0]] * 2)
    assert _pairs(thumbnails, np.array([1.0, 1.04])) == {(0, 1)}
    assert _pairs(thumbnails, np.array([1.0, 1.3])) == set()
    assert _pairs(np.full((5, 16, 16), 80, dtype=np.float16)) == set()


def test_what_is_not_wanted_is_not_compared_and_progress_reaches_its_end() -> None:
    thumbnails = _thumbnails([_pictures(1)[0]] * 30)
    seen, steps = np.zeros(30, dtype=bool), []
    count = 0
    for one, other, _ in find_similar(thumbnails, np.ones(30), lambda i, j: ~(seen[i] & seen[j]), steps.append):
        seen[one] = seen[other] = True
        count += len(one)
    assert count == 30 * 29 // 2  # one block, asked before anything was seen
    assert sum(steps) == 7 * 30
    assert list(find_similar(thumbnails, np.ones(30), lambda i, j: np.zeros(len(i), dtype=bool))) == []


@pytest.mark.real_data
@pytest.mark.skipif(not MANIFEST.is_file(), reason=f"needs LT_DATA_DIR: no {MANIFEST}")
def test_magnetic_tiles_that_are_nearly_the_same_are_of_one_tile() -> None:
    with MANIFEST.open() as stream:
        rows = list(csv.DictReader(stream))
    facts = [inspect_image(MANIFEST.parent / row["path"]) for row in rows]
    thumbnails = np.stack([found.thumbnail for found in facts])
    pairs = _pairs(thumbnails, np.array([found.width / found.height for found in facts]))
    same = sum(rows[one]["tile_group"] == rows[other]["tile_group"] for one, other in pairs)
    assert len(pairs) > 1000
    assert same / len(pairs) > 0.99
