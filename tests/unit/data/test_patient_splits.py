"""Patients must be known, and other sites are the test where that is asked for."""

import pytest

from lightning_transfer.data.patient_splits import external_test, patients_by_site, require_patients
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

ROWS = [
    Record("a", "x/a.png", "ill", None, "1", {"site": "north"}),
    Record("b", "x/b.png", "well", None, None, {"site": "north"}),
    Record("c", "x/c.png", "ill", "val", "2", {"site": "south"}),
]


def test_an_unknown_patient_is_an_error_that_names_the_column() -> None:
    with pytest.raises(DataError, match=r"1 of 3 images have no patient \(b\.png\).*`PatientID` looks like it"):
        require_patients(ROWS, "error", ["path", "PatientID"])
    with pytest.raises(DataError, match=r"^No patient is known.*unknown_patients: each_image"):
        require_patients(ROWS[1:2], "error")


def test_each_image_alone_is_allowed_and_said() -> None:
    found, [said] = require_patients(ROWS, "each_image")
    assert said.code == "unknown-patients"
    assert (said.severity, said.count) == ("warning", 1)
    assert len({record.group for record in found}) == 3
    assert require_patients([ROWS[0]], "error") == ([ROWS[0]], [])


def test_images_of_one_study_stay_together() -> None:
    rows = [Record(str(i), None, group=None, meta={"study": "s1"} if i < 2 else {}) for i in range(3)]
    found, [said] = require_patients(rows, "each_image")
    assert len({record.group for record in found}) == 2
    assert found[0].group == found[1].group
    assert said.count == 3


def test_sites_that_number_their_own_patients() -> None:
    rows = [Record(str(i), None, group="7", meta={"site": site}) for i, site in enumerate(["north", "south"])]
    assert [row.group for row in patients_by_site(rows)] == ["north/7", "south/7"]
    assert patients_by_site([ROWS[1]])[0].group is None


def test_external_sites_are_the_test() -> None:
    found, [said] = external_test(ROWS, ["south"], ignore_given=False)
    assert [record.split for record in found] == [None, None, "test"]
    assert "1 images of 1 patients of the site `south`" in said.message


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["sout"], r"No image is of the site `sout` .*Did you mean `south`.*north 2"),
        (["north", "south"], "names all 2 sites"),
    ],
)
def test_wrong_sites(sites, message: str) -> None:
    with pytest.raises(DataError, match=message):
        external_test(ROWS, sites, ignore_given=False)


def test_two_tests_are_not_mixed() -> None:
    rows = [*ROWS, Record("d", None, "ill", "test", "3", {"site": "north"})]
    with pytest.raises(DataError, match="two tests would be mixed"):
        external_test(rows, ["south"], ignore_given=False)
    found, _ = external_test(rows, ["south"], ignore_given=True)
    assert [record.split for record in found] == [None, None, "test", None]
