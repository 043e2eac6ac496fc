from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data.scan_files import read_scan, scan_kind, scan_size
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.errors import DataError
from lightning_transfer.scans import ImagePart

Make = Callable[..., Path]
RNG = np.random.default_rng(0)
SIXTEEN = RNG.integers(0, 65536, (6, 8)).astype(np.uint16)
VOLUME = RNG.integers(0, 256, (4, 5, 6)).astype(np.uint8)


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(pixels).convert(mode).save(path) if mode else Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_plain_pictures_of_16_bits_keep_them(tmp_path: Path, name: str) -> None:
    pixels, facts = read_scan(save(tmp_path / name, SIXTEEN))
    np.testing.assert_allclose(pixels[..., 0], SIXTEEN / 65535, atol=1e-7)
    assert (facts.kind, facts.bits, facts.height, facts.width, facts.range_from) == ("picture", 16, 6, 8, "bit_depth")


def test_plain_pictures_of_fewer_bits(tmp_path: Path) -> None:
    twelve = SIXTEEN >> 4
    path = save(tmp_path / "a.png", twelve)
    pixels, facts = read_scan(path, ScanOptions(bit_depth=12))
    np.testing.assert_allclose(pixels[..., 0], twelve / 4095, atol=1e-7)
    assert facts.bits == 12
    with pytest.raises(DataError, match=rf"`a.png`: a value of {twelve.max()} needs more than the 10 bits"):
        read_scan(path, ScanOptions(bit_depth=10))
    pixels, facts = read_scan(path, ScanOptions(scale="min_max"))
    assert (pixels.min(), pixels.max(), facts.range_from) == (0, 1, "min_max")


def test_colour_and_grey_of_8_bits(tmp_path: Path) -> None:
    colour = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_allclose(read_scan(save(tmp_path / "a.png", colour)).pixels, colour / 255, atol=1e-7)
    assert read_scan(save(tmp_path / "b.png", colour[..., 0])).pixels.shape == (4, 5, 1)


def test_alpha_that_covers_nothing_is_dropped_and_other_is_refused(tmp_path: Path) -> None:
    four = RNG.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    four[..., 3] = 255
    np.testing.assert_allclose(read_scan(save(tmp_path / "a.png", four)).pixels, four[..., :3] / 255, atol=1e-7)
    four[0, 0, 3] = 254
    with pytest.raises(DataError, match=r"`b.png`: parts of it are transparent"):
        read_scan(save(tmp_path / "b.png", four))


def test_every_kind_of_file_is_found_and_read(tmp_path: Path, make_dicom: Make, nifti: Path) -> None:
    dicom = make_dicom(SIXTEEN, name="xray.png")
    assert (scan_kind(dicom), scan_kind(nifti)) == ("dicom", "nifti")
    np.testing.assert_allclose(read_scan(dicom).pixels[..., 0], SIXTEEN / 65535, atol=1e-7)
    part = ImagePart(str(nifti), 2)
    np.testing.assert_allclose(read_scan(part).pixels[..., 0], VOLUME[::-1, ::-1, 2].T / 255, atol=1e-7)
    assert scan_kind(part) == "nifti"
    np.savez(tmp_path / "a.npz", images=VOLUME)
    pixels, facts = read_scan(ImagePart(str(tmp_path / "a.npz"), 3, "images"))
    np.testing.assert_allclose(pixels[..., 0], VOLUME[3] / 255, atol=1e-7)
    assert facts.kind == "array"
    assert read_scan(Image.fromarray(VOLUME[0])).facts.kind == "picture"
    assert read_scan(VOLUME[0]).facts.kind == "array"


def test_sizes_need_no_pixels(tmp_path: Path, make_dicom: Make, nifti: Path) -> None:
    np.savez(tmp_path / "a.npz", images=VOLUME)
    sources = {
        make_dicom(SIXTEEN): (6, 8),
        ImagePart(str(nifti), 1): (5, 4),
        ImagePart(str(tmp_path / "a.npz"), 1, "images"): (5, 6),
        save(tmp_path / "b.png", SIXTEEN): (6, 8),
    }
    for source, size in sources.items():
        assert scan_size(source) == size == read_scan(source).pixels.shape[:2]


def test_plain_pictures_have_no_windows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`a.png`: `windows` lung need values with a unit"):
        read_scan(save(tmp_path / "a.png", SIXTEEN), ScanOptions(windows=("lung",)))


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.npz", "a.nii"])
def test_errors_name_the_file_and_not_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "Doe_Jane"
    folder.mkdir()
    for content in (None, b"", b"nothing"):
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=f"`{name}`") as error:
            read_scan(folder / name)
        assert "Doe" not in str(error.value)


def test_a_plain_picture_is_one(tmp_path: Path) -> None:
    path = str(save(tmp_path / "a.png", SIXTEEN))
    assert read_scan(ImagePart(path, 0)).facts.height == 6
    for read in (read_scan, scan_size):
        with pytest.raises(DataError, match="is one picture, and number 2 is asked for"):
            read(ImagePart(path, 2))
