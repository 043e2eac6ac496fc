"""Old records beside new ones: how many, which, in which split, and none that leaks."""

from collections import Counter

import pytest

from lightning_transfer.data.rehearsal import rehearse
from lightning_transfer.types import Record, Split


def _old(count: int = 60, split: Split = "train", classes: str = "abc") -> list[Record]:
    return [
        Record(f"{split}{place}", f"{split} old {place}", classes[place % len(classes)], split)
        for place in range(count)
    ]


def _new(count: int = 10, split: Split = "train") -> list[Record]:
    return [Record(f"new {split} {place}", f"{split} new {place}", "z", split) for place in range(count)]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 10), (0.8, 40), (0.25, 3), (0.95, 60)])
def test_old_records_are_that_share_of_training_or_all_there_are(share: float, count: int) -> None:
    records, [note] = rehearse(_new(), _old(), share)
    drawn = [record for record in records if record.label != "z"]
    assert len(drawn) == count
    assert f"{count} of 60 old training records" in note.message
    assert ("190 were wanted" in note.message) == (share == 0.95)


def test_rare_classes_are_rehearsed_as_much_as_frequent_ones() -> None:
    old = [*_old(50, classes="a"), *(Record(f"rare {place}", f"rare {place}", "b", "train") for place in range(4))]
    records, _ = rehearse(_new(), old, 0.5)
    assert Counter(record.label for record in records) == {"z": 10, "a": 6, "b": 4}


def test_a_small_share_still_rehearses_every_class() -> None:
    records, _ = rehearse(_new(), _old(), 0.01)
    assert Counter(record.label for record in records) == {"z": 10, "a": 1, "b": 1, "c": 1}


def test_the_draw_depends_on_the_seed_alone() -> None:
    one, _ = rehearse(_new(), _old(), 0.5, seed=3)
    turned, _ = rehearse(_new(), _old()[::-1], 0.5, seed=3)
    other, _ = rehearse(_new(), _old(), 0.5, seed=4)
    assert {record.id for record in one} == {record.id for record in turned}
    assert {record.id for record in one} != {record.id for record in other}


def test_every_old_record_stays_in_its_split() -> None:
    held_out: tuple[Split, ...] = ("val", "calibration", "test")
    old = [record for split in ("train", *held_out) for record in _old(6, split)]  # type: ignore[arg-type]
    records, [note] = rehearse([*_new(3), *_new(2, "test")], old, 0.5)
    before = {record.id: record.split for record in old}
    joined = records[5:]
    assert all(record.split == before[record.id] for record in joined)
    assert Counter(record.split for record in joined) == {"train": 3, "val": 6, "calibration": 6, "test": 6}
    assert "val 6, calibration 6, test 6" in note.message


def test_what_would_leak_is_left_out() -> None:
    new = [
        Record("1", "Where is my parcel?", "z", "test"),
        Record("2", "other", "z", "test", group="customer 7"),
        Record("3", "more", "z", "train", group="customer 8"),
    ]
    old = [
        Record("a", "where is my PARCEL", "a", "train"),
        Record("b", "another text", "a", "train", group="customer 7"),
        Record("c", "same side", "a", "train", group="customer 8"),
        Record("d", "other side", "a", "val", group="customer 8"),
        Record("e", "test stays", "a", "test", group="customer 7"),
    ]
    records, [note] = rehearse(new, old, 0.9)
    assert [record.id for record in records[3:]] == ["c", "e"]
    assert "3 are left out" in note.message


def test_names_stay_unique() -> None:
    records, _ = rehearse([Record("7", "new", "z", "train")], [Record("7", "old", "a", "train")], 0.5)
    assert [record.id for record in records] == ["7", "old 7"]


def test_without_old_records_nothing_changes() -> None:
    assert rehearse(_new(), [], 0.5) == (_new(), [])


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"`rehearsal_share` in \[0, 1\), got {share}"):
        rehearse(_new(), _old(), share)
