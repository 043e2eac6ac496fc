import csv
import os
import random
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data.audit_columns import group_column_findings, parse_times, time_findings
from lightning_transfer.data.splits import assign_splits
from lightning_transfer.types import Finding, Record


def _column(name: str, values: list[object], splits: list[str], group: str | None = None) -> list[Record]:
    return [
        Record(f"r{i}", None, "a", split, group=group and f"{group}{i}", meta={name: value})  # type: ignore[arg-type]
        for i, (value, split) in enumerate(zip(values, splits, strict=True))
    ]


def _overlaps(records: list[Record]) -> list[Finding]:
    return [finding for finding in group_column_findings(records) if finding.code == "group-column-overlap"]


MANIFEST = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile" / "manifest.csv"
RANDOM = random.Random(0).choices(["train", "val", "test"], k=200)


@pytest.mark.parametrize("name", ["patient", "tile_group", "speakerID", "customer_id", "Patients", "lot no"])
def test_a_random_split_of_a_set_with_a_group_column(name: str) -> None:
    [finding] = _overlaps(_column(name, [f"g{i // 4}" for i in range(200)], RANDOM))
    assert finding.severity == "error"
    assert f"`{name}` is on both sides" in finding.message
    assert f"Set `data.group_column: {name}`" in finding.advice
    assert len(finding.examples) == 20
    assert all(text.startswith(("train r", "val r")) and f"({name} g" in text for text in finding.examples)


def test_one_patient_on_both_sides_is_enough() -> None:
    splits = ["train"] * 160 + ["test"] * 40
    clean = _column("patient", [i // 4 for i in range(200)], splits)
    assert not _overlaps(clean)
    values = [i // 4 for i in range(200)]
    values[-1] = 3
    [finding] = _overlaps(_column("patient", values, splits))
    assert finding.severity == "error"
    assert finding.examples == ("train r12 | test r199 (patient 3)",)
    assert "so 2% of `test` shows the same patient" in finding.message


def test_a_split_by_the_group_reports_nothing() -> None:
    records = [Record(f"r{i}", None, "ab"[i % 2], group=f"g{i // 4}", meta={"side": "l"}) for i in range(200)]
    assert group_column_findings(assign_splits(records)) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("width", [i % 40 for i in range(200)]),  # many repeated numbers
        ("lot_size", [i // 4 for i in range(200)]),
        ("age_group", [f"{i // 4}" for i in range(200)]),
        ("serial", [f"s{i}" for i in range(200)]),  # all different: an id
        ("customer_type", ["a", "b", "c", "d"] * 50),
        ("colour", ["red", "green", "blue", "white"] * 50),  # a kind: few values
        ("taken", [f"2024-05-{1 + i // 10:02}" for i in range(200)]),  # days
    ],
)
def test_what_is_no_group(name: str, values: list[object]) -> None:
    assert not _overlaps(_column(name, values, RANDOM))


def test_unclear_names_and_few_values_are_warnings() -> None:
    [unclear] = _overlaps(_column("site_code", [f"x{i // 4}" for i in range(200)], RANDOM))
    assert unclear.severity == "warning"
    assert "perhaps the same" in unclear.message
    [few] = _overlaps(_column("patient", [f"x{i % 5}" for i in range(200)], RANDOM))
    assert few.severity == "warning"


def test_a_chosen_group_makes_it_a_warning() -> None:
    [finding] = _overlaps(_column("patient", [i // 4 for i in range(200)], RANDOM, group="image"))
    assert finding.severity == "warning"


def test_no_groups_is_said() -> None:
    records = _column("side", ["left", "right"] * 100, RANDOM)
    assert [finding.code for finding in group_column_findings(records)] == ["no-groups"]


def _days(train: range, test: range) -> list[Record]:
    days = [("train", day) for day in train] + [("test", day) for day in test]
    return _column("taken", [f"2024-01-{day:02}" for _, day in days], [split for split, _ in days])


def test_time_order() -> None:
    assert time_findings(_days(range(1, 15), range(15, 20))) == []
    [late] = time_findings(_days(range(10, 25), range(1, 9)))
    assert (late.code, late.severity) == ("time-order", "warning")
    assert (
        "`train` is later than `test` (train 2024-01-10 to 2024-01-24, test 2024-01-01 to 2024-01-08)" in late.message
    )
    [mixed] = time_findings(_days(range(1, 29, 2), range(2, 29, 2)))
    assert mixed.severity == "note"
    assert "mixed with" in mixed.message


@pytest.mark.parametrize(
    ("column", "text", "seconds"),
    [
        ("x", "2024-05-01", 1714521600.0),
        ("x", "2024-05-01T12:00:00+02:00", 1714557600.0),
        ("x", "2024:05:01 10:00:00", 1714557600.0),
        ("x", "01.05.2024", 1714521600.0),
        ("date", "20240501", 1714521600.0),
        ("timestamp", "1714557600", 1714557600.0),
        ("num", "20240501", None),
        ("num", "1714557600", None),
        ("x", "5", None),
        ("x", "05/01/2024", None),  # May or January?
        ("x", "2024-13-45", None),
    ],
)
def test_what_is_a_time(column: str, text: str, seconds: float | None) -> None:
    assert parse_times(column, [text] * 3) == (None if seconds is None else [seconds] * 3)


def test_a_few_broken_times_do_not_hide_the_others() -> None:
    found = parse_times("day", ["2024-01-01"] * 99 + ["unknown"])
    assert found is not None
    assert np.isnan(found[-1])
    assert parse_times("day", ["2024-01-01"] * 9 + ["unknown"]) is None


@pytest.mark.real_data
@pytest.mark.skipif(not MANIFEST.is_file(), reason=f"needs LT_DATA_DIR: no {MANIFEST}")
def test_magnetic_tile_split_by_image_leaks_and_by_tile_does_not() -> None:
    with MANIFEST.open() as stream:
        rows = list(csv.DictReader(stream))
    records = [Record(row["path"], row["path"], row["label"], meta=row) for row in rows]
    by_image = assign_splits(records)
    [finding] = _overlaps(by_image)
    assert finding.severity == "error"
    assert "`tile_group` is on both sides" in finding.message
    sides: dict[str, set[str | None]] = {}
    for record in by_image:
        sides.setdefault(record.meta["tile_group"], set()).add(record.split)
    assert finding.count == sum(len(found) > 1 for found in sides.values()) > 100
    meta = [{key: value for key, value in row.items() if key != "tile_group"} for row in rows]
    by_tile = assign_splits(
        [
            Record(row["path"], None, row["label"], group=row["tile_group"], meta=rest)
            for row, rest in zip(rows, meta, strict=True)
        ]
    )
    assert _overlaps(by_tile) == []
