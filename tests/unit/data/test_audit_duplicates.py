import numpy as np

from lightning_transfer.data.audit_duplicates import NearDuplicates, duplicate_findings
from lightning_transfer.types import Finding, Record


def _records(*rows: tuple[str, str]) -> list[Record]:
    return [Record(f"r{i}", None, label, split) for i, (split, label) in enumerate(rows)]  # type: ignore[arg-type]


def _codes(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings}


def test_copies_across_splits_are_an_error_above_a_share_of_test() -> None:
    rows = _records(*[("train", "a")] * 5, *[("test", "a")] * 100)
    keys = [f"k{i}" for i in range(len(rows))]
    keys[5:10] = keys[:5]
    [found] = duplicate_findings(rows, keys, "file")
    assert (found.severity, found.count) == ("warning", 5)  # 5% of test
    assert "(train 5, test 5): 5.0% of `test`" in found.message
    [found] = duplicate_findings(rows[:-1], keys[:-1], "file")
    assert found.severity == "error"
    assert found.examples[0] == "train r0 | test r5 (same file)"


def test_copies_with_other_labels_are_said_aloud() -> None:
    rows = _records(("train", "a"), ("test", "b"), *[("test", "c")] * 30)
    found = _codes(duplicate_findings(rows, ["x", "x", *range(30)], "text"))
    assert set(found) == {"duplicates-across-splits", "duplicate-labels"}
    assert "a leak and a wrong label at once" in found["duplicates-across-splits"].message
    assert found["duplicate-labels"].examples == ("train r0 | test r1 (`a` or `b`)",)


def test_copies_within_a_split_count_the_surplus() -> None:
    rows = _records(*[("train", "a")] * 4, ("test", "a"))
    [found] = duplicate_findings(rows, ["x", "x", "x", "y", "z"], "file")
    assert (found.code, found.count) == ("duplicates", 2)
    assert "(train 2)" in found.message
    assert found.examples == ("train r0 | train r1 (same file, 3 in all)",)


def test_no_copies_and_nothing_to_compare() -> None:
    rows = _records(("train", "a"), ("test", "a"), ("predict", "a"))
    assert duplicate_findings(rows, [None, None, None], "file") == []
    assert duplicate_findings(rows, ["x", "y", "x"], "file") == []


def test_near_duplicates_by_kind() -> None:
    rows = _records(("train", "a"), ("test", "b"), ("train", "a"), ("test", "a"))
    near = NearDuplicates(rows, [None] * 4, "images")
    near.add(np.array([0, 0]), np.array([1, 2]), np.array([0.96, 0.99]))
    found = _codes(near.findings())
    assert set(found) == {"near-duplicates-across-splits", "near-duplicate-labels", "near-duplicates"}
    assert found["near-duplicates-across-splits"].severity == "warning"
    assert "(train 1, test 1), 50.0% of `test`. 2 of them" in found["near-duplicates-across-splits"].message
    assert found["near-duplicates"].examples == ("train r0 | train r2 (similarity 0.99)",)
    assert found["near-duplicate-labels"].examples == ("train r0 | test r1 (`a` or `b`, similarity 0.96)",)


def test_exact_copies_are_not_reported_twice() -> None:
    rows = _records(("train", "a"), ("test", "a"))
    near = NearDuplicates(rows, ["x", "x"], "images")
    near.add(np.array([0]), np.array([1]), np.array([1.0]))
    assert near.findings() == []


def test_the_closest_examples_stay_and_more_of_the_same_is_not_wanted() -> None:
    rows = _records(*[("train", "a"), ("test", "a")] * 40)
    near = NearDuplicates(rows, [None] * 80, "images")
    one, other = np.arange(0, 80, 2), np.arange(1, 80, 2)
    assert near.wanted(one, other).all()
    near.add(one, other, np.linspace(0.95, 1.0, 40))
    assert not near.wanted(one, other).any()
    [found] = near.findings()
    assert found.count == 80
    assert len(found.examples) == 20
    assert found.examples[0] == "train r78 | test r79 (similarity 1.00)"
