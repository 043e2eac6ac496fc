"""The form of medical images writes its readers beside the script; the whole verb is tested with the recipe."""

from pathlib import Path

import pytest

from lightning_transfer.cli.export_scans import ScanForm
from lightning_transfer.errors import DataError
from lightning_transfer.export import SCAN_PARTS
from tests.recipes.medical.conftest import draw, write_dicom


def form() -> ScanForm:
    return ScanForm.__new__(ScanForm)  # neither method needs a model


def test_the_script_lies_beside_its_readers(tmp_path: Path) -> None:
    form().write_script(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["predict_onnx_scan.py", SCAN_PARTS]
    names = {item.name for item in (tmp_path / SCAN_PARTS).iterdir()}
    assert {"scan_files.py", "predict_onnx.py", "errors.py"} <= names


def test_samples_are_images_below_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no DICOM files and no pictures"):
        form().samples(str(tmp_path), 3)
    for number in range(4):
        write_dicom(tmp_path / f"IM{number}", draw(number, mass=False, edema=False))
    found = form().samples(str(tmp_path), 3)
    assert [record.input for record in found.records] == [tmp_path / f"IM{number}" for number in (0, 2, 3)]
    assert found.rule == f"3 of 4 images below `{tmp_path}`"
