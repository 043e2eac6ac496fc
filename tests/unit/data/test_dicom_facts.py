import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data.dicom_facts import dicom_facts, frame_header
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.errors import DataError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402

PIXELS = np.arange(48, dtype=np.uint16).reshape(6, 8)
Make = Callable[..., Path]


def test_what_the_header_says(make_dicom: Make) -> None:
    path = make_dicom(
        PIXELS, BitsStored=12, PhotometricInterpretation="MONOCHROME1", Modality="CR", ViewPosition="PA",
        Manufacturer="ACME", ManufacturerModelName="X-1", BurnedInAnnotation="YES", ImagerPixelSpacing=[0.2, 0.1],
        PatientOrientation=["L", "F"], PatientAge="093Y", PatientSex="F", InstitutionName="St. Doe",
    )  # fmt: skip
    facts = dicom_facts(path)
    assert (facts.kind, facts.height, facts.width, facts.bits, facts.frames) == ("dicom", 6, 8, 12, 1)
    assert (facts.photometric, facts.modality, facts.view) == ("MONOCHROME1", "CR", "PA")
    assert (facts.scanner, facts.burned_in, facts.spacing) == ("ACME X-1", True, (0.2, 0.1))
    assert (facts.orientation, facts.tags["PatientAge"], facts.range_from) == ("L/F", "090Y", "")
    assert not any(name in str(facts) for name in ("Doe", "SECRET", "1950", "1.2.3"))


@pytest.mark.parametrize(("value", "burned_in"), [("YES", True), ("NO", False), (None, None), ("MAYBE", None)])
def test_burned_in_is_unknown_where_it_is_not_said(make_dicom: Make, value: str | None, burned_in: bool | None) -> None:
    assert dicom_facts(make_dicom(PIXELS, BurnedInAnnotation=value)).burned_in is burned_in


@pytest.mark.parametrize(
    ("axes", "plane"),
    [
        ([1, 0, 0, 0, 1, 0], "axial"),
        ([1, 0, 0, 0, 0, -1], "coronal"),
        ([0, 1, 0, 0, 0, -1], "sagittal"),
        ([0.9, 0.1, 0, 0, 1, 0], "axial"),
    ],
)
def test_the_plane_is_that_of_the_normal(make_dicom: Make, axes: list[float], plane: str) -> None:
    assert dicom_facts(make_dicom(PIXELS, ImageOrientationPatient=axes)).orientation == plane


def test_pixel_spacing_comes_before_that_of_the_detector(make_dicom: Make) -> None:
    facts = dicom_facts(make_dicom(PIXELS, PixelSpacing=[2, 3], ImagerPixelSpacing=[4, 5]))
    assert facts.spacing == (2, 3)
    with pytest.raises(DataError, match="0 and 1 mm, which cannot be"):
        dicom_facts(make_dicom(PIXELS, PixelSpacing=[0, 1]))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Rows": None}, "lacks `Rows`"),
        ({"Rows": None, "Columns": None}, "no picture .*modality DX"),
        ({"BitsAllocated": None, "SamplesPerPixel": None}, "lacks `BitsAllocated`, `SamplesPerPixel`"),
        ({"PhotometricInterpretation": None}, "lacks `PhotometricInterpretation`"),
        ({"Rows": 0}, "0 rows"),
        ({"BitsStored": 17}, "17 bits stored in 16"),
        ({"SamplesPerPixel": 3}, "does not fit 3 samples"),
        ({"PhotometricInterpretation": "RGB"}, "does not fit 1 samples"),
        ({"NumberOfFrames": 0}, "0 frames"),
    ],
)
def test_headers_that_cannot_be_are_refused(make_dicom: Make, tags: dict, reason: str) -> None:
    with pytest.raises(DataError, match=rf"`a.dcm`: .*{reason}"):
        dicom_facts(make_dicom(PIXELS, **tags))


def test_limits_of_the_options(make_dicom: Make) -> None:
    path = make_dicom(PIXELS)
    with pytest.raises(DataError, match="its modality is DX, expected CT or MR"):
        dicom_facts(path, ScanOptions(modalities=("CT", "MR")))
    assert dicom_facts(path, ScanOptions(modalities=("DX",))).modality == "DX"
    with pytest.raises(DataError, match=r"8 x 6 pixels .*raise `max_megapixels`"):
        dicom_facts(path, ScanOptions(max_megapixels=4e-5))


def test_a_modality_that_is_no_code_is_not_quoted(make_dicom: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom while it writes
        path = make_dicom(PIXELS, Modality="Jane Doe")
    assert dicom_facts(path).modality == ""
    with pytest.raises(DataError, match="modality is unknown"):
        dicom_facts(path, ScanOptions(modalities=("CT",)))


def _groups(**sequences: Dataset) -> Dataset:
    found = Dataset()
    for keyword, item in sequences.items():
        setattr(found, keyword, [item])
    return found


def test_what_enhanced_objects_say_of_a_frame_counts_for_it(make_dicom: Make) -> None:
    rescale, measures = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -1000
    measures.PixelSpacing = [0.5, 0.6]
    windows = []
    for place in range(2):
        window = Dataset()
        window.WindowCenter, window.WindowWidth = 10 * place, 100
        windows.append(_groups(FrameVOILUTSequence=window))
    shared = _groups(PixelValueTransformationSequence=rescale, PixelMeasuresSequence=measures)
    path = make_dicom(
        np.stack([PIXELS, PIXELS]), SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=windows
    )
    assert dicom_facts(path).spacing == (0.5, 0.6)
    assert dicom_facts(path).frames == 2
    header = frame_header(pydicom.dcmread(path), 1)
    assert (header.RescaleSlope, header.WindowCenter, header.Rows) == (2, 10, 6)
    with pytest.raises(DataError, match="describes 2 frames"):
        frame_header(pydicom.dcmread(path), 2)
