import os
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lightning_transfer.data.splits import (
    assign_folds,
    assign_parts,
    assign_splits,
    check_splits,
    fingerprint,
    needed_splits,
)
from lightning_transfer.data.tables import records_from_csv
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

SPLIT_NAMES = ("train", "val", "calibration", "test")
MANIFEST = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile" / "manifest.csv"


def _records(labels, groups=None, splits=None) -> list[Record]:
    return [
        Record(
            id=f"r{i:03d}",
            input=None,
            label=label,
            group=groups[i] if groups is not None else None,
            split=splits[i] if splits is not None else None,
        )
        for i, label in enumerate(labels)
    ]


def _sides(records):
    sides = defaultdict(set)
    for record in records:
        sides[record.group].add(record.split)
    return sides


def _imbalance(parts, records, num_parts: int) -> float:
    """Mean over classes of the spread of a class's share over the parts."""
    counts = Counter(zip(parts, (r.label for r in records), strict=True))
    totals = Counter(r.label for r in records)
    return float(np.mean([np.std([counts[p, c] / totals[c] for p in range(num_parts)]) for c in totals]))


class _Rounded(StratifiedGroupKFold):
    """Scikit-learn's, but for folds that are equally good: there it lets rounding in the last digit decide."""

    def _find_best_fold(self, y_counts_per_fold, y_cnt, group_y_counts):
        best = None
        for fold, counts in enumerate(y_counts_per_fold):
            counts += group_y_counts
            spread = np.round(np.mean(np.std(y_counts_per_fold / y_cnt, axis=0)), 9)
            counts -= group_y_counts
            if best is None or (spread, counts.sum()) < best[:2]:
                best = (spread, counts.sum(), fold)
        return best[2]


@pytest.mark.parametrize("seed", range(8))
def test_unseeded_folds_are_those_of_scikit_learn(grouped_records, seed: int) -> None:
    records = grouped_records(seed)
    labels, groups = [r.label for r in records], [r.group for r in records]
    expected = np.zeros(len(records), dtype=int)
    for fold, (_, test) in enumerate(_Rounded(4).split(labels, labels, groups)):
        expected[test] = fold
    assert assign_folds(records, 4, seed=None) == expected.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_seeded_folds_are_as_balanced_as_scikit_learns(grouped_records, seed: int) -> None:
    records = grouped_records(seed, 100)
    labels, groups = [r.label for r in records], [r.group for r in records]
    theirs = []
    for state in range(5):
        parts = np.zeros(len(records), dtype=int)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=state).split(labels, labels, groups)
        for fold, (_, test) in enumerate(folds):
            parts[test] = fold
        theirs.append(_imbalance(parts.tolist(), records, 5))
    ours = [_imbalance(assign_folds(records, 5, seed=state), records, 5) for state in range(5)]
    assert np.mean(ours) <= np.mean(theirs) * 1.25


def test_without_groups_it_is_plain_stratification() -> None:
    records = _records(["a"] * 40 + ["b"] * 20 + ["c"] * 5)
    parts = assign_folds(records, 5, seed=3)
    labels = [r.label for r in records]
    reference = [test for _, test in StratifiedKFold(5).split(labels, labels)]
    expected = {tuple(sorted(Counter(labels[i] for i in fold).items())) for fold in reference}
    for fold in range(5):
        counts = Counter(label for label, part in zip(labels, parts, strict=True) if part == fold)
        assert tuple(sorted(counts.items())) in expected


@pytest.mark.parametrize("seed", range(10))
def test_groups_are_never_divided_and_sizes_are_near_the_fractions(grouped_records, seed: int) -> None:
    records = grouped_records(seed, 120)
    done = assign_splits(records, seed=seed)
    assert all(len(side) == 1 for side in _sides(done).values())
    assert [replace(r, split=None) for r in done] == records
    sizes = Counter(r.split for r in done)
    wanted = {"train": 0.8 * 0.75, "val": 0.8 * 0.15, "calibration": 0.8 * 0.1, "test": 0.2}
    for name, share in wanted.items():
        assert abs(sizes[name] / len(records) - share) < 0.03, (name, sizes)
        for label in "ab":  # the frequent classes
            total = sum(r.label == label for r in records)
            found = sum(r.label == label and r.split == name for r in done)
            assert abs(found / total - share) < 0.06, (name, label)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_records_plays_no_part(grouped_records, seed: int) -> None:
    records = grouped_records(seed)
    shuffled = random.Random(seed).sample(records, len(records))
    first = {r.id: r.split for r in assign_splits(records, seed=seed)}
    second = {r.id: r.split for r in assign_splits(shuffled, seed=seed)}
    assert first == second
    assert fingerprint(assign_splits(records, seed=seed)) == fingerprint(assign_splits(shuffled, seed=seed))


def test_the_seed_plays_a_part(grouped_records) -> None:
    records = grouped_records(0)
    assert assign_splits(records, seed=0) == assign_splits(records, seed=0)
    assert assign_splits(records, seed=0) != assign_splits(records, seed=1)


def test_folds_cover_every_record_once_as_test(grouped_records) -> None:
    records = grouped_records(1, 100)
    tested = Counter()
    for fold in range(5):
        done = assign_splits(records, num_folds=5, fold=fold)
        assert all(len(side) == 1 for side in _sides(done).values())
        tested.update(r.id for r in done if r.split == "test")
        assert {r.split for r in done} == set(SPLIT_NAMES)
    assert set(tested.values()) == {1}
    assert len(tested) == len(records)


def test_given_splits_stay() -> None:
    splits = ["test" if i < 20 else "train" for i in range(100)]
    records = _records(["a", "b"] * 50, splits=splits)
    done = assign_splits(records, test_fraction=0.5)
    assert [r.id for r in done if r.split == "test"] == [r.id for r in records[:20]]
    assert Counter(r.split for r in done) == {"test": 20, "train": 60, "val": 12, "calibration": 8}


def test_records_without_split_beside_given_ones_are_training_records() -> None:
    records = _records(["a", "b"] * 50, splits=["test"] * 20 + [None] * 80)
    assert Counter(r.split for r in assign_splits(records)) == {"test": 20, "train": 60, "val": 12, "calibration": 8}


def test_complete_given_splits_are_untouched() -> None:
    records = _records(["a", "b"] * 50, splits=["train"] * 70 + ["val"] * 10 + ["calibration"] * 10 + ["test"] * 10)
    assert assign_splits(records) == records


def test_only_what_is_missing_is_cut_from_training() -> None:
    records = _records(["a", "b"] * 50, splits=["train"] * 80 + ["val"] * 20)
    done = assign_splits(records)
    assert Counter(r.split for r in done) == {"train": 58, "val": 20, "test": 16, "calibration": 6}
    assert [r.id for r in done if r.split == "val"] == [r.id for r in records[80:]]


def test_fractions_of_zero_make_no_split() -> None:
    done = assign_splits(_records(["a", "b"] * 10), val_fraction=0, calibration_fraction=0, test_fraction=0)
    assert {r.split for r in done} == {"train"}


def test_folds_of_data_with_a_test_split() -> None:
    with pytest.raises(DataError, match="`num_folds=5` would divide data that has a `test` split"):
        assign_splits(_records(["a", "b"], splits=["train", "test"]), num_folds=5)


def test_more_folds_than_groups() -> None:
    with pytest.raises(DataError, match="3 groups cannot fill 5 folds"):
        assign_folds(_records(["a"] * 6, groups=list("xxyyzz")), 5)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        assign_folds(_records(["a"]), 1)


@pytest.mark.parametrize("fractions", [[], [0.5, 0.0], [1.0, -0.1]])
def test_impossible_fractions(fractions) -> None:
    with pytest.raises(ValueError, match="above 0, got"):
        assign_parts(_records(["a"]), fractions)


def test_no_records() -> None:
    assert assign_parts([], [1.0]) == []


def test_multi_label_positives_are_balanced() -> None:
    rng = np.random.default_rng(0)
    labels = [tuple(None if u < 0.1 else float(u > 0.7) for u in row) for row in rng.random((200, 3))]
    records = [Record(id=f"r{i}", input=None, label=label, group=f"g{i // 2}") for i, label in enumerate(labels)]
    parts = assign_folds(records, 4)
    for column in range(3):
        positives = [
            sum(r.label[column] == 1.0 for r, p in zip(records, parts, strict=True) if p == k) for k in range(4)
        ]
        assert max(positives) - min(positives) <= 4


def test_a_group_named_like_a_record_is_not_that_record() -> None:
    records = [Record("x", None, "a", group="y"), Record("y", None, "a"), Record("z", None, "b", group="y")]
    parts = assign_parts(records, [1.0, 1.0])
    assert parts[0] == parts[2]


GOOD = _records(["a", "b"] * 4, list("gghhiijj"), ["train"] * 2 + ["val"] * 2 + ["calibration"] * 2 + ["test"] * 2)


@pytest.mark.parametrize(
    ("stage", "has_train", "expected"),
    [
        ("fit", True, ["train", "val", "test"]),
        ("fit", False, ["train", "val", "test"]),
        ("test", True, ["train", "test"]),
        ("test", False, ["test"]),
        ("validate", True, ["train", "val"]),
        ("validate", False, ["val"]),
    ],
)
def test_the_splits_that_a_stage_needs(stage: str, has_train: bool, expected: list[str]) -> None:
    assert needed_splits(stage, has_train=has_train, val=True, calibration=False, test=True) == expected


def test_good_splits_pass() -> None:
    check_splits(GOOD, expected=SPLIT_NAMES, classes=("a", "b"))


def test_a_group_on_both_sides_is_named_with_its_splits() -> None:
    records = [replace(r, group="tile7") if r.id in ("r001", "r006") else r for r in GOOD]
    with pytest.raises(DataError, match=r"1 groups are in more than one split: `tile7` \(train and test\)"):
        check_splits(records)


def test_an_empty_split() -> None:
    with pytest.raises(DataError, match=r"split `val` is empty \(train 2, calibration 2, test 2; 3 groups\)"):
        check_splits([r for r in GOOD if r.split != "val"])


def test_a_label_that_training_lacks() -> None:
    records = [replace(r, label="scratch") if r.id == "r007" else r for r in GOOD]
    with pytest.raises(DataError, match=r"Labels in `test` that `train` lacks: `scratch`.*`a` 1, `b` 1"):
        check_splits(records)


def test_a_class_without_training_records() -> None:
    with pytest.raises(DataError, match="Classes without training records: `fray`"):
        check_splits(GOOD, classes=("a", "b", "fray"))


def test_a_label_outside_the_classes() -> None:
    with pytest.raises(DataError, match=r"not in `classes`: `b`\. `classes` has `a`, `c`"):
        check_splits(GOOD, classes=("a", "c"))


def test_a_class_of_one_group_is_an_error_wherever_the_group_went() -> None:
    labels, groups = ["a", "b", "a", "b", "a", "b"], ["g1", "g2", "g3", "g4", "g5", "g6"]
    rare = _records(labels + ["rare"] * 3, [*groups, "lot 7", "lot 7", "lot 7"])
    for split in SPLIT_NAMES:
        names = ["train", "train", "val", "val", "test", "test", *[split] * 3]
        records = [replace(record, split=name) for record, name in zip(rare, names, strict=True)]
        with pytest.raises(DataError, match=r"class `rare` has one group only \(`lot 7`\).*give the splits yourself"):
            check_splits(records)
        if split == "train":
            check_splits(records, given=True)
            check_splits([r for r in records if r.split == "train"], expected=["train"])


def test_splits_that_came_with_the_data_can_be_ignored() -> None:
    records = [replace(r, label="new") if r.split == "test" else r for r in GOOD]
    with pytest.raises(DataError, match=r"Labels in `test` that `train` lacks: `new`(?s:.*)`given_splits: ignore`"):
        check_splits(records, given=True)
    with pytest.raises(DataError, match="`new`") as caught:
        check_splits(records)
    assert "given_splits" not in str(caught.value)


def test_one_class_only() -> None:
    with pytest.raises(DataError, match="one class only: `a`"):
        check_splits([replace(r, label="a") for r in GOOD])


def test_records_without_label() -> None:
    with pytest.raises(DataError, match="1 records have no label: `r003`"):
        check_splits([replace(r, label=None) if r.id == "r003" else r for r in GOOD])


def test_every_problem_is_named_at_once() -> None:
    records = [replace(r, group="g") for r in GOOD if r.split != "calibration"]
    with pytest.raises(DataError) as caught:
        check_splits(records, expected=SPLIT_NAMES, classes=("a", "b", "c"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("labels", "classes", "match"),
    [
        ([(1.0, 0.0), (0.0, 0.0)], ("x", "y"), "class `y` has only 0"),
        ([(1.0, 1.0), (0.0, 1.0)], ("x", "y"), "class `y` has only 1"),
        ([(1.0, None), (0.0, None)], ("x", "y"), "class `y` has no value"),
        ([(1.0, 0.0), (0.0,)], None, "have 1 and 2 values"),
        ([(1.0,), (0.0,)], ("x", "y"), "have 1 values; `classes` has 2"),
    ],
)
def test_multi_label_columns_must_show_both_sides(labels, classes, match: str) -> None:
    with pytest.raises(DataError, match=match):
        check_splits(_records(labels, splits=["train"] * len(labels)), expected=["train"], classes=classes)


def test_data_that_only_tests_needs_no_training_records() -> None:
    check_splits([r for r in GOOD if r.split == "test"], expected=["test"], classes=("a", "b"))


@pytest.mark.parametrize("change", [{"label": "b"}, {"group": "q"}, {"split": "val"}, {"id": "new"}])
def test_the_fingerprint_sees_every_change(change) -> None:
    assert fingerprint([replace(GOOD[0], **change), *GOOD[1:]]) != fingerprint(GOOD)
    assert fingerprint([replace(GOOD[0], meta={"x": "1"}), *GOOD[1:]]) == fingerprint(GOOD)


@pytest.mark.real_data
@pytest.mark.skipif(not MANIFEST.is_file(), reason=f"needs LT_DATA_DIR: no {MANIFEST}")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_magnetic_tile_folds_divide_no_tile_and_show_every_class(seed: int) -> None:
    records = records_from_csv(MANIFEST, MANIFEST.parent, group_column="tile_group")
    assert len(records) == 1344
    for fold in range(5):
        done = assign_splits(records, num_folds=5, fold=fold, seed=seed)
        check_splits(done, expected=SPLIT_NAMES)
        assert all(len(side) == 1 for side in _sides(done).values())
        classes = {split: {r.label for r in done if r.split == split} for split in SPLIT_NAMES}
        assert all(len(found) == 6 for found in classes.values()), classes


def test_one_class_is_enough_where_a_model_learns_from_it_alone() -> None:
    records = _records(["good", "good", "defect"], splits=["train", "calibration", "test"])
    check_splits(records, expected=("train", "test"), classes=("good", "defect"), enough="good")
    with pytest.raises(DataError, match="one class only"):
        check_splits(records, expected=("train", "test"), classes=("good", "defect"))
    records = _records(["bad", "good"], splits=["train", "test"])
    with pytest.raises(DataError, match=r"`train` has no record of `good` \(`negative_class`\).*`train` has `bad` 1"):
        check_splits(records, expected=("train", "test"), enough="good")
