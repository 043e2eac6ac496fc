from __future__ import annotations

import pytest

from lightning_transfer.data.reading import leave_out_unusable
from lightning_transfer.data.tables import Skipped
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record


def _records(*names: str) -> list[Record]:
    return [Record(id=name, input=name) for name in names]


def test_repeated_ids_are_refused_with_their_names() -> None:
    with pytest.raises(DataError, match=r"1 ids appear more than once: .*b.*unique"):
        leave_out_unusable(_records("a", "b", "b"), [], None)


def test_without_a_check_all_stay() -> None:
    records = _records("a", "b")
    assert leave_out_unusable(records, [], None) == records


def test_positions_count_all_rows_that_the_reader_saw() -> None:
    # The reader left out row 1 of five; the check finds the second and the last of the four others unusable.
    records = _records("row0", "row2", "row3", "row4")
    skipped = [Skipped(Record(id="row1", input=None), "no label", 1)]

    def check(found: list[Record]) -> tuple[list[Record], list[Skipped]]:
        return [found[0], found[2]], [Skipped(found[1], "broken", 1), Skipped(found[3], "empty", 3)]

    with pytest.warns(UserWarning, match=r"3 of 5 records are left out: .*row1 \(no label\).*row4 \(empty\)"):
        usable = leave_out_unusable(records, skipped, check)
    assert [record.id for record in usable] == ["row0", "row3"]
    assert [(item.record.id, item.position) for item in skipped] == [("row1", 1), ("row2", 2), ("row4", 4)]
