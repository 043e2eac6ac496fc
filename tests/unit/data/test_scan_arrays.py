from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data.scan_arrays import array_shape, npz_arrays, read_npz
from lightning_transfer.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 8, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 8, 7, 3), dtype=np.uint8)
LABELS = np.arange(5)[:, None]


@pytest.fixture(params=[np.savez, np.savez_compressed])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    request.param(tmp_path / "set.npz", train_images=GREY, test_images=COLOUR, train_labels=LABELS)
    return tmp_path / "set.npz"


def test_rows_are_numpys(path: Path) -> None:
    for index in range(5):
        np.testing.assert_array_equal(read_npz(path, index, "train_images"), GREY[index])
    np.testing.assert_array_equal(read_npz(path, 3, "test_images"), COLOUR[3])


def test_arrays_are_listed_without_reading_them(path: Path) -> None:
    assert npz_arrays(path)["test_images"] == ((4, 8, 7, 3), np.uint8)
    assert array_shape(path, "train_images") == (5, 8, 7)


@pytest.mark.parametrize(
    ("index", "key", "reason"),
    [
        (5, "train_images", "5 rows, counted from 0, and 5 is asked for"),
        (-1, "train_images", "-1 is asked for"),
        (0, "train_image", r"no array `train_image`. Did you mean `train_images`\?"),
        (0, "train_labels", r"`train_labels` of shape \(5, 1\) and type int64 holds no pictures"),
        (0, "", "2 of its arrays hold pictures .*train_images, test_images"),
        (None, "train_images", "holds 5 pictures"),
    ],
)
def test_what_is_not_there(path: Path, index: int | None, key: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"`set.npz`: .*{reason}"):
        read_npz(path, index, key)


def test_the_only_array_of_pictures_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pictures=GREY, labels=LABELS)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", 2), GREY[2])
    np.savez(tmp_path / "b.npz", picture=COLOUR[0])
    np.testing.assert_array_equal(read_npz(tmp_path / "b.npz", None), COLOUR[0])


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    import os

    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=GREY)
    read_npz(path, 0, "x")
    np.savez_compressed(path, x=GREY[::-1])
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(read_npz(path, 0, "x"), GREY[-1])


def test_arrays_in_the_order_of_fortran(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(GREY))
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", 1), GREY[1])


def test_stored_arrays_stay_in_the_file(tmp_path: Path) -> None:
    from lightning_transfer.data import scan_arrays

    path = tmp_path / "a.npz"
    np.savez(path, x=GREY)
    assert isinstance(scan_arrays._load(path, "x", path.stat().st_mtime_ns), np.memmap)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([[{"a": 1}] * 3] * 3, dtype=object))
    with pytest.raises(DataError, match=r"holds no pictures|0 of its arrays"):
        read_npz(tmp_path / "a.npz", 0, "x")


def test_cuts_are_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(0, len(content), 50):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"set.npz"):
            read_npz(path, 0, "train_images")


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`a.npz`: there is no such file") as error:
        read_npz(tmp_path / "Doe" / "a.npz", 0)
    assert "Doe" not in str(error.value)
