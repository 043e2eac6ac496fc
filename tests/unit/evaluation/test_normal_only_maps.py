"""Maps at the image's size. Oracle: the preprocessing itself, which put the image into the frame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data import ImagePreprocessing
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation.normal_only_maps import image_map, known_mask, write_heat_map
from lightning_transfer.types import Record


@pytest.mark.parametrize("pad", ["none", "mean", "reflect"])
@pytest.mark.parametrize("size", [(40, 90), (90, 40), (64, 64), (33, 61)])
def test_a_map_lies_where_the_image_lay(pad: str, size: tuple[int, int]) -> None:
    """A smooth picture goes into the frame and comes back as itself."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    picture = np.exp(-((rows - 0.3 * size[0]) ** 2 + (columns - 0.7 * size[1]) ** 2) / 150).astype(np.float32)
    to_frame = ImagePreprocessing((64, 64), 1, (0.0,), (1.0,), pad=pad)
    found = image_map(to_frame(picture)[0], size, to_frame.to_dict(), sigma=0.0)
    assert found.shape == size
    assert np.abs(found - picture).max() < 0.06
    peak = np.unravel_index(found.argmax(), size)
    assert abs(peak[0] - 0.3 * size[0]) <= 2
    assert abs(peak[1] - 0.7 * size[1]) <= 2


def _record(folder: Path, size: tuple[int, int], mask: np.ndarray | None, label: str = "pit") -> Record:
    Image.new("L", (size[1], size[0])).save(folder / "image.png")
    if mask is not None:
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask.png")
    return Record("1", folder / "image.png", label, mask=None if mask is None else folder / "mask.png")


def test_what_is_known_of_a_defect(tmp_path: Path) -> None:
    mask = np.zeros((5, 8), dtype=bool)
    assert known_mask(_record(tmp_path, (5, 8), None), "good") is None
    assert known_mask(_record(tmp_path, (5, 8), mask), "good") is None
    zeros = known_mask(_record(tmp_path, (5, 8), None, "good"), "good")
    assert zeros is not None
    assert (zeros.shape, zeros.any()) == ((5, 8), False)
    mask[1, 3:6] = True
    np.testing.assert_array_equal(known_mask(_record(tmp_path, (5, 8), mask), "good"), mask)
    with pytest.raises(DataError, match=r"mask.png` has 5 x 8 pixels \(height x width\), and its image 8 x 5"):
        known_mask(_record(tmp_path, (8, 5), mask), "good")


def test_a_heat_map_is_bright_where_the_distance_is(tmp_path: Path) -> None:
    distances = np.zeros((30, 50), dtype=np.float32)
    distances[5:10, 40:45] = 3.0
    distances[20:25, 10:15] = 1.5
    part = np.full((30, 50), 128, dtype=np.uint8)
    path = write_heat_map(tmp_path / "maps" / "a.png", part, distances, (1.0, 3.0))
    with Image.open(path) as opened:
        pixels = np.asarray(opened).astype(float)
    assert pixels.shape == (30, 50, 3)
    assert pixels[15, 20].tolist() == [128, 128, 128]  # below the lower limit the part is seen as it is
    assert pixels[7, 42].sum() > pixels[22, 12].sum() + 200
    assert pixels[7, 42, 0] > pixels[7, 42, 2] + 50  # yellow, not grey
    assert pixels[22, 12, 0] > pixels[22, 12, 1] + 50  # reddish
    wide = write_heat_map(tmp_path / "b.png", np.zeros((10, 3000), dtype=np.uint16), np.zeros((10, 3000)), (0.0, 1.0))
    with Image.open(wide) as opened:
        assert max(opened.size) == 1024
    with pytest.raises(ValueError, match=r"rising `limits`, got 2.0 and 2.0"):
        write_heat_map(tmp_path / "c.png", part, distances, (2.0, 2.0))
    assert not (tmp_path / "c.png").exists()
