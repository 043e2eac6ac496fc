"""The grey pipeline against pydicom's own functions, and against closed forms where pydicom has none."""

import numpy as np
import pytest

from lightning_transfer.data.dicom_values import colour_values, grey_values, number, numbers
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.errors import DataError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (16, 9)).astype(np.uint16)


def header(**tags: object) -> Dataset:
    found = Dataset()
    for key, value in ({
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12, "PixelRepresentation": 0,
        "Modality": "CT",
    } | tags).items():  # fmt: skip
        setattr(found, key, value)
    return found


def lut(entries: np.ndarray, first: int = 0, bits: int = 16) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return [item]


def by_pydicom(stored: np.ndarray, tags: Dataset) -> np.ndarray:
    """Return what pydicom gives, scaled to [0, 1] by the range that its docstrings state."""
    low, high = 0.0, 2.0**tags.BitsStored - 1
    if tags.PixelRepresentation:
        low, high = -(2.0 ** (tags.BitsStored - 1)), 2.0 ** (tags.BitsStored - 1) - 1
    if "ModalityLUTSequence" in tags:
        low, high = 0, 2 ** tags.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    elif "RescaleSlope" in tags:
        low, high = (end * float(tags.RescaleSlope) + float(tags.RescaleIntercept) for end in (low, high))
    values = apply_voi_lut(apply_modality_lut(stored, tags), tags).astype(np.float64)
    if "VOILUTSequence" in tags:
        low, high = 0, 2 ** tags.VOILUTSequence[0].LUTDescriptor[2] - 1
    scaled = (values - low) / (high - low)
    return 1 - scaled if tags.PhotometricInterpretation == "MONOCHROME1" else scaled


CASES = {
    "depth": {},
    "rescaled depth": {"RescaleSlope": 2, "RescaleIntercept": -1024},
    "window": {"WindowCenter": 2000, "WindowWidth": 1000},
    "rescaled window": {"RescaleSlope": "0.5", "RescaleIntercept": "-1024", "WindowCenter": "40", "WindowWidth": "400"},
    "first of two windows": {"WindowCenter": [2000, 100], "WindowWidth": [1000, 50]},
    "exact": {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
    "step": {"WindowCenter": 2000, "WindowWidth": 1},
    "voi lut": {"VOILUTSequence": lut(np.sort(RNG.integers(0, 65536, 4096)))},
    "short voi lut": {"VOILUTSequence": lut(np.arange(100) * 10, first=2000, bits=10)},
    "lut before window": {"VOILUTSequence": lut(np.arange(4096) * 16), "WindowCenter": 9, "WindowWidth": 9},
    "modality lut": {"ModalityLUTSequence": lut((np.arange(4096) ** 2 / 256).astype(int), bits=16)},
    "both luts": {
        "ModalityLUTSequence": lut(np.arange(4096)[::-1]),
        "VOILUTSequence": lut(np.sort(RNG.integers(0, 4096, 4096)), bits=12),
    },
}


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("case", CASES)
def test_values_are_pydicoms(case: str, photometric: str) -> None:
    tags = header(PhotometricInterpretation=photometric, **CASES[case])
    pixels, _ = grey_values(TWELVE, tags, ScanOptions())
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[..., 0], by_pydicom(TWELVE, tags), atol=1e-6)


@pytest.mark.parametrize("case", ["depth", "rescaled window", "exact"])
def test_signed_values_are_pydicoms(case: str) -> None:
    signed = (TWELVE.astype(np.int32) - 2048).astype(np.int16)
    tags = header(PixelRepresentation=1, **CASES[case])
    np.testing.assert_allclose(grey_values(signed, tags, ScanOptions())[0][..., 0], by_pydicom(signed, tags), atol=1e-6)


def test_where_the_range_comes_from() -> None:
    found = {case: grey_values(TWELVE, header(**tags), ScanOptions())[1] for case, tags in CASES.items()}
    assert found["depth"] == found["modality lut"] == "bit_depth"
    assert found["sigmoid"] == found["step"] == "window"
    assert found["lut before window"] == found["both luts"] == "voi_lut"


def test_another_view_of_the_file_is_taken_by_its_number() -> None:
    tags = header(WindowCenter=[2000, 100], WindowWidth=[1000, 51])
    second = header(WindowCenter=100, WindowWidth=51)
    pixels, _ = grey_values(TWELVE, tags, ScanOptions(voi_index=1))
    np.testing.assert_array_equal(pixels, grey_values(TWELVE, second, ScanOptions())[0])
    with pytest.raises(DataError, match="names 2 windows, and `voi_index` is 2"):
        grey_values(TWELVE, tags, ScanOptions(voi_index=2))


def test_voi_can_be_left_out() -> None:
    pixels, source = grey_values(TWELVE, header(**CASES["window"]), ScanOptions(voi=False))
    np.testing.assert_allclose(pixels[..., 0], TWELVE / 4095, atol=1e-7)
    assert source == "bit_depth"


def _mirror(entries: np.ndarray, top: int) -> np.ndarray:
    return top - entries[::-1]


TWINS: dict[str, tuple[dict, dict]] = {
    "depth": ({}, {}),
    "window": ({"WindowCenter": 2000, "WindowWidth": 999}, {"WindowCenter": 4096 - 2000, "WindowWidth": 999}),
    "exact": (
        {"WindowCenter": 1999.5, "WindowWidth": 700, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 4095 - 1999.5, "WindowWidth": 700, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    "sigmoid": (
        {"WindowCenter": 1999.5, "WindowWidth": 700, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 4095 - 1999.5, "WindowWidth": 700, "VOILUTFunction": "SIGMOID"},
    ),
    "step": ({"WindowCenter": 2000, "WindowWidth": 1}, {"WindowCenter": 4096 - 2000, "WindowWidth": 1}),
    "voi lut": (
        {"VOILUTSequence": lut(np.sort(np.random.default_rng(1).integers(0, 65536, 4096)))},
        {"VOILUTSequence": lut(_mirror(np.sort(np.random.default_rng(1).integers(0, 65536, 4096)), 65535))},
    ),
    "rescaled": ({"RescaleSlope": 1, "RescaleIntercept": -100}, {"RescaleSlope": 1, "RescaleIntercept": -100}),
    "min_max": ({}, {}),
}


@pytest.mark.parametrize("twin", TWINS)
def test_an_inverted_picture_and_its_twin_are_equal_bit_by_bit(twin: str) -> None:
    inverted, plain = TWINS[twin]
    options = ScanOptions(scale="min_max") if twin == "min_max" else ScanOptions()
    every = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    one, _ = grey_values(every, header(PhotometricInterpretation="MONOCHROME1", **inverted), options)
    other, _ = grey_values(4095 - every, header(**plain), options)
    np.testing.assert_array_equal(one, other)
    assert one[0, 0, 0] > 0.999 or twin == "voi lut"


def test_sixteen_bits_have_all_their_levels() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels, _ = grey_values(every, header(BitsStored=16), ScanOptions())
    assert len(np.unique(pixels)) == 65536
    assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (0, 1)


def test_windows_are_channels_in_their_order() -> None:
    hounsfield = np.array([[-2000, -1350, -600, 150, 50, 3000]])
    tags = header(RescaleSlope=1, RescaleIntercept=-2100)
    stored = (hounsfield + 2100).astype(np.uint16)
    pixels, source = grey_values(stored, tags, ScanOptions(windows=("lung", "mediastinum", "40/400")))
    assert source == "windows"
    expected = [
        np.clip((hounsfield - low) / (high - low), 0, 1) for low, high in ((-1350, 150), (-125, 225), (-160, 240))
    ]
    np.testing.assert_allclose(pixels, np.stack(expected, axis=2), atol=1e-6)


def test_windows_of_an_inverted_picture_are_inverted() -> None:
    tags = header(RescaleSlope=1, RescaleIntercept=0)
    plain, _ = grey_values(TWELVE, tags, ScanOptions(windows=("1000/2000",)))
    tags.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_allclose(grey_values(TWELVE, tags, ScanOptions(windows=("1000/2000",)))[0], 1 - plain, atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "MR", "RescaleSlope": 1, "RescaleIntercept": 0}, "its modality is MR"),
        ({}, "it has no rescale slope"),
        ({"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}, "of another unit"),
    ],
)
def test_named_windows_need_hounsfield_units(tags: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        grey_values(TWELVE, header(**tags), ScanOptions(windows=("lung",)))
    grey_values(TWELVE, header(**tags), ScanOptions(windows=("100/200",)))  # the user's own are in the file's unit


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"WindowCenter": 1, "WindowWidth": 0}, "width of 0"),
        ({"WindowCenter": 1, "WindowWidth": 0.5}, "width of 0.5"),
        ({"WindowCenter": 1, "WindowWidth": -3, "VOILUTFunction": "SIGMOID"}, "width of -3"),
        ({"WindowCenter": 1, "WindowWidth": 3, "VOILUTFunction": "CUBIC"}, "none of LINEAR"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "`Rescale Slope` is 0"),
        ({"VOILUTSequence": lut(np.arange(9), bits=4)}, "entries of 4 bits"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tags: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        grey_values(TWELVE, header(**tags), ScanOptions())


def test_a_lut_with_fewer_entries_than_it_says_is_refused() -> None:
    items = lut(np.arange(4096))
    items[0].LUTData = [1, 2, 3]
    with pytest.raises(DataError, match="says 4096 entries, and there are fewer"):
        grey_values(TWELVE, header(VOILUTSequence=items), ScanOptions())
    del items[0].LUTDescriptor
    with pytest.raises(DataError, match="VOI LUT is broken"):
        grey_values(TWELVE, header(VOILUTSequence=items), ScanOptions())


@pytest.mark.parametrize("width", [1, 2])
def test_tables_of_bytes_are_read_by_their_length(width: int) -> None:
    entries = np.arange(256)[::-1]
    item = {"LUTDescriptor": [256, 0, 8], "LUTData": entries.astype(f"<u{width}").tobytes()}
    tags = {"PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 8, "VOILUTSequence": [item]}
    pixels, _ = grey_values(np.arange(256, dtype=np.uint8).reshape(16, 16), tags, ScanOptions())
    np.testing.assert_allclose(pixels.reshape(-1), entries / 255, atol=1e-7)


def test_a_long_table_of_8_bits_keeps_its_places() -> None:
    """pydicom 3.0 counts the places of such a table in 8 bits, and refuses modality LUTs of 12."""
    entries = np.arange(4096) // 16
    pixels, _ = grey_values(TWELVE, header(VOILUTSequence=lut(entries, bits=8)), ScanOptions())
    np.testing.assert_allclose(pixels[..., 0], (TWELVE // 16) / 255, atol=1e-7)
    pixels, _ = grey_values(TWELVE, header(ModalityLUTSequence=lut(np.arange(4096)[::-1], bits=12)), ScanOptions())
    np.testing.assert_allclose(pixels[..., 0], 1 - TWELVE / 4095, atol=1e-6)


def test_a_table_of_all_16_bits_says_zero_entries() -> None:
    entries = np.arange(65536)[::-1]
    tags = header(BitsStored=16, VOILUTSequence=lut(entries))
    stored = np.array([[0, 7, 65535]], dtype=np.uint16)
    pixels, _ = grey_values(stored, tags, ScanOptions())
    np.testing.assert_allclose(pixels[0, :, 0], [1, 65528 / 65535, 0], atol=1e-7)


def test_a_table_of_signed_values_begins_below_zero() -> None:
    signed = (TWELVE.astype(np.int32) - 2048).astype(np.int16)
    entries = np.sort(RNG.integers(0, 4096, 4096))
    tags = header(PixelRepresentation=1, ModalityLUTSequence=lut(entries, first=-2048, bits=12))
    pixels, _ = grey_values(signed, tags, ScanOptions())
    np.testing.assert_allclose(pixels[..., 0], entries[TWELVE] / 4095, atol=1e-6)


def test_floats_need_a_range() -> None:
    floats = np.array([[0.5, 2.5]], dtype=np.float32)
    with pytest.raises(DataError, match="floats, which have no bit depth"):
        grey_values(floats, header(), ScanOptions())
    assert grey_values(floats, header(), ScanOptions(windows=("1/2",)))[0][0, :, 0].tolist() == [0.25, 1]


def test_min_max_is_of_the_picture_and_a_constant_one_is_zero() -> None:
    pixels, source = grey_values(np.array([[100, 300]], dtype=np.uint16), header(), ScanOptions(scale="min_max"))
    assert (pixels.reshape(-1).tolist(), source) == ([0, 1], "min_max")
    constant, _ = grey_values(np.full((2, 2), 7, dtype=np.uint16), header(), ScanOptions(scale="min_max"))
    assert not constant.any()


def test_a_negative_slope_turns_the_order_round() -> None:
    pixels, _ = grey_values(TWELVE, header(RescaleSlope=-2, RescaleIntercept=5), ScanOptions())
    np.testing.assert_allclose(pixels[..., 0], 1 - TWELVE / 4095, atol=1e-6)


def test_colours_are_scaled_by_their_bits() -> None:
    colours = RNG.integers(0, 4096, (2, 3, 3)).astype(np.uint16)
    np.testing.assert_allclose(colour_values(colours, 12, ScanOptions()), colours / 4095, atol=1e-7)
    assert colour_values(colours, 12, ScanOptions(scale="min_max")).max() == 1
    with pytest.raises(DataError, match="colour picture, and `windows` lung"):
        colour_values(colours, 12, ScanOptions(windows=("lung",)))


@pytest.mark.parametrize("value", ["1A", "Doe", object(), [1, "Doe"]])
def test_what_is_no_number_is_not_quoted(value: object) -> None:
    with pytest.raises(DataError, match="`Number Of Frames` is no number") as error:
        number({"NumberOfFrames": value}, "NumberOfFrames")
    assert "Doe" not in str(error.value)


def test_numbers_that_are_missing_or_infinite() -> None:
    with pytest.raises(DataError, match="lacks `Bits Stored`"):
        number({}, "BitsStored")
    with pytest.raises(DataError, match="not finite"):
        numbers({"RescaleSlope": float("nan")}, "RescaleSlope")
    assert number({}, "NumberOfFrames", 1) == 1
