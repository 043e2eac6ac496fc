"""Check the labels of records: spelling, counts in each split, balance."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import listing
from lightning_transfer.types import SPLITS, Finding, Record

__all__ = ["FEW_RECORDS", "MAX_IMBALANCE", "count_classes", "label_findings"]

MAX_IMBALANCE = 10.0
"""Training records of the largest class for each one of the smallest; accuracy then says little of the small ones."""

FEW_RECORDS = 5
"""A class with fewer training records than this can hardly be learnt."""

_MIN_LENGTH = 5  # of a name, for one letter to be a slip: `pit` and `pin` are two words


def label_findings(records: Sequence[Record], classes: Sequence[str] | None = None) -> list[Finding]:
    """Return what is odd about the labels; missing ones are found with the splits.

    Args:
        records: With splits; those of ``predict`` do not count.
        classes: Names of the columns of multi-label records; None numbers them.

    Returns:
        ``class-counts``, ``label-case``, ``label-typo``, ``class-missing-in-split``, ``class-imbalance``,
        ``few-records``.

    Example:
        >>> rows = [Record(str(i), None, name, "train") for i, name in enumerate(["free", "Free", "crack"])]
        >>> [finding.code for finding in label_findings(rows)]
        ['class-counts', 'label-case', 'few-records']
    """
    counts = count_classes(records, classes)
    total: Counter[str] = Counter()
    for found in counts.values():
        total.update(found)
    if not total:
        return []
    findings = [_counts(counts, total)]
    findings += _spelling(records, total)
    findings += _missing(counts, total)
    findings += _balance(counts.get("train", {}))
    return findings


def count_classes(records: Sequence[Record], classes: Sequence[str] | None = None) -> dict[str, dict[str, int]]:
    """Return split -> class -> number of records, for multi-label of positives; every class in every split.

    Example:
        >>> count_classes([Record("1", None, "a", "train"), Record("2", None, (1.0, 0.0), "test")], ["x", "y"])
        {'train': {'a': 1, 'x': 0, 'y': 0}, 'test': {'a': 0, 'x': 1, 'y': 0}}
    """
    found: dict[str, Counter[str]] = {split: Counter() for split in SPLITS if split != "predict"}
    names: dict[str, None] = {}
    for record in records:
        if record.split not in found or record.label is None:
            continue
        if isinstance(record.label, str):
            present = [record.label]
        else:
            columns = classes or [f"column {place}" for place in range(len(record.label))]
            names.update(dict.fromkeys(columns))
            present = [name for name, value in zip(columns, record.label, strict=False) if value == 1.0]
        found[record.split].update(present)
        names.update(dict.fromkeys(present))
    used = {record.split for record in records}
    ordered = sorted(names)
    return {split: {name: number[name] for name in ordered} for split, number in found.items() if split in used}


def _counts(counts: Mapping[str, Mapping[str, int]], total: Mapping[str, int]) -> Finding:
    parts = [
        f"{split} {sum(found.values())} ({listing((f'{name} {n}' for name, n in found.items()), 8)})"
        for split, found in counts.items()
    ]
    return Finding("class-counts", "note", f"{len(total)} classes: {'; '.join(parts)}.", len(total))


def _spelling(records: Sequence[Record], total: Mapping[str, int]) -> list[Finding]:
    """Find names that differ in case, spaces and signs only, and names that are one slip apart."""
    names = sorted({record.label for record in records if isinstance(record.label, str)})
    same: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        same[_plain(name)].append(name)
    variants = [group for group in same.values() if len(group) > 1]
    findings = []
    if variants:
        shown = [" and ".join(f"`{name}` ({total.get(name, 0)})" for name in group) for group in variants]
        findings.append(
            Finding(
                "label-case",
                "warning",
                f"{len(variants)} labels are written in several ways, each a class of its own: {listing(shown)}.",
                len(variants),
                tuple(shown[:MAX_EXAMPLES]),
                "Write each label in one way, unless the difference is meant.",
            )
        )
    keys = sorted(key for key in same if len(key) >= _MIN_LENGTH)
    typos = [
        f"`{same[one][0]}` ({total.get(same[one][0], 0)}) and `{same[other][0]}` ({total.get(same[other][0], 0)})"
        for one, other in combinations(keys, 2)
        if _one_slip_apart(one, other)
    ]
    if typos:
        findings.append(
            Finding(
                "label-typo",
                "warning",
                f"{len(typos)} pairs of labels are one letter apart: {listing(typos)}.",
                len(typos),
                tuple(typos[:MAX_EXAMPLES]),
                "Correct the wrong spelling, unless both are classes.",
            )
        )
    return findings


def _plain(name: str) -> str:
    """Return a name without case, and with one space for all spaces, underscores and hyphens in a row."""
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _one_slip_apart(one: str, other: str) -> bool:
    """Return whether one letter is added, lost, changed or swapped; digits are meant (``class1``, ``class2``)."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    left, right = one[start : len(one) - end], other[start : len(other) - end]
    if any(letter.isdigit() for letter in left + right):
        return False
    # A single capital or numeral behind a space is a name of its own: `type a`, `type b`.
    if any(start in (0, 1) or text[start - 1] == " " for text in (one, other)) and len(left + right) <= 2:
        return False
    return (len(left) <= 1 and len(right) <= 1) or (len(left) == 2 and left == right[::-1])


def _missing(counts: Mapping[str, Mapping[str, int]], total: Mapping[str, int]) -> list[Finding]:
    """Find classes that a split lacks; training must have them all, which the check of the splits says."""
    findings = []
    for split in ("test", "val", "calibration"):
        found = counts.get(split, {})
        absent = [name for name in total if sum(found.values()) and not found.get(name)]
        if absent:
            findings.append(
                Finding(
                    "class-missing-in-split",
                    "note" if split == "calibration" else "warning",  # no class is judged there
                    f"`{split}` has no record of {len(absent)} of {len(total)} classes:"
                    f" {listing(f'`{name}`' for name in absent)}.",
                    len(absent),
                    tuple(absent[:MAX_EXAMPLES]),
                    "Their score will be unknown there. Raise the split's share, bring more groups of them, or try"
                    " another `split_seed`.",
                )
            )
    return findings


def _balance(train: Mapping[str, int]) -> list[Finding]:
    present = {name: n for name, n in train.items() if n}
    if len(present) < 2:
        return []
    findings = []
    most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    ratio = present[most] / present[least]
    if ratio > MAX_IMBALANCE:
        findings.append(
            Finding(
                "class-imbalance",
                "warning",
                f"`train` has {present[most]} records of `{most}` and {present[least]} of `{least}`, {ratio:.0f} to 1"
                f" (limit {MAX_IMBALANCE:g} to 1).",
                len(present),
                (),
                "Read macro-F1 and the recall of each class, not accuracy; let rare classes count more (`sampler:"
                " weighted`, class weights or logit adjustment).",
            )
        )
    few = [f"{name} ({n})" for name, n in present.items() if n < FEW_RECORDS]
    if few:
        findings.append(
            Finding(
                "few-records",
                "warning",
                f"{len(few)} classes have fewer than {FEW_RECORDS} training records: {listing(few)}.",
                len(few),
                tuple(few[:MAX_EXAMPLES]),
                "Bring more, join them with another class, or leave them out.",
            )
        )
    return findings
