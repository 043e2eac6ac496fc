import math
from itertools import pairwise

import numpy as np
import pytest

from lightning_transfer.data.tiling import Box, Tile, Tiling, cut_record, label_tiles
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record


@pytest.mark.parametrize("seed", range(40))
def test_tiles_cover_every_pixel_with_the_overlap_asked_for_and_no_more_tiles_than_needed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(2, 20, 2))
    overlap = int(rng.integers(0, min(size)))
    height, width = (side + int(rng.integers(0, 50)) for side in size)
    boxes = Tiling(size, overlap).boxes(height, width)
    seen = np.zeros((height, width), dtype=int)
    for box in boxes:
        assert (box.height, box.width) == size
        assert seen[box.slices].shape == size  # none leaves the image
        seen[box.slices] += 1
    assert seen.min() >= 1
    for starts, side in ((sorted({b.top for b in boxes}), size[0]), (sorted({b.left for b in boxes}), size[1])):
        assert all(after - before <= side - overlap for before, after in pairwise(starts))
    sides = zip((height, width), size, strict=True)
    needed = [math.ceil((whole - side) / (side - overlap)) + 1 for whole, side in sides]
    assert len(boxes) == needed[0] * needed[1]


def test_a_defect_no_larger_than_the_overlap_is_whole_in_some_tile() -> None:
    boxes = Tiling((10, 10), overlap=4).boxes(33, 47)
    for top in range(33 - 3):
        for left in range(47 - 3):
            assert any(
                b.top <= top and top + 4 <= b.top + 10 and b.left <= left and left + 4 <= b.left + 10 for b in boxes
            )


def test_an_image_of_one_tile() -> None:
    assert Tiling((7, 9), 3).boxes(7, 9) == [Box(0, 0, 7, 9)]


@pytest.mark.parametrize("size", [(7, 20), (20, 7)])
def test_a_tile_larger_than_the_image(size: tuple[int, int]) -> None:
    match = rf"`a.png`: .*{size[0]} x {size[1]} pixels .*a tile has 8 x 8. Set `tile_size` to 7 or less, or to null"
    with pytest.raises(DataError, match=match):
        cut_record(Record("a.png", "a.png"), Tiling((8, 8), 2), *size)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (((0, 8), 0), r"`tile_size`.*\(0, 8\)"),
        (((8, 8), 8), "`tile_overlap` from 0 to 7.*got 8"),
        (((8, 8), -1), "got -1"),
        (((8, 8), 2, 0), "`tile_top_k` of at least 1, got 0"),
    ],
)
def test_impossible_tilings(arguments: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Tiling(*arguments)


def test_tiles_are_records_of_their_image() -> None:
    record = Record("a.png", "root/a.png", "pit", "train", "lot 1", {"line": "3"}, "m.png")
    tiles = cut_record(record, Tiling((4, 4), 0), 4, 8)
    assert [tile.id for tile in tiles] == ["a.png#0", "a.png#1"]
    assert [tile.input for tile in tiles] == [Tile("root/a.png", Box(0, left, 4, 4)) for left in (0, 4)]
    assert {(t.label, t.split, t.group, t.meta["line"]) for t in tiles} == {("pit", "train", "lot 1", "3")}


def test_one_pixel_of_the_defect_makes_a_tile_defective() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[3, 4] = True  # in the upper right of four tiles
    tiles = cut_record(Record("a", "a", "pit"), Tiling((4, 4), 0), 8, 8)
    assert [tile.label for tile in label_tiles(tiles, mask, "good")] == ["good", "pit", "good", "good"]
