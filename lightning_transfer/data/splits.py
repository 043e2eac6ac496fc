"""Divide records into train, validation, calibration and test without dividing a group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.split_problems import find_split_problems, group_key
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record, Split

__all__ = ["assign_folds", "assign_parts", "assign_splits", "check_splits", "fingerprint", "needed_splits"]


def assign_parts(records: Sequence[Record], fractions: Sequence[float], *, seed: int | None = 0) -> list[int]:
    """Give each record one of several parts, of the wanted sizes and with like class shares; no group is divided.

    Groups are taken one by one, the most uneven first. Each goes to the part that keeps every class's share of each
    part nearest to the part's fraction. With equal fractions this is scikit-learn's ``StratifiedGroupKFold``.
    The result does not depend on the order of the records.

    Args:
        records: Their labels balance the parts; a record without group is its own group.
        fractions: Relative sizes of the parts, each above 0.
        seed: Orders groups that are alike; None takes them by name.

    Returns:
        The part of each record, from 0.

    Raises:
        ValueError: If a fraction is not above 0.

    Example:
        >>> records = [Record(id=str(i), input=None, label="ab"[i % 2], group=str(i // 4)) for i in range(16)]
        >>> assign_parts(records, [0.75, 0.25]).count(1)
        4
    """
    if not fractions or min(fractions) <= 0:
        raise ValueError(f"Expected fractions above 0, got {list(fractions)}.")
    keys = [group_key(record) for record in records]
    names = sorted(set(keys))
    if not names:
        return []
    order = np.arange(len(names))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    place = {names[index]: row for row, index in enumerate(order)}
    labels = _label_counts(records)
    counts = np.zeros((len(names), labels.shape[1]))
    sizes = np.zeros(len(names))
    for key, row in zip(keys, labels, strict=True):
        counts[place[key]] += row
        sizes[place[key]] += 1
    parts = _greedy(counts, sizes, np.asarray(fractions, dtype=np.float64) / sum(fractions))
    return [int(parts[place[key]]) for key in keys]


def assign_folds(records: Sequence[Record], num_folds: int, *, seed: int | None = 0) -> list[int]:
    """Give each record one of ``num_folds`` folds of like size and class shares; no group is divided.

    Raises:
        ValueError: If ``num_folds`` is smaller than 2.
        DataError: If there are fewer groups than folds.
    """
    if num_folds < 2:
        raise ValueError(f"Expected `num_folds` of at least 2, got {num_folds}.")
    groups = {group_key(record) for record in records}
    if len(groups) < num_folds:
        raise DataError(f"{len(groups)} groups cannot fill {num_folds} folds. Lower `num_folds`.")
    return assign_parts(records, [1.0] * num_folds, seed=seed)


def assign_splits(
    records: Sequence[Record],
    *,
    val_fraction: float = 0.15,
    calibration_fraction: float = 0.1,
    test_fraction: float = 0.2,
    num_folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
) -> list[Record]:
    """Give every record a split; splits that the data brings along stay.

    Test is cut first, then validation and calibration from what is left, each only if the data has no such split.
    Where the data names some splits, records with none count as training records.

    Args:
        records: In any order.
        val_fraction: Share of the training records that are left after test is cut.
        calibration_fraction: Share of the same.
        test_fraction: Share of the records that no given split holds; not used with ``num_folds``.
        num_folds: Cross-validation: test is one of this many folds.
        fold: Which one, from 0.
        seed: Of the division.

    Returns:
        Copies of the records, in the same order.

    Raises:
        DataError: If ``num_folds`` is given and the data has a test split already.
    """
    splits: list[Split] = [record.split or "train" for record in records]
    given = {record.split for record in records}
    if num_folds is not None:
        if "test" in given:
            raise DataError(
                f"`num_folds={num_folds}` would divide data that has a `test` split already."
                " Leave out `num_folds`, or the split column."
            )
        pool = [index for index, split in enumerate(splits) if split == "train"]
        for index, part in zip(pool, assign_folds([records[i] for i in pool], num_folds, seed=seed), strict=True):
            if part == fold:
                splits[index] = "test"
    elif "test" not in given and test_fraction > 0:
        _cut(records, splits, {"test": test_fraction}, seed)
    wanted: dict[Split, float] = {"val": val_fraction, "calibration": calibration_fraction}
    _cut(records, splits, {name: share for name, share in wanted.items() if share > 0 and name not in given}, seed)
    return [replace(record, split=split) for record, split in zip(records, splits, strict=True)]


def needed_splits(stage: str, *, has_train: bool, val: bool, calibration: bool, test: bool) -> list[Split]:
    """Return the splits that a stage of Lightning cannot do without.

    Args:
        stage: ``fit``, ``validate``, ``test``.
        has_train: Whether there are training records; data that only tests a finished model needs none.
        val: Whether a fit is to have this split, as the next two.
        calibration: Likewise.
        test: Likewise.

    Example:
        >>> needed_splits("test", has_train=False, val=True, calibration=True, test=True)
        ['test']
    """
    if stage in ("validate", "test"):
        only: Split = "val" if stage == "validate" else "test"
        return ["train", only] if has_train else [only]
    wanted: dict[Split, bool] = {"val": val, "calibration": calibration, "test": test}
    return ["train", *(name for name, needed in wanted.items() if needed)]


def check_splits(
    records: Sequence[Record],
    *,
    expected: Sequence[Split] = ("train", "val", "test"),
    classes: Sequence[str] | None = None,
    given: bool = False,
    enough: str | None = None,
    known: Collection[str] = (),
    by_class: bool = True,
) -> None:
    """Refuse splits that leak or that no model can learn from.

    Args:
        records: With splits.
        expected: Splits that must not be empty. Without ``train`` in it, classes are not looked at.
        classes: Class names that training must show; None takes those of the data.
        given: Whether the data brought the splits along; else no class may be of one group.
        enough: The one class that training needs, where a model learns from it alone; then ``classes`` does not count.
        known: Classes that the model has learnt before; training may lack them.
        by_class: Whether labels are classes; texts must be there, and no more.

    Raises:
        DataError: Names every problem that `find_split_problems` finds; its ``findings`` hold them.
    """
    problems = find_split_problems(
        records, expected=expected, classes=classes, given=given, enough=enough, known=known, by_class=by_class
    )
    if problems:
        raise DataError("\n".join(f"{problem.message} {problem.advice}" for problem in problems), findings=problems)


def fingerprint(records: Sequence[Record]) -> str:
    """Return the SHA-256 of ids, labels, groups and splits, whatever the order of the records.

    Example:
        >>> rows = [Record(id="a", input=None), Record(id="b", input=None)]
        >>> fingerprint(rows) == fingerprint(rows[::-1])
        True
    """
    lines = sorted(json.dumps([r.id, r.label, r.group, r.split], ensure_ascii=True) for r in records)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _cut(records: Sequence[Record], splits: list[Split], shares: dict[Split, float], seed: int) -> None:
    """Move groups of ``train`` into new splits, in place."""
    if not shares:
        return
    pool = [index for index, split in enumerate(splits) if split == "train"]
    names: list[Split] = ["train", *shares]
    parts = assign_parts([records[i] for i in pool], [1.0 - sum(shares.values()), *shares.values()], seed=seed)
    for index, part in zip(pool, parts, strict=True):
        splits[index] = names[part]


def _label_counts(records: Sequence[Record]) -> npt.NDArray[np.float64]:
    """Return one row a record, one column a class; a last column counts what has no label."""
    first = next((record.label for record in records if isinstance(record.label, tuple)), None)
    if first is not None:
        rows = [
            [float(value or 0.0) for value in record.label] if isinstance(record.label, tuple) else [0.0] * len(first)
            for record in records
        ]
        return np.asarray(rows, dtype=np.float64)
    names = sorted({str(record.label) for record in records})
    column = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(records), len(names)))
    for row, record in zip(counts, records, strict=True):
        row[column[str(record.label)]] = 1
    return counts


def _greedy(
    counts: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], fractions: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Give each group of ``counts`` ``(groups, classes)`` the part that balances best."""
    counts = counts[:, counts.sum(axis=0) > 0]
    # From whole numbers: rounding must not order groups that are alike.
    order = np.argsort(-np.std(counts, axis=1), kind="stable")
    counts = counts / counts.sum(axis=0)
    shares = np.zeros((len(fractions), counts.shape[1]))
    filled = np.zeros(len(fractions))
    parts = np.zeros(len(counts), dtype=np.int64)
    weights = fractions[:, None]
    for group in order:
        # Spread of share / fraction over the parts, weighted by fraction; least when every part has its due.
        squares = (shares**2 / weights).sum(axis=0) + ((shares + counts[group]) ** 2 - shares**2) / weights
        mean = shares.sum(axis=0) + counts[group]
        spread = np.sqrt(np.maximum(squares - mean**2, 0.0)).mean(axis=1) / len(fractions)
        best = 0
        for part in range(1, len(fractions)):
            tied = np.isclose(spread[part], spread[best])
            if (not tied and spread[part] < spread[best]) or (tied and filled[part] < filled[best]):
                best = part
        shares[best] += counts[group]
        filled[best] += sizes[group] / fractions[best]
        parts[group] = best
    return parts
