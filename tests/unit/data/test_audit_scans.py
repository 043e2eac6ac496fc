"""What is said of patients, and of medical images by what their files say."""

from lightning_transfer.data.audit_scans import patient_findings, scan_findings
from lightning_transfer.data.scan_options import ScanFacts
from lightning_transfer.types import Record


def rows(count: int, labels=None, meta=None) -> list[Record]:
    return [
        Record(f"r{i}", None, "ill" if i % 2 else "well", "train", f"p{i}", {} if meta is None else meta(i))
        for i in range(count)
    ]


def facts(count: int, **change) -> list[ScanFacts]:
    made = []
    for i in range(count):
        values = {key: value(i) if callable(value) else value for key, value in change.items()}
        made.append(ScanFacts(**{"kind": "dicom", "height": 8, "width": 8, "bits": 12, **values}))
    return made


def codes(records, found) -> dict[str, object]:
    return {finding.code: finding for finding in scan_findings(records, found, ["well", "ill"])}


def test_patients_are_counted_in_each_split() -> None:
    records = [
        Record("a", None, "x", "train", "p1"),
        Record("b", None, "x", "train", "p1"),
        Record("c", None, "x", "test", "p2"),
        Record("d", None, "x", "predict", "p3"),
    ]
    [found] = patient_findings(records)
    assert found.message == "3 images of 2 patients (train 1, test 1); up to 2 of one, median 1."
    assert patient_findings([Record("a", None)]) == []


def test_a_patient_of_both_sexes_is_two() -> None:
    records = [Record(str(i), None, "x", "train", "p1", {"sex": sex}) for i, sex in enumerate(["F", "male", "O", ""])]
    assert [found.code for found in patient_findings(records)] == ["patients", "patient-contradiction"]
    assert len(patient_findings(records[:1] + records[2:])) == 1


def test_text_in_the_pixels_is_said() -> None:
    found = codes(rows(6), facts(6, burned_in=lambda i: (True, False, None)[i % 3], modality="CR"))
    assert found["burned-in-annotation"].examples == ("r0", "r3")
    assert found["burned-in-unknown"].count == 2
    assert not {"burned-in-annotation", "burned-in-unknown"} & codes(rows(4), facts(4, burned_in=False)).keys()


def test_pictures_of_no_modality_say_nothing_of_text() -> None:
    assert "burned-in-unknown" not in codes(rows(4), facts(4, kind="picture"))


def test_another_modality_is_said() -> None:
    found = codes(rows(5), facts(5, modality=lambda i: "CT" if i == 3 else "CR"))["other-modality"]
    assert found.examples == ("r3",)
    assert "CR 4, CT 1" in found.message
    assert "other-modality" not in codes(rows(5), facts(5, modality="CR"))


def test_spacing_that_differs_is_a_warning() -> None:
    close = codes(rows(4), facts(4, spacing=lambda i: (0.1 + 0.02 * i, 0.1)))["pixel-spacing"]
    assert close.severity == "note"
    far = codes(rows(4), facts(4, spacing=lambda i: None if i == 1 else (0.14, 0.14) if i else (0.9, 0.9)))
    assert far["pixel-spacing"].severity == "warning"
    assert far["pixel-spacing"].examples == ("r0",)
    assert "1 images do not say" in far["pixel-spacing"].message
    assert "pixel-spacing" not in codes(rows(4), facts(4))


def test_the_depth_is_named() -> None:
    found = codes(rows(4), facts(4, bits=lambda i: 16 if i else 8))["bits"]
    assert found.message == "Depth of the images: 8 bits 1, 16 bits 3."


def test_what_the_file_says_may_tell_the_label() -> None:
    """The table has no column of it: photometric interpretation, bits, scanner."""
    made = facts(
        40,
        photometric=lambda i: "MONOCHROME1" if i % 2 else "MONOCHROME2",
        manufacturer=lambda i: "ACME" if i % 2 else "OTHER",
        bits=12,
    )
    told = [found for found in scan_findings(rows(40), made, ["well", "ill"]) if found.code == "column-tells-label"]
    assert {found.message.split("`")[1] for found in told} == {"photometric", "scanner"}


def test_a_column_of_the_table_comes_before_what_the_file_says() -> None:
    made = facts(40, view=lambda i: "PA" if i % 2 else "AP")
    records = rows(40, meta=lambda i: {"view": "PA", "site": "north" if i % 2 else "south"})
    told = [found for found in scan_findings(records, made, ["well", "ill"]) if found.code == "column-tells-label"]
    assert {found.message.split("`")[1] for found in told} == {"site"}


def test_nothing_is_said_of_nothing() -> None:
    assert scan_findings([], [], []) == []
