"""Tables of findings: every column can be named, values mean what they say, and messages name no patient."""

import csv
import time
from pathlib import Path

import pytest

from lightning_transfer.data.findings_table import TableColumns, plain_age, read_findings, suggest_patient
from lightning_transfer.errors import DataError
from lightning_transfer.scans import ImagePart

COLUMNS = ["path", "patient", "study", "site", "view", "age", "sex", "edema", "mass"]
ROWS = [
    ["doe/a.png", "DOE^JANE", "S1", "north", "PA", "054Y", "F", "1", "0"],
    ["doe/b.png", "DOE^JANE", "S2", "north", "AP", "54.0", "F", "-1", ""],
    ["roe/c.png", "ROE^RICHARD", "S3", "south", "PA", "6M", "M", "0.0", "-1.0"],
]


def write(folder: Path, rows=ROWS, columns=COLUMNS) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return path


def read(folder: Path, rows=ROWS, columns=COLUMNS, **options):
    known = {"findings": ["edema", "mass"]}
    return read_findings(write(folder, rows, columns), folder, **{**known, **options})


def test_rows_become_records_with_patients_as_groups(tmp_path: Path) -> None:
    found = read(tmp_path)
    first, second, third = found.records
    assert [record.id for record in found.records] == ["doe/a.png", "doe/b.png", "roe/c.png"]
    assert first.input == tmp_path / "doe" / "a.png"
    assert [record.group for record in found.records] == ["DOE^JANE", "DOE^JANE", "ROE^RICHARD"]
    assert first.meta == {"study": "S1", "site": "north", "view": "PA", "age": "54", "sex": "F"}
    assert third.meta["age"] == "0.5"
    assert [record.label for record in found.records] == [(1.0, 0.0), (None, None), (0.0, None)]
    assert found.uncertain == {second.id: (0,), third.id: (1,)}


def test_every_column_can_be_named_and_others_are_kept_or_not(tmp_path: Path) -> None:
    columns = ["File", "Who", "Exam", "Where", "How", "Old", "Gender", "Fold", "Frame", "Edema", "Mass", "note"]
    rows = [["a.dcm", "1", "2", "A", "PA", "60", "M", "valid", "3", "1", "", "seen by X"],
            ["a.dcm", "1", "2", "A", "PA", "60", "M", "train", "4", "1", "", "seen by X"]]  # fmt: skip
    names = TableColumns(
        path="File", patient="Who", study="Exam", site="Where", view="How", age="Old", sex="Gender", split="Fold",
        index="Frame",
    )  # fmt: skip
    found = read_findings(write(tmp_path, rows, columns), tmp_path, findings=["Edema", "Mass"], columns=names)
    one, other = found.records
    assert (one.id, other.id) == ("a.dcm#3", "a.dcm#4")
    assert one.input == ImagePart(str(tmp_path / "a.dcm"), 3)
    assert (one.split, other.split) == ("val", "train")
    assert one.meta == {"study": "2", "site": "A", "view": "PA", "age": "60", "sex": "M", "note": "seen by X"}
    bare = read_findings(tmp_path / "table.csv", tmp_path, findings=["Edema"], columns=names, extra_columns=[])
    assert "note" not in bare.records[0].meta


def test_patterns_find_patient_and_study_in_the_path(tmp_path: Path) -> None:
    rows = [["p07/s1/a.png", "1"], ["p08/s2/b.png", "0"]]
    found = read(
        tmp_path, rows, ["path", "edema"], findings=["edema"], patient_pattern="p([0-9]+)", study_pattern="s([0-9])"
    )
    assert [record.group for record in found.records] == ["07", "08"]
    assert [record.meta["study"] for record in found.records] == ["1", "2"]
    with pytest.raises(DataError, match=r"row 2: `patient_pattern` `q\(x\)` finds nothing in the path of `a.png`"):
        read(tmp_path, rows, ["path", "edema"], findings=["edema"], patient_pattern="q(x)")


def test_a_class_column_is_read_as_it_is(tmp_path: Path) -> None:
    rows = [["a.png", "covid"], ["b.png", ""]]
    found = read(tmp_path, rows, ["path", "binary"], findings=[], label_column="binary")
    assert [record.label for record in found.records] == ["covid", None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({7: "2"}, r"row 3: `edema` is `2`. Expected 1, 0, -1"),
        ({7: "yes"}, r"row 3: `edema` is `yes`"),
        ({0: ""}, r"row 3: the column `path` is empty"),
        ({0: "doe/a.png"}, r"row 3: the image `a.png` is already that of row 2"),
        ({0: "../../etc/passwd"}, r"row 3: .* leaves the root"),
        ({0: "/etc/passwd"}, r"row 3: .* leaves the root"),
    ],
)
def test_a_bad_row_is_named_by_its_number_and_can_be_skipped(tmp_path: Path, change, message: str) -> None:
    rows = [list(row) for row in ROWS]
    for place, value in change.items():
        rows[1][place] = value
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, rows)
    assert "DOE" not in str(caught.value)
    found = read(tmp_path, rows, on_bad_file="skip")
    assert len(found.records) == 2
    assert [(skip.record.id, skip.position) for skip in found.skipped] == [("row 3", 1)]


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (root / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="leaves the root"):
        read_findings(write(root, [["a.png", "1"]], ["path", "edema"]), root, findings=["edema"])


def test_an_unknown_column_and_one_with_two_roles(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No column `edemma` .* Did you mean `edema`"):
        read(tmp_path, findings=["edemma"])
    with pytest.raises(DataError, match=r"`view` of .* has two roles"):
        read_findings(write(tmp_path), tmp_path, findings=["edema"], columns=TableColumns(site="view", view="view"))


def test_prediction_needs_no_labels(tmp_path: Path) -> None:
    rows = [row[:7] for row in ROWS]
    found = read(tmp_path, rows, COLUMNS[:7], label_optional=True)
    assert [record.label for record in found.records] == [None, None, None]
    with pytest.raises(DataError, match="No column `edema`"):
        read(tmp_path, rows, COLUMNS[:7])


def test_what_looks_like_a_patient_is_suggested() -> None:
    assert suggest_patient(["a", "SubjectID"]) == " `SubjectID` looks like it."
    assert suggest_patient(["a", "b"]) == ""


@pytest.mark.parametrize(("text", "years"), [("", ""), ("090Y", "90"), ("26W", "0.4983"), ("40", "40"), ("x", "x")])
def test_ages(text: str, years: str) -> None:
    assert plain_age(text) == years


def test_time_and_memory_grow_with_the_rows_alone(tmp_path: Path) -> None:
    """A tenth of a million rows here; the whole million is measured in the benchmarks' way, by hand."""
    count = 100_000
    path = tmp_path / "large.csv"
    with path.open("w", newline="") as stream:
        stream.write("path,patient,site,view,age,sex," + ",".join(f"f{i}" for i in range(14)) + "\n")
        for row in range(count):
            labels = ",".join(("1", "0", "-1", "")[(row + place) % 4] for place in range(14))
            stream.write(f"p{row // 7}/{row}.png,p{row // 7},s{row % 5},PA,{row % 90},F,{labels}\n")
    begin = time.perf_counter()
    found = read_findings(path, tmp_path, findings=[f"f{i}" for i in range(14)])
    assert time.perf_counter() - begin < 60
    assert len(found.records) == count
    assert len({id(record.label) for record in found.records}) <= 16, "labels that are alike are held once"
    assert len({id(record.meta) for record in found.records}) <= 5 * 90
