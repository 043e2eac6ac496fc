from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data.dicom_folder import dicom_folder
from lightning_transfer.data.private_values import pseudonym
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.errors import DataError

pytest.importorskip("pydicom")

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
Make = Callable[..., Path]


@pytest.fixture
def folder(make_dicom: Make, tmp_path: Path) -> Path:
    make_dicom(
        PIXELS, name="set/Doe_Jane/a.dcm", ViewPosition="PA", PatientSex="F", PatientAge="093Y",
        InstitutionName="North", Manufacturer="ACME", ManufacturerModelName="X", DeviceSerialNumber="S1",
        InstanceNumber=4,
    )  # fmt: skip
    make_dicom(PIXELS, name="set/b", PatientID="OTHER", IssuerOfPatientID="North", ViewPosition="LL")
    make_dicom(PIXELS, name="set/c.dcm", PatientID="OTHER", Modality="CT")
    make_dicom(name="set/report.dcm", Modality="SR")
    (tmp_path / "set" / "readme.txt").write_text("Jane Doe")
    (tmp_path / "set" / ".hidden").write_text("Jane Doe")
    return tmp_path / "set"


def test_every_file_is_a_row_or_left_out_with_a_reason(folder: Path) -> None:
    rows, skipped = dicom_folder(folder, "salt")
    assert [row.path for row in rows] == ["Doe_Jane/a.dcm", "b", "c.dcm"]
    assert dict(skipped).keys() == {"readme.txt", "report.dcm"}
    assert "modality SR" in dict(skipped)["report.dcm"]


def test_identifiers_are_pseudonyms(folder: Path) -> None:
    rows, skipped = dicom_folder(folder, "salt")
    first = rows[0]
    assert first.patient == pseudonym("SECRET-77", "salt")
    assert first.study == pseudonym("1.2.3", "salt")
    assert first.site == pseudonym("North", "salt")
    assert first.device == pseudonym("S1", "salt")
    assert (first.scanner, first.view, first.sex, first.age, first.instance) == ("ACME X", "PA", "F", 90, 4)
    text = (
        str([row.facts for row in rows]) + str([row.patient for row in rows]) + str([reason for _, reason in skipped])
    )
    assert not any(name in text for name in ("Doe", "SECRET", "North", "S1", "OTHER", "1.2.3"))


def test_one_patient_is_one_whether_or_not_the_issuer_is_named(folder: Path) -> None:
    rows, _ = dicom_folder(folder, "salt")
    assert rows[1].patient == rows[2].patient != rows[0].patient


def test_without_a_patient_files_of_a_study_are_of_one(make_dicom: Make, tmp_path: Path) -> None:
    for name, study in (("a", "1.1"), ("b", "1.1"), ("c", "1.2")):
        make_dicom(PIXELS, name=f"set/{name}", PatientID=None, PatientName=None, StudyInstanceUID=study)
    rows, _ = dicom_folder(tmp_path / "set", "salt")
    assert rows[0].patient == rows[1].patient != rows[2].patient


def test_pseudonyms_without_salt_agree_within_a_call_alone(folder: Path) -> None:
    once, again = dicom_folder(folder).rows, dicom_folder(folder).rows
    assert once[1].patient == once[2].patient
    assert once[0].patient != again[0].patient


def test_other_modalities_are_left_out(folder: Path) -> None:
    rows, skipped = dicom_folder(folder, "s", options=ScanOptions(modalities=("CT",)))
    assert [row.path for row in rows] == ["c.dcm"]
    assert "modality is DX, expected CT" in dict(skipped)["b"]


def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "Doe_Jane" / "up").symlink_to(folder, target_is_directory=True)
    assert len(dicom_folder(folder, "s").rows) == 3


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none"):
        dicom_folder(tmp_path / "none")
