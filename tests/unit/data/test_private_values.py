import hashlib
import hmac

import pytest

from lightning_transfer.data.private_values import KEPT_TAGS, age_in_years, kept_tags, pseudonym

IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientIDs", "PatientBirthDate", "PatientAddress", "AccessionNumber",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyDate", "AcquisitionDateTime", "StudyID",
    "InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "OperatorsName", "StationName",
    "DeviceSerialNumber", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "PatientComments",
)  # fmt: skip


def test_pseudonyms_are_the_keyed_hash_of_the_standard_library() -> None:
    expected = hmac.new(b"salt", b"12345", hashlib.sha256).hexdigest()[:12]
    assert pseudonym("12345", "salt") == pseudonym(" 12345\0", "salt") == expected


def test_another_salt_or_value_gives_another_pseudonym() -> None:
    assert len({pseudonym(value, salt) for value in ("1", "2", "01") for salt in ("a", "b")}) == 6


def test_no_salt_is_refused() -> None:
    with pytest.raises(ValueError, match="salt"):
        pseudonym("12345", "")


def test_the_keep_list_names_nobody() -> None:
    assert not set(IDENTIFYING) & set(KEPT_TAGS)
    assert kept_tags(dict.fromkeys(IDENTIFYING, "DOE")) == {}


def test_keywords_of_the_keep_list_exist() -> None:
    datadict = pytest.importorskip("pydicom.datadict")
    assert all(datadict.tag_for_keyword(keyword) is not None for keyword in KEPT_TAGS)


def test_no_kept_tag_is_of_a_kind_that_holds_names_dates_or_long_texts() -> None:
    datadict = pytest.importorskip("pydicom.datadict")
    kinds = {keyword: datadict.dictionary_VR(datadict.tag_for_keyword(keyword)) for keyword in KEPT_TAGS}
    free = {keyword for keyword, kind in kinds.items() if kind not in ("CS", "DS", "IS", "US", "FD", "FL", "AS")}
    assert free == {"Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "RescaleType"}
    assert kept_tags({"RescaleType": "Doe"}) == {}  # held to codes


@pytest.mark.parametrize("value", ["Mrs. Doe", "Doe^Jane", "a" * 17, "", ["PA", "Doe^Jane"]])
def test_what_is_no_code_is_dropped(value: object) -> None:
    assert kept_tags({"ViewPosition": value}) == {}


@pytest.mark.parametrize("value", ["Doe", "12 Doe", [0.1, "Doe"]])
def test_what_is_no_number_is_dropped(value: object) -> None:
    assert kept_tags({"KVP": value, "Rows": 4}) == {"Rows": "4"}


@pytest.mark.parametrize(
    ("value", "years"),
    [("030Y", 30), ("006M", 0.5), ("052W", 52 * 7 / 365.25), ("010D", 10 / 365.25), ("089Y", 89), ("104Y", 90)],
)
def test_ages(value: str, years: float) -> None:
    assert age_in_years(value) == pytest.approx(years)


@pytest.mark.parametrize("value", ["", "30", "30Y", "Y030", "030Y old"])
def test_what_is_no_age(value: str) -> None:
    assert age_in_years(value) is None


def test_high_ages_are_one() -> None:
    assert {kept_tags({"PatientAge": f"{age:03d}Y"})["PatientAge"] for age in (90, 91, 104)} == {"090Y"}
    assert kept_tags({"PatientAge": "089Y"}) == {"PatientAge": "089Y"}
