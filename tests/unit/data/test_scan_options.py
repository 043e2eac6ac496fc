import json

import pytest

from lightning_transfer.data.scan_options import WINDOWS, ScanFacts, ScanOptions, window_limits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": ("lungs",)}, r"Unknown window `lungs`. Did you mean `lung`\?"),
        ({"windows": "lung"}, r"Write `windows: \[lung\]`"),
        ({"windows": ("40/0",)}, "width above 0, got the window `40/0`"),
        ({"windows": ("40/-400",)}, "width above 0"),
        ({"windows": ("40",)}, "center and width"),
        ({"scale": "max"}, "`max`"),
        ({"scale": "min_max", "windows": ("lung",)}, "`windows` contradict"),
        ({"scale": "min_max", "nifti_window": (0, 1)}, "`nifti_window` contradict"),
        ({"windows": ("lung",), "nifti_window": (0, 1)}, "contradict"),
        ({"frame": -1}, "`frame` of at least 0, got -1"),
        ({"voi_index": -2}, "-2"),
        ({"bit_depth": 17}, "17"),
        ({"nifti_window": (1, 1)}, r"\[1, 1\]"),
        ({"nifti_window": (0, float("inf"))}, "inf"),
        ({"nifti_window": (0, 1, 2)}, r"\[0, 1, 2\]"),
        ({"nan_value": float("nan")}, "nan"),
        ({"max_oblique": 50}, "50"),
        ({"max_megapixels": 0}, "got 0"),
        ({"modalities": "CT"}, r"\[CT\]"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScanOptions(**options)


def test_options_survive_json() -> None:
    options = ScanOptions(
        windows=["lung", "40/400", "skin=-1.5/.5"], voi=False, voi_index=1, frame=2, bit_depth=12, nan_value=-1000.0,
        modalities=["CT"], max_oblique=10.0, max_megapixels=3.0,
    )  # fmt: skip
    assert ScanOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
    window = ScanOptions(nifti_window=[-100, 300])
    assert ScanOptions.from_dict(json.loads(json.dumps(window.to_dict()))) == window
    assert hash(options) != hash(window)


def test_a_checkpoint_keeps_its_window_when_the_name_comes_to_mean_another() -> None:
    options = ScanOptions.from_dict({"windows": ["lung=-500/1400"]})
    assert window_limits(options.windows[0]) == (-1200, 200)


@pytest.mark.parametrize("name", WINDOWS)
def test_named_windows_are_center_and_width(name: str) -> None:
    center, width = WINDOWS[name]
    assert window_limits(name) == window_limits(f"{center}/{width}") == (center - width / 2, center + width / 2)


def test_the_scanner_has_one_name() -> None:
    assert ScanFacts("dicom", 1, 1, manufacturer="ACME").scanner == "ACME"
    assert ScanFacts("dicom", 1, 1).scanner == ""
