"""By group or by time, with the splits that the data bring along or without them."""

from dataclasses import replace

import pytest

from lightning_transfer.data import assign_splits, assign_splits_by_time
from lightning_transfer.data.division import Division
from lightning_transfer.types import Record

ROWS = [
    Record(str(day), "text", "ab"[day % 2], split="test" if day < 5 else None, meta={"time": f"2025-01-{day:02}"})
    for day in range(1, 31)
]
FRACTIONS = {"val_fraction": 0.2, "calibration_fraction": 0.1, "test_fraction": 0.2}


def test_by_group_it_is_assign_splits() -> None:
    division = Division(**FRACTIONS, split_seed=3)
    assert division.divide(ROWS) == (assign_splits(ROWS, **FRACTIONS, seed=3), [])
    assert division.keeps_splits_of(ROWS)


def test_given_splits_can_be_ignored() -> None:
    division = Division(**FRACTIONS, given_splits="ignore")
    found, _ = division.divide(ROWS)
    assert {record.split for record in found[:4]} != {"test"}
    assert not division.keeps_splits_of(ROWS)


def test_by_time_the_newest_are_the_test() -> None:
    division = Division(**FRACTIONS, split_by_time="time", given_splits="ignore")
    found, said = division.divide(ROWS)
    bare = [Record(row.id, "text", row.label, meta=row.meta) for row in ROWS]
    assert (found, said) == assign_splits_by_time(bare, "time", **FRACTIONS)
    assert [record.id for record in found if record.split == "test"] == [str(day) for day in range(25, 31)]
    assert [finding.code for finding in said] == ["time-split"] * 3


@pytest.mark.parametrize(
    ("division", "wanted"),
    [
        (Division(0.2, 0, 0.2), {"val": True, "calibration": False, "test": True}),
        (Division(0, 0.1, 0, num_folds=5), {"val": False, "calibration": True, "test": True}),
    ],
)
def test_it_knows_which_splits_it_makes(division: Division, wanted: dict) -> None:
    assert division.wanted == wanted


def test_texts_are_divided_by_group_and_size_alone() -> None:
    rows = [
        Record(str(n), None, f"text {n}", group=f"g{n // 4}", meta={"time": f"2025-01-{n % 28 + 1:02}"})
        for n in range(80)
    ]
    division = Division(**FRACTIONS, split_seed=1)
    found, _ = division.divide(rows, by_label=False)
    plain, _ = division.divide([replace(row, label=None) for row in rows])
    assert [row.split for row in found] == [row.split for row in plain]
    assert [row.label for row in found] == [row.label for row in rows]
    assert sum(row.split == "test" for row in found) == 16
    by_time = Division(0.0, 0.0, 0.2, split_by_time="time")
    assert [row.label for row in by_time.divide(rows, by_label=False)[0]] == [row.label for row in rows]
