"""Every input is looked at once; what is unusable stops, or is listed with its place."""

import pytest

from lightning_transfer.data.file_checks import check_files
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

RECORDS = [Record(str(number), number) for number in (3, 0, 5, -1)]


def _check(value: int) -> float:
    if value < 1:
        raise DataError(f"{value} is below 1.")
    return 1 / value


def test_good_and_bad_keep_their_order_and_places() -> None:
    facts: dict[str, float] = {}
    good, bad = check_files(RECORDS, _check, "numbers", "skip", facts=facts, show_progress=True)
    assert [row.id for row in good] == ["3", "5"]
    assert [(skip.record.id, skip.reason, skip.position) for skip in bad] == [
        ("0", "0 is below 1.", 1),
        ("-1", "-1 is below 1.", 3),
    ]
    assert facts == {"3": 1 / 3, "5": 0.2}


def test_an_error_names_the_first_ones() -> None:
    with pytest.raises(DataError, match=r"2 of 4 numbers cannot be used:\n  0: 0 is below 1(.|\n)*`on_bad_file: skip`"):
        check_files(RECORDS, _check, "numbers")
    with pytest.raises(DataError, match=r"2 of 2 numbers cannot be used(.|\n)*Check the root and the files"):
        check_files([RECORDS[1], RECORDS[3]], _check, "numbers", "skip")


def test_other_errors_are_not_taken_for_bad_data() -> None:
    def broken(value: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_files(RECORDS, broken, "numbers", "skip")
