"""What DICOM headers know of patients, where no table does; read back by pydicom itself."""

from pathlib import Path

import pytest

from lightning_transfer.data.scan_headers import fill_from_headers, header_columns
from lightning_transfer.types import Record
from tests.recipes.medical.conftest import draw, write_dicom

pydicom = pytest.importorskip("pydicom")

PIXELS = draw(0, mass=False, edema=False, size=8)
TAGS = {"PatientID": "7", "InstitutionName": "North", "ViewPosition": "PA", "PatientAge": "034Y", "PatientSex": "F",
        "Manufacturer": "ACME", "ManufacturerModelName": "X1"}  # fmt: skip


def test_patient_and_columns_are_the_headers(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", PIXELS, **TAGS)
    patient, columns = header_columns(str(path))
    assert patient == "7"
    assert columns == {
        "study": str(pydicom.dcmread(path).StudyInstanceUID),
        "site": "North",
        "view": "PA",
        "age": "34",
        "sex": "F",
        "scanner": "ACME X1",
    }


def test_the_number_comes_before_the_name_and_the_issuer_does_not_count(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", PIXELS, PatientID="7", IssuerOfPatientID="N")
    assert header_columns(str(path))[0] == "7"
    path = write_dicom(tmp_path / "b.dcm", PIXELS, PatientID="", PatientName="Roe")
    assert header_columns(str(path))[0] == "Roe"


def test_what_a_table_says_comes_first(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", PIXELS, **TAGS)
    [found] = fill_from_headers([Record("a", path, meta={"site": "South", "view": ""})])
    assert (found.group, found.meta["site"], found.meta["view"], found.meta["sex"]) == ("7", "South", "", "F")
    known = Record("a", path, group="p")
    assert fill_from_headers([known]) == [known]


def test_an_institution_may_be_hidden(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", PIXELS, **TAGS)
    [found] = fill_from_headers([Record("a", path)], str.upper)
    assert found.meta["site"] == "NORTH"
    [named] = fill_from_headers([Record("a", path, meta={"site": "South"})], str.upper)
    assert named.meta["site"] == "South"


def test_other_files_and_unknown_patients_stay_so(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", PIXELS, PatientID="", PatientName="")
    picture = tmp_path / "b.png"
    picture.write_bytes(b"x")
    rows = fill_from_headers([Record("a", path), Record("b", picture), Record("c", None)])
    assert [row.group for row in rows] == [None, None, None]


def test_a_broken_header_is_left_to_the_check_of_the_files(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", PIXELS)
    path.write_bytes(path.read_bytes()[:150])
    [found] = fill_from_headers([Record("a", path)])
    assert found.group in (None, "file a")
