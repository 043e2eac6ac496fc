"""Slices of NIfTI volumes against nibabel's own reorientation."""

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data.nifti_files import count_slices, is_nifti, nifti_facts, read_nifti, read_nifti_slice
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.errors import DataError

nibabel = pytest.importorskip("nibabel")

SHAPE = (4, 5, 6)
VALUES = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.int16)
STRAIGHT = np.diag([0.5, 0.75, 2.0, 1.0])
WINDOW = ScanOptions(nifti_window=(0, 4000))


def write(path: Path, values: np.ndarray = VALUES, affine: np.ndarray = STRAIGHT, kind: str = "Nifti1Image", **header):
    image = getattr(nibabel, kind)(values, affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


AXES = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


@pytest.mark.parametrize(("order", "signs"), AXES)
def test_slices_are_nibabels_whatever_the_axes_of_the_file(tmp_path: Path, order: tuple, signs: tuple) -> None:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * (axis + 1)
    path = write(tmp_path / "a.nii", affine=affine)
    canonical = nibabel.as_closest_canonical(nibabel.load(path))
    straight = np.asarray(canonical.dataobj)
    assert count_slices(path) == straight.shape[2]
    for index in (0, straight.shape[2] - 1):
        expected = straight[::-1, ::-1, index].T
        found = read_nifti_slice(path, index)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int16
    facts = nifti_facts(path)
    sizes = nibabel.affines.voxel_sizes(canonical.affine)
    assert facts.spacing == pytest.approx((sizes[1], sizes[0]))
    assert (facts.height, facts.width) == (straight.shape[1], straight.shape[0])
    assert facts.orientation == "".join(nibabel.aff2axcodes(affine))


@pytest.mark.parametrize(
    ("name", "kind"), [("a.nii", "Nifti1Image"), ("a.nii.gz", "Nifti2Image"), ("a.img", "Nifti1Pair")]
)
def test_every_form_of_the_file_gives_the_same(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path / name, kind=kind)
    assert is_nifti(path)
    np.testing.assert_array_equal(read_nifti_slice(path, 3), VALUES[::-1, ::-1, 3].T)


def test_the_front_of_the_patient_is_up_and_the_right_side_is_left(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, dtype=np.uint8)
    values[-1, -1, 0] = 200  # right, front, feet in RAS+
    assert np.argwhere(read_nifti_slice(write(tmp_path / "a.nii", values), 0)).tolist() == [[0, 0]]


def test_values_go_through_the_window(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii")
    expected = VALUES[::-1, ::-1, 2].T
    pixels, facts = read_nifti(path, 2, WINDOW)
    np.testing.assert_allclose(pixels[..., 0], expected / 4000, atol=1e-7)
    assert (facts.range_from, facts.bits, facts.frames) == ("nifti_window", 16, 6)
    pixels, facts = read_nifti(path, 2, ScanOptions(windows=("1000/100", "lung")))
    np.testing.assert_allclose(pixels[..., 0], np.clip((expected - 950) / 100, 0, 1), atol=1e-6)
    assert pixels.shape == (5, 4, 2)


def test_scaled_values_are_those_that_nibabel_gives(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, STRAIGHT)
    image.header.set_slope_inter(0.5, -100)
    nibabel.save(image, tmp_path / "a.nii")
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()[::-1, ::-1, 1].T
    np.testing.assert_allclose(read_nifti_slice(tmp_path / "a.nii", 1), expected)


def test_the_range_that_the_header_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", cal_min=100, cal_max=300)
    pixels, facts = read_nifti(path, 0)
    np.testing.assert_allclose(pixels[..., 0], np.clip((VALUES[::-1, ::-1, 0].T - 100.0) / 200, 0, 1), atol=1e-6)
    assert facts.range_from == "cal_range"
    assert read_nifti(path, 0, WINDOW).facts.range_from == "nifti_window"
    with pytest.raises(DataError, match="tell no range"):
        read_nifti(path, 0, ScanOptions(voi=False))


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_unsigned_values_have_a_bit_depth(tmp_path: Path, kind: type, top: int) -> None:
    values = (VALUES % 256).astype(kind)
    pixels, facts = read_nifti(write(tmp_path / "a.nii", values), 0)
    np.testing.assert_allclose(pixels[..., 0], values[::-1, ::-1, 0].T / top, atol=1e-7)
    assert facts.range_from == "bit_depth"


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_values_without_range_are_refused(tmp_path: Path, kind: type) -> None:
    with pytest.raises(DataError, match=rf"`a.nii`: its values are {np.dtype(kind).name}, which tell no range"):
        read_nifti(write(tmp_path / "a.nii", VALUES.astype(kind)), 0)


def test_min_max_is_of_the_volume_and_not_of_the_slice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii")
    low, high = VALUES.min(), VALUES.max()
    pixels, facts = read_nifti(path, 1, ScanOptions(scale="min_max"))
    np.testing.assert_allclose(pixels[..., 0], (VALUES[::-1, ::-1, 1].T - low) / (high - low), atol=1e-6)
    assert facts.range_from == "min_max"


def test_nan_is_refused_or_replaced(tmp_path: Path) -> None:
    values = VALUES.astype(np.float32)
    values[0, 0, 0], values[1, 0, 0] = np.nan, np.inf
    path = write(tmp_path / "a.nii", values)
    with pytest.raises(DataError, match="2 of 20 values in slice 0 are NaN or infinite"):
        read_nifti(path, 0, WINDOW)
    assert read_nifti(path, 1, WINDOW).pixels.max() > 0
    options = ScanOptions(nifti_window=(-1000, 4000), nan_value=1500.0)
    assert read_nifti(path, 0, options).pixels[-1, -1, 0] == 0.5
    assert read_nifti(path, 0, ScanOptions(scale="min_max", nan_value=0.0)).pixels.max() <= 1


def rotated(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ STRAIGHT


def test_oblique_axes_are_refused_with_their_angle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", affine=rotated(12))
    with pytest.raises(DataError, match=r"oblique, by 12.0 degrees; `max_oblique` is 5"):
        count_slices(path)
    assert read_nifti(path, 0, ScanOptions(max_oblique=15, nifti_window=(0, 1))).pixels.shape == (5, 4, 1)
    assert count_slices(write(tmp_path / "b.nii", affine=rotated(4))) == 6


@pytest.mark.parametrize(
    ("tail", "reason"), [((3,), r"4 dimensions \(4 x 5 x 6 x 3\)"), ((1, 3), r"5 dimensions \(4 x 5 x 6 x 1 x 3\)")]
)
def test_series_of_volumes_are_refused(tmp_path: Path, tail: tuple, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_nifti(write(tmp_path / "a.nii", np.zeros((*SHAPE, *tail), dtype=np.uint8)), 0)


def test_a_fourth_dimension_of_one_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", VALUES[..., None])
    np.testing.assert_array_equal(read_nifti_slice(path, 2), VALUES[::-1, ::-1, 2].T)


def test_a_flat_file_is_one_slice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", VALUES[..., 0])
    assert count_slices(path) == 1
    np.testing.assert_array_equal(read_nifti_slice(path, None), VALUES[::-1, ::-1, 0].T)


@pytest.mark.parametrize("index", [6, -1])
def test_slices_that_are_not_there(tmp_path: Path, index: int) -> None:
    with pytest.raises(DataError, match=f"6 slices, counted from 0, and {index} is asked for"):
        read_nifti_slice(write(tmp_path / "a.nii"), index)
    with pytest.raises(DataError, match=r"it has 6 slices. Name one as `ImagePart\(path, 3\)`"):
        read_nifti_slice(tmp_path / "a.nii", None)


def test_spacings_that_cannot_be_or_contradict_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", affine=np.diag([1e-6, 1, 1, 1]))
    with pytest.raises(DataError, match=r"spacing is 1e-06 x 1 x 1 mm"):
        count_slices(path)
    path = write(tmp_path / "b.nii")
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(3.0).tobytes()  # pixdim[1]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"header says a spacing of 3 x 0.75 x 2 mm, and its affine 0.5 x 0.75 x 2"):
        count_slices(path)


def test_units_other_than_millimetres(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, np.diag([500, 750, 2000, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    assert nifti_facts(tmp_path / "a.nii").spacing == pytest.approx((0.75, 0.5))


def test_two_orientations_that_contradict_each_other(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, STRAIGHT)
    image.set_qform(STRAIGHT, code=1)
    image.set_sform(np.diag([-0.5, 0.75, 2, 1]), code=1)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(DataError, match="LAS by the sform, RAS by the qform"):
        count_slices(tmp_path / "a.nii")


def test_an_unknown_orientation_is_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(content)
    assert nibabel.load(path).header["sform_code"] == 0
    assert nifti_facts(path).orientation == ""


@pytest.mark.parametrize("content", [b"", b"Jane Doe" * 100])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img"])
def test_what_is_no_nifti_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="no NIfTI file, or a broken one") as error:
        count_slices(tmp_path / name)
    assert "Doe" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_every_cut_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 20):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=f"`{name}`"):
            read_nifti(path, 5, WINDOW)


def test_other_kinds_of_values(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its values are complex64"):
        count_slices(write(tmp_path / "a.nii", VALUES.astype(np.complex64)))


def test_a_missing_or_too_large_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`a.nii`: there is no such file"):
        count_slices(tmp_path / "a.nii")
    with pytest.raises(DataError, match="4 x 5 pixels"):
        count_slices(write(tmp_path / "b.nii"), ScanOptions(max_megapixels=1e-5))


def test_without_nibabel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.nii")
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(DataError, match=r"pip install lightning-transfer\[medical\]"):
        count_slices(path)
