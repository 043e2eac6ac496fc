"""Real DICOM files, those that pydicom carries, and ones that are broken on purpose."""

import gzip
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data import dicom_files
from lightning_transfer.data.dicom_files import read_dicom
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.errors import DataError

pydicom = pytest.importorskip("pydicom")
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array  # noqa: E402

Make = Callable[..., Path]
SHIPPED = Path(pydicom.data.__path__[0])
FILES = sorted(
    path.relative_to(SHIPPED).as_posix()
    for path in SHIPPED.rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
)

# What is no picture, or cannot be decoded, with a word of the reason. All others are read.
REFUSED = {
    "no DICOM file": (
        "FileInfo.txt", "hashes.json", "urls.json", "README.md", "README.txt", "README", "crayons.icc", "no_meta.dcm",
        "rtplan.dump", "rtstruct.dump", "test1.json", "test_PN.json", "zipMR.gz",
    ),
    "holds no picture": (
        "chrSQEncoding.dcm", "chrSQEncoding1.dcm", "fall.dcm", "hotiron.dcm", "hotmetalblue.dcm", "pet.dcm",
        "pet20step.dcm", "spring.dcm", "summer.dcm", "winter.dcm", "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm",
        "UN_sequence.dcm", "empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm",
        "no_meta_group_length.dcm", "priv_SQ.dcm", "reportsi.dcm", "reportsi_with_empty_number_tags.dcm", "rtplan.dcm",
        "rtplan_truncated.dcm", "rtstruct.dcm", "test-SR.dcm", "waveform_ecg.dcm",
    ),
    "no pixel data .modality CR": ("chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "chrKoreanMulti.dcm"),
    "cannot be decoded": ("JPEG-lossy.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"),
    "is truncated": ("MR_truncated.dcm",),
    "`Number Of Frames` is no number": ("badVR.dcm",),
    r"holds \d+ frames": (
        "SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_32bit_2frame.dcm", "examples_ybr_color.dcm",
        "rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm",
    ),
}  # fmt: skip
REASONS = {name: reason for reason, names in REFUSED.items() for name in names}


def _reason(file: str) -> str | None:
    if Path(file).name.startswith("DICOMDIR"):
        return "DICOMDIR"
    if "TINY_ALPHA" in file and not file.endswith("README"):
        return "holds no picture"
    return REASONS.get(Path(file).name)


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_pydicom_ships_is_read_or_refused_with_a_reason(file: str) -> None:
    pytest.importorskip("pylibjpeg")
    reason = _reason(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if reason is None:
            pixels, facts = read_dicom(SHIPPED / file)
            assert pixels.shape[:2] == (facts.height, facts.width)
            assert pixels.dtype == np.float32
            assert pixels.min() >= 0
            assert pixels.max() <= 1
        else:
            with pytest.raises(DataError, match=rf"`{Path(file).name}`: .*{reason}") as error:
                read_dicom(SHIPPED / file)
            assert error.value.__cause__ is None
            assert error.value.__context__ is None or error.value.__suppress_context__


@pytest.mark.parametrize("file", [file for file in FILES if _reason(file) in (None, r"holds \d+ frames")])
def test_pixels_are_those_of_pydicom(file: str) -> None:
    """By pydicom's own pipeline, scaled by the range that the bits can hold, as its docstrings state it."""
    pytest.importorskip("pylibjpeg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(SHIPPED / file)
        frame = int(header.get("NumberOfFrames", 1)) - 1
        stored = pixel_array(header, index=frame)
        top = 2.0**header.BitsStored - 1
        if header.PhotometricInterpretation == "PALETTE COLOR":
            expected = apply_color_lut(stored, header) / (2.0 ** header.RedPaletteColorLookupTableDescriptor[2] - 1)
        elif header.PhotometricInterpretation.startswith("MONO"):
            low = -(2.0 ** (header.BitsStored - 1)) if header.PixelRepresentation else 0
            slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
            values = apply_voi_lut(apply_modality_lut(stored, header), header).astype(float)
            expected = ((values - intercept) / slope - low) / top
            expected = 1 - expected if header.PhotometricInterpretation == "MONOCHROME1" else expected
        else:
            expected = stored / top
    pixels = read_dicom(SHIPPED / file, frame=frame).pixels
    np.testing.assert_allclose(pixels.reshape(expected.shape), expected, atol=2e-6)


@pytest.mark.parametrize("low", [0, -32768])
def test_a_picture_stored_the_other_way_round_gives_the_same_tensor(make_dicom: Make, low: int) -> None:
    kind = np.int16 if low else np.uint16
    values = (np.arange(65536).reshape(256, 256) + low).astype(kind)
    inverted = make_dicom(
        (-1 - values if low else 65535 - values).astype(kind), PhotometricInterpretation="MONOCHROME1"
    )
    one = read_dicom(inverted).pixels
    other = read_dicom(make_dicom(values, name="b.dcm")).pixels
    np.testing.assert_array_equal(one, other)
    assert len(np.unique(one)) == 65536


def test_the_twin_of_a_real_file_gives_the_same_tensor(tmp_path: Path) -> None:
    for file in ("CT_small.dcm", "MR_small.dcm"):
        data = pydicom.dcmread(SHIPPED / "test_files" / file)
        plain = read_dicom(SHIPPED / "test_files" / file).pixels
        data.PixelData = (-1 - data.pixel_array).astype(np.int16).tobytes()
        data.PhotometricInterpretation = "MONOCHROME1"
        if "WindowCenter" in data:
            data.WindowCenter = -float(data.WindowCenter)  # of LINEAR: low + high + 1 - center
        data.save_as(tmp_path / file)
        np.testing.assert_array_equal(read_dicom(tmp_path / file).pixels, plain)


def test_windows_of_a_real_ct_are_channels() -> None:
    path = SHIPPED / "test_files" / "CT_small.dcm"
    hounsfield = pydicom.dcmread(path).pixel_array.astype(float) - 1024
    pixels, facts = read_dicom(path, ScanOptions(windows=("lung", "mediastinum", "bone")))
    for channel, (low, high) in enumerate([(-1350, 150), (-125, 225), (-500, 1300)]):
        np.testing.assert_allclose(pixels[..., channel], np.clip((hounsfield - low) / (high - low), 0, 1), atol=1e-6)
    assert facts.range_from == "windows"
    with pytest.raises(DataError, match=r"windows lung are in Hounsfield units, and its modality is MR"):
        read_dicom(SHIPPED / "test_files" / "MR_small.dcm", ScanOptions(windows=("lung",)))


@pytest.mark.parametrize("stem", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_one_picture_in_every_syntax_is_one_tensor(stem: str) -> None:
    pytest.importorskip("pylibjpeg")
    plain = read_dicom(SHIPPED / "test_files" / "MR_small.dcm").pixels
    np.testing.assert_array_equal(read_dicom(SHIPPED / "test_files" / f"MR_small_{stem}.dcm").pixels, plain)


@pytest.mark.parametrize("whole", [True, False])
def test_frames_are_named_by_number(make_dicom: Make, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    if not whole:
        monkeypatch.setattr(dicom_files, "_WHOLE_FILE", 0)
    frames = np.random.default_rng(0).integers(0, 65536, (3, 5, 4)).astype(np.uint16)
    path = make_dicom(frames)
    for index in range(3):
        np.testing.assert_allclose(read_dicom(path, frame=index).pixels[..., 0], frames[index] / 65535, atol=1e-7)
    np.testing.assert_array_equal(read_dicom(path, ScanOptions(frame=2)).pixels, read_dicom(path, frame=2).pixels)
    assert read_dicom(path, frame=1).facts.frames == 3
    with pytest.raises(DataError, match="holds 3 frames, counted from 0, and 3 is asked for"):
        read_dicom(path, frame=3)
    with pytest.raises(DataError, match=r"holds 3 frames. Name one as `ImagePart\(path, 0\)`"):
        read_dicom(path)


@pytest.mark.parametrize("file", ["image_dfl.dcm", "SC_rgb_jpeg.dcm", "MR_small.dcm"])
def test_what_cannot_be_read_by_parts_is_read_whole(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    pytest.importorskip("pylibjpeg")
    whole = read_dicom(SHIPPED / "test_files" / file).pixels
    monkeypatch.setattr(dicom_files, "_WHOLE_FILE", 0)
    np.testing.assert_array_equal(read_dicom(SHIPPED / "test_files" / file).pixels, whole)


def test_bits_above_those_stored_are_left_out(make_dicom: Make) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    overlaid = values | np.uint16(0xA000)
    pixels = read_dicom(make_dicom(overlaid, BitsStored=12)).pixels
    np.testing.assert_allclose(pixels[..., 0], values / 4095, atol=1e-7)


@pytest.mark.parametrize("signed", [False, True])
def test_values_need_not_begin_at_the_lowest_bit(make_dicom: Make, signed: bool) -> None:
    values = np.arange(4096).reshape(64, 64) - (2048 if signed else 0)
    shifted = ((values << 4) | 7).astype(np.int16 if signed else np.uint16)
    path = make_dicom(shifted, BitsStored=12, HighBit=15)
    expected = (values + (2048 if signed else 0)) / 4095
    np.testing.assert_allclose(read_dicom(path).pixels[..., 0], expected, atol=1e-6)


def test_float_pixels_need_a_window(make_dicom: Make) -> None:
    values = np.linspace(0, 2, 12, dtype=np.float32).reshape(3, 4)
    path = make_dicom(
        values.view(np.uint32), PixelData=None, FloatPixelData=values.tobytes(), BitsStored=None, HighBit=None,
        PixelRepresentation=None,
    )  # fmt: skip
    with pytest.raises(DataError, match="its values are floats"):
        read_dicom(path)
    pixels, facts = read_dicom(path, ScanOptions(windows=("1/2",)))
    np.testing.assert_allclose(pixels[..., 0], values / 2, atol=1e-6)
    assert facts.bits is None


def test_options_of_frames_reach_the_values_of_enhanced_objects(make_dicom: Make) -> None:
    from pydicom.dataset import Dataset

    groups = []
    for center in (100, 200):
        window, item = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, 100, "LINEAR_EXACT"
        item.FrameVOILUTSequence = [window]
        groups.append(item)
    frames = np.full((2, 2, 2), 150, dtype=np.uint16)
    path = make_dicom(frames, PerFrameFunctionalGroupsSequence=groups)
    assert [read_dicom(path, frame=index).pixels[0, 0, 0] for index in (0, 1)] == [1, 0]


PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PixelData": None}, r"no pixel data \(modality DX\)"),
        ({"PixelData": b"\0" * 100}, "truncated"),
        (
            {"syntax": "1.2.840.10008.1.2.4.100", "PixelData": encapsulate([b"\0" * 128])},
            "transfer syntax `MPEG2.*` is not one",
        ),
        ({"syntax": "1.2.3.4.5"}, "transfer syntax `1.2.3.4.5` is not one"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "width of 0"),
    ],
)
def test_what_cannot_be_decoded_says_why(make_dicom: Make, tags: dict, reason: str) -> None:
    path = make_dicom(PIXELS, **tags)
    with pytest.raises(DataError, match=rf"`a.dcm`: .*({reason})") as error:
        read_dicom(path)
    assert not any(name in str(error.value) for name in ("Doe", "SECRET", str(path.parent)))


def test_what_stands_in_a_wrong_place_is_not_quoted(make_dicom: Make) -> None:
    path = make_dicom(PIXELS, WindowCenter=1, WindowWidth="77")
    content = path.read_bytes()
    assert content.count(b"DS\x02\x0077") == 1
    path.write_bytes(content.replace(b"DS\x02\x0077", b"DS\x02\x00JD"))
    with pytest.raises(DataError, match="`Window Width` is no number") as error:
        read_dicom(path)
    assert "JD" not in str(error.value)


def test_no_cut_and_no_flipped_byte_gives_another_error(make_dicom: Make) -> None:
    path = make_dicom(PIXELS, WindowCenter=30, WindowWidth=60)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    read = 0
    for trial in range(150):
        broken = bytearray(content)
        if trial % 3 == 0:
            broken = broken[: rng.integers(len(broken))]
        else:
            for place in rng.integers(132, len(broken) - 128, 3):
                broken[place] = rng.integers(256)
        path.write_bytes(broken)
        try:
            read_dicom(path)
            read += 1
        except DataError as error:
            assert "Doe" not in str(error)  # noqa: PT017
            assert "SECRET" not in str(error)  # noqa: PT017
    assert 0 < read < 150


def test_a_packed_file_is_no_dicom_file(make_dicom: Make, tmp_path: Path) -> None:
    packed = tmp_path / "a.dcm.gz"
    packed.write_bytes(gzip.compress(make_dicom(PIXELS).read_bytes()))
    with pytest.raises(DataError, match="no DICOM file"):
        read_dicom(packed)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_file_that_may_not_be_read(make_dicom: Make) -> None:
    path = make_dicom(PIXELS)
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_dicom(path)
