from lightning_transfer.data.split_problems import find_split_problems
from lightning_transfer.types import Record


def _rows(*rows: tuple[str, str, str | None]) -> list[Record]:
    return [Record(f"r{i}", None, label, split, group=group) for i, (label, split, group) in enumerate(rows)]


def test_every_problem_is_a_finding_of_its_own() -> None:
    rows = [
        *_rows(("a", "train", "p1"), ("b", "train", "p2"), ("a", "test", "p1"), ("c", "test", "p3")),
        Record("none", None, None, "train"),
    ]
    found = {item.code: item for item in find_split_problems(rows, expected=["train", "val", "test"], given=True)}
    assert set(found) == {"group-overlap", "empty-split", "missing-label", "class-missing-in-train"}
    assert {item.severity for item in found.values()} == {"error"}
    assert found["group-overlap"].examples == ("train r0 | test r2 (group p1)",)
    assert found["missing-label"].examples == ("none",)
    assert found["class-missing-in-train"].examples == ("r3 (c)",)
    assert "given_splits: ignore" in found["class-missing-in-train"].advice


def test_sound_splits_have_no_problem() -> None:
    rows = _rows(("a", "train", "1"), ("b", "train", "2"), ("a", "test", "3"), ("b", "test", "4"))
    assert find_split_problems(rows, expected=["train", "test"]) == []


def test_no_more_examples_than_a_finding_holds() -> None:
    rows = _rows(*(("a", split, f"g{i}") for i in range(30) for split in ("train", "test")))
    [overlap] = [item for item in find_split_problems(rows, expected=["test"]) if item.code == "group-overlap"]
    assert overlap.count == 30
    assert len(overlap.examples) == 20


def test_texts_must_be_there_and_no_more() -> None:
    rows = _rows(("hello you", "train", "1"), ("you", "val", "2"), ("well", "test", "3"))
    assert find_split_problems(rows, by_class=False) == []
    rows = _rows(("hello you", "train", "1"), (None, "train", "2"), ("well", "test", "1"))
    assert [item.code for item in find_split_problems(rows, by_class=False)] == [
        "group-overlap",
        "empty-split",
        "missing-label",
    ]
