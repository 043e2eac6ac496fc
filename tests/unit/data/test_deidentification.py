"""Nothing that names a patient is left in a record, and the same names come back each time."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lightning_transfer.data.deidentification import PUBLIC_KEY, Pseudonyms, read_key
from lightning_transfer.data.tables import Skipped
from lightning_transfer.errors import DataError
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

KEY = "an example of a secret"
META = {
    "study": "DOE-7",
    "site": "north",
    "view": "PA",
    "age": "93",
    "sex": "F",
    "scanner": "X",
    "name": "DOE",
    "kind": "k",
}
ROW = Record("DOE/1.png", Path("/data/DOE/1.png"), "x", "train", "DOE^JANE", META)


def test_no_identifier_is_left() -> None:
    hidden = Pseudonyms(KEY).record(ROW)
    public = {**asdict(hidden), "input": None}
    assert "DOE" not in json.dumps(public, default=str)
    assert set(hidden.meta) == {"study", "site", "view", "age", "sex", "scanner"}
    assert hidden.meta["age"] == "90"
    assert (hidden.label, hidden.split) == ("x", "train")
    # Not a path: tables, neighbours and reports write those, and only those.
    assert hidden.input == ImagePart("/data/DOE/1.png")
    assert not isinstance(hidden.input, str | Path)


def test_pseudonyms_are_the_same_each_time_and_others_with_another_key() -> None:
    one, again, other = (Pseudonyms(key).record(ROW) for key in (KEY, KEY, "another secret key"))
    assert (one.id, one.group, one.meta) == (again.id, again.group, again.meta)
    assert one.id != other.id
    assert one.group != other.group


def test_kept_columns_stay_and_ages_below_ninety_too() -> None:
    names = Pseudonyms(KEY, kept=["kind"])
    assert names.record(ROW).meta["kind"] == "k"
    young = Record("a", None, meta={"age": "89"})
    assert names.record(young).meta["age"] == "89"
    assert names.record(Record("a", None, meta={"age": "adult"})).meta["age"] == "adult"


def test_slices_of_a_volume_keep_their_numbers() -> None:
    names = Pseudonyms(KEY)
    parts = [Record(f"DOE.nii#{i}", ImagePart("DOE.nii", i), group="DOE") for i in range(2)]
    found = [names.record(part).id for part in parts]
    assert found == [f"{names.of('DOE.nii')}#0", f"{names.of('DOE.nii')}#1"]


def test_what_was_left_out_is_hidden_too() -> None:
    names = Pseudonyms(KEY)
    assert names.skipped(Skipped(ROW, "empty", 3)).record.id == names.of("DOE/1.png")
    row = Skipped(Record("row 4", None), "empty", 2)
    assert names.skipped(row) is row


def test_the_table_says_whose_they_are_and_grows(tmp_path: Path) -> None:
    names = Pseudonyms(KEY)
    path = tmp_path / "whose.csv"
    names.write(path, [ROW], Path("/data"))
    names.write(path, [Record("ROE/2.png", Path("/data/ROE/2.png"), group="ROE")], Path("/data"))
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["path"], row["patient"], row["study"]) for row in rows] == [
        ("DOE/1.png", "DOE^JANE", "DOE-7"),
        ("ROE/2.png", "ROE", ""),
    ]
    assert rows[0]["id"] == names.record(ROW).id
    assert rows[0]["patient_pseudonym"] == names.record(ROW).group
    assert rows[0]["study_pseudonym"] == names.record(ROW).meta["study"]
    assert oct(path.stat().st_mode)[-3:] == "600"


def test_the_key_is_read_from_a_file_or_public(tmp_path: Path) -> None:
    assert read_key(None) == PUBLIC_KEY
    file = tmp_path / "key"
    with pytest.raises(DataError, match=r"Cannot read the key .*secrets\.token_hex"):
        read_key(file)
    file.write_text("short\n")
    with pytest.raises(DataError, match="5 characters"):
        read_key(file)
    file.write_text("0123456789abcdef\n")
    assert read_key(file) == "0123456789abcdef"
