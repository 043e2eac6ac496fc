from datetime import datetime, timedelta

import numpy as np
import pytest

from lightning_transfer.data.splits_time import assign_splits_by_time, read_times
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

START = datetime(2025, 1, 1)


def record(number: int, hours: float, group: str | None = None, split: str | None = None) -> Record:
    return Record(str(number), "x", "a", split, group, {"time": (START + timedelta(hours=hours)).isoformat()})


def test_without_groups_the_splits_are_quantiles() -> None:
    hours = np.random.default_rng(0).permutation(100)
    rows = [record(place, float(hour)) for place, hour in enumerate(hours)]
    divided, findings = assign_splits_by_time(
        rows, "time", val_fraction=0.25, calibration_fraction=0.125, test_fraction=0.2
    )
    expected = ["train"] * 50 + ["val"] * 20 + ["calibration"] * 10 + ["test"] * 20
    assert [row.split for row in divided] == [expected[hour] for hour in hours]
    assert [row.id for row in divided] == [row.id for row in rows]
    assert [(finding.count, finding.severity) for finding in findings] == [(0, "note")] * 3
    assert "`test` is what came after 2025-01-04 07:00 UTC: 20 records; none of its groups" in findings[2].message


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_training_is_older(seed: int) -> None:
    dice = np.random.default_rng(seed)
    rows = [record(place, int(dice.integers(1000)), f"g{dice.integers(60)}") for place in range(200)]
    divided, findings = assign_splits_by_time(rows, "time")
    sides = {row.group: {other.split for other in divided if other.group == row.group} for row in rows}
    assert all(len(found) == 1 for found in sides.values())
    order = ["train", "val", "calibration", "test"]
    times = {name: [row.meta["time"] for row in divided if row.split == name] for name in order}
    largest = max(sum(row.group == group for row in rows) for group in sides)
    for name, share in zip(order, (0.6, 0.12, 0.08, 0.2), strict=True):
        assert abs(len(times[name]) - share * 200) <= largest
    for place, finding in zip((1, 2, 3), findings, strict=True):
        end = max(time for name in order[:place] for time in times[name])
        own = {row.group for row in divided if row.split == order[place]}
        last = {group: max(row.meta["time"] for row in rows if row.group == group) for group in own}
        assert min(last.values()) >= end
        older = [row for row in divided if row.split == order[place] and row.meta["time"] <= end]
        assert finding.count == len({row.group for row in older})
        assert f"brought {len(older)} older records along" in finding.message


def test_many_older_records_are_a_warning() -> None:
    rows = [record(hour, hour) for hour in range(8)] + [record(8, 0, "long"), record(9, 9, "long")]
    divided, [finding] = assign_splits_by_time(rows, "time", val_fraction=0, calibration_fraction=0, test_fraction=0.2)
    assert [row.id for row in divided if row.split == "test"] == ["8", "9"]
    assert (finding.severity, finding.count, finding.examples) == ("warning", 1, ("long (2 records)",))
    assert "1 of its 1 groups began before and brought 1 older records along (50%)" in finding.message


def test_given_splits_stay() -> None:
    rows = [record(hour, hour, split="test" if hour < 3 else None) for hour in range(10)]
    rows.append(record(10, 99, split="predict"))
    divided, [finding] = assign_splits_by_time(rows, "time", val_fraction=3 / 7, calibration_fraction=0)
    assert [row.split for row in divided] == ["test"] * 3 + ["train"] * 4 + ["val"] * 3 + ["predict"]
    assert "`val`" in finding.message


def test_nothing_to_cut() -> None:
    rows = [Record("1", "x"), Record("2", "y", split="val")]
    divided, findings = assign_splits_by_time(rows, "time", val_fraction=0, calibration_fraction=0, test_fraction=0)
    assert ([row.split for row in divided], findings) == (["train", "val"], [])


def test_the_order_of_the_rows_does_not_count() -> None:
    rows = [record(place, place % 7, f"g{place % 11}") for place in range(40)]
    one, _ = assign_splits_by_time(rows, "time")
    other, _ = assign_splits_by_time(rows[::-1], "time")
    assert {row.id: row.split for row in one} == {row.id: row.split for row in other}


def test_times_that_cannot_be_read() -> None:
    rows = [record(1, 0), Record("2", "x", meta={"time": "soon"}), Record("3", "x", meta={"time": ""})]
    with pytest.raises(DataError, match=r"2 of 3 records have no readable time in `time`: `2` \(`soon`\), `3` \(``\)"):
        read_times(rows, "time")
    with pytest.raises(DataError, match=r"No record has the time `tim`. Did you mean `time`\? Columns: time"):
        assign_splits_by_time(rows, "tim")


def test_times_of_different_zones() -> None:
    texts = ["2025-06-03T10:00:00+02:00", "2025-06-03 08:00", "03.06.2025 08:00"]
    assert len(set(read_times([Record(str(n), "x", meta={"at": text}) for n, text in enumerate(texts)], "at"))) == 1
