import pytest

from lightning_transfer.data.audit_labels import count_classes, label_findings
from lightning_transfer.types import Finding, Record


def _records(**counts: dict[str, int]) -> list[Record]:
    return [
        Record(f"{split}-{label}-{i}", None, label, split)  # type: ignore[arg-type]
        for split, found in counts.items()
        for label, number in found.items()
        for i in range(number)
    ]


def _find(records: list[Record], code: str) -> list[Finding]:
    return [finding for finding in label_findings(records) if finding.code == code]


def test_clean_labels_are_only_counted() -> None:
    records = _records(train={"free": 30, "crack": 20}, val={"free": 5, "crack": 5}, test={"free": 9, "crack": 6})
    [finding] = label_findings(records)
    assert finding.code == "class-counts"
    assert "train 50 (crack 20, free 30)" in finding.message
    assert count_classes(records)["test"] == {"crack": 6, "free": 9}


@pytest.mark.parametrize("other", ["Free", "free ", "FREE", "free\u00a0"])
def test_a_label_with_different_case_or_spaces(other: str) -> None:
    records = _records(train={"free": 30, other: 9, "crack": 20})
    [finding] = _find(records, "label-case")
    assert finding.severity == "warning"
    assert f"`{other}` (9)" in finding.examples[0]
    assert "`free` (30)" in finding.examples[0]


def test_underscores_and_hyphens_are_one() -> None:
    assert _find(_records(train={"top up": 9, "top_up": 9, "top-up": 9}), "label-case")[0].count == 1


@pytest.mark.parametrize(
    ("one", "other", "typo"),
    [
        ("scratch", "scrath", True),
        ("scratch", "scratches", False),
        ("scratch", "scracth", True),
        ("blowhole", "blowholes", True),
        ("class1", "class2", False),  # digits are meant
        ("type a", "type b", False),  # a name of its own
        ("pit", "pin", False),  # short words
        ("fray", "free", False),
    ],
)
def test_names_one_letter_apart(one: str, other: str, typo: bool) -> None:
    assert bool(_find(_records(train={one: 30, other: 9}), "label-typo")) == typo


@pytest.mark.parametrize(("split", "severity"), [("test", "warning"), ("val", "warning"), ("calibration", "note")])
def test_a_class_missing_in_a_split(split: str, severity: str) -> None:
    records = _records(
        train={"a": 9, "b": 9}, val={"a": 9, "b": 9}, calibration={"a": 9, "b": 9}, test={"a": 9, "b": 9}
    )
    records = [record for record in records if (record.split, record.label) != (split, "b")]
    [finding] = _find(records, "class-missing-in-split")
    assert finding.severity == severity
    assert finding.examples == ("b",)
    assert f"`{split}` has no record of 1 of 2 classes: `b`" in finding.message


def test_imbalance_past_the_stated_ratio_and_few_records() -> None:
    assert not _find(_records(train={"a": 100, "b": 10}), "class-imbalance")
    [finding] = _find(_records(train={"a": 101, "b": 10}), "class-imbalance")
    assert "101 records of `a` and 10 of `b`, 10 to 1 (limit 10 to 1)" in finding.message
    assert not _find(_records(train={"a": 9, "b": 5}), "few-records")
    assert _find(_records(train={"a": 9, "b": 4}), "few-records")[0].examples == ("b (4)",)


def test_multilabel_counts_positives() -> None:
    rows = [Record("1", None, (1.0, None), "train"), Record("2", None, (1.0, 1.0), "test")]
    assert count_classes(rows, ["x", "y"]) == {"train": {"x": 1, "y": 0}, "test": {"x": 1, "y": 1}}
