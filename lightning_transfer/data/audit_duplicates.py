"""Report records that are copies of others, or nearly so, within and across splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.types import SPLITS, Finding, Record

__all__ = ["MAX_TEST_COPIES", "NearDuplicates", "duplicate_findings"]

MAX_TEST_COPIES = 0.05
"""Share of the test split that may be exact copies of other splits' records.

Copies are answered by heart. With this share the score can be too good by up to 5 points, as much as a usual interval
is wide; below it the user decides.
"""

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


def duplicate_findings(records: Sequence[Record], keys: Sequence[Hashable | None], what: str) -> list[Finding]:
    """Return what is to be said of exact copies.

    Args:
        records: With splits; those of ``predict`` do not count.
        keys: What is equal for copies, for each record; None has no copies.
        what: What is the same: ``file``, ``text``.

    Returns:
        ``duplicates-across-splits``: an error where more than 5% of ``test`` have a copy elsewhere, else a warning.
        ``duplicate-labels``: copies with different labels, a warning. ``duplicates``: copies in one split, a warning.

    Example:
        >>> rows = [Record("1", "hi", "a", "train"), Record("2", "hi", "a", "test"), Record("3", "no", "b", "test")]
        >>> [finding] = duplicate_findings(rows, ["hi", "hi", "no"], "text")
        >>> finding.severity, finding.examples
        ('error', ('train 1 | test 2 (same text)',))
    """
    same: defaultdict[Hashable, list[Record]] = defaultdict(list)
    for record, key in zip(records, keys, strict=True):
        if key is not None and record.split not in (None, "predict"):
            same[key].append(record)
    copies = [rows for rows in same.values() if len(rows) > 1]
    across = [rows for rows in copies if len({row.split for row in rows}) > 1]
    clashing = [rows for rows in copies if len({row.label for row in rows if row.label is not None}) > 1]
    inside: Counter[str] = Counter()
    twice: list[list[Record]] = []
    for rows in copies:
        found = Counter(row.split for row in rows)
        inside.update({str(split): number - 1 for split, number in found.items() if number > 1})
        twice.extend([row for row in rows if row.split == split] for split, number in found.items() if number > 1)
    findings = []
    if across:
        findings.append(_across(records, across, what))
    if clashing:
        findings.append(
            Finding(
                "duplicate-labels",
                "warning",
                f"The same {what} has different labels {len(clashing)} times: at least one label of each is wrong.",
                len(clashing),
                tuple(_name(rows, _labels(rows)) for rows in clashing[:MAX_EXAMPLES]),
                "Correct the labels, or remove what cannot be decided.",
            )
        )
    if twice:
        findings.append(
            Finding(
                "duplicates",
                "warning",
                f"{sum(inside.values())} records repeat the {what} of another one in their split ({_counts(inside)}):"
                " they count twice.",
                sum(inside.values()),
                tuple(_name(rows, f"same {what}") for rows in twice[:MAX_EXAMPLES]),
                "Keep one of each.",
            )
        )
    return findings


def _across(records: Sequence[Record], groups: Sequence[Sequence[Record]], what: str) -> Finding:
    affected = Counter(str(row.split) for rows in groups for row in rows)
    in_test = sum(record.split == "test" for record in records)
    share = affected["test"] / max(1, in_test)
    wrong = sum(len({row.label for row in rows if row.label is not None}) > 1 for rows in groups)
    clash = f" {wrong} of them have different labels there: a leak and a wrong label at once." if wrong else ""
    return Finding(
        "duplicates-across-splits",
        "error" if share > MAX_TEST_COPIES else "warning",
        f"{len(groups)} times the same {what} is in more than one split ({_counts(affected)}): {share:.1%} of `test` is"
        f" known from elsewhere (limit {MAX_TEST_COPIES:.0%}).{clash}",
        len(groups),
        tuple(_name(rows, f"same {what}") for rows in groups[:MAX_EXAMPLES]),
        "Remove the copies from one side, or give copies the same group, so that a split keeps them together.",
    )


class NearDuplicates:
    """Collect pairs that are nearly the same, and say what they mean; holds a few flags a record, not the pairs.

    Args:
        records: With splits.
        keys: As for `duplicate_findings`: exact copies are reported there.
        what: What is compared: ``images``, ``texts``.

    Example:
        >>> rows = [Record("1", "hello", "a", "train"), Record("2", "hello!", "a", "test")]
        >>> near = NearDuplicates(rows, [None, None], "texts")
        >>> near.add(np.array([0]), np.array([1]), np.array([0.9]))
        >>> [finding] = near.findings()
        >>> finding.examples
        ('train 1 | test 2 (similarity 0.90)',)
    """

    def __init__(self, records: Sequence[Record], keys: Sequence[Hashable | None], what: str) -> None:
        self._records = records
        self._what = what
        self._split = np.array([SPLITS.index(r.split or "predict") for r in records], dtype=np.int64)
        numbers: dict[Hashable, int] = {}
        self._label = np.array([numbers.setdefault(r.label, len(numbers)) for r in records], dtype=np.int64)
        self._known = np.array([r.label is not None for r in records], dtype=bool)
        seen: dict[Hashable, int] = {}
        # A record without key is a copy of none.
        self._key = np.array(
            [-1 - place if key is None else seen.setdefault(key, len(seen)) for place, key in enumerate(keys)],
            dtype=np.int64,
        )
        self._flags = {name: np.zeros(len(records), dtype=bool) for name in ("across", "inside", "clash")}
        self._examples: dict[str, list[tuple[float, str]]] = {name: [] for name in self._flags}

    def wanted(self, one: Places, other: Places) -> Mask:
        """Return which pairs could still say something new: both records being flagged, a further pair does not."""
        mask = np.zeros(len(one), dtype=bool)
        for name, which in self._kinds(one, other).items():
            flags = self._flags[name]
            mask |= which & ~(flags[one] & flags[other])
        return mask

    def add(self, one: Places, other: Places, similarity: npt.NDArray[np.floating]) -> None:
        """Note pairs that are nearly the same."""
        for name, which in self._kinds(one, other).items():
            for i, j, value in zip(one[which], other[which], similarity[which], strict=True):
                flags = self._flags[name]
                if not (flags[i] and flags[j]):
                    self._examples[name].append((float(value), self._pair(int(i), int(j), float(value), name)))
                flags[i] = flags[j] = True
            best = self._examples[name]
            best.sort(key=lambda item: -item[0])
            del best[MAX_EXAMPLES:]

    def findings(self) -> list[Finding]:
        """Return ``near-duplicates-across-splits`` (warning), ``near-duplicate-labels`` and ``near-duplicates``."""
        across, inside, clash = (self._flags[name] for name in ("across", "inside", "clash"))
        found = []
        if across.any():
            both = int((across & clash).sum())
            wrong = f" {both} of them resemble one with another label: look whether it is right." if both else ""
            in_test = max(1, int((self._split == SPLITS.index("test")).sum()))
            test = int((across & (self._split == SPLITS.index("test"))).sum())
            found.append(
                Finding(
                    "near-duplicates-across-splits",
                    "warning",
                    f"{int(across.sum())} {self._what} are nearly the same as one in another split"
                    f" ({self._counts(across)}), {test / in_test:.1%} of `test`.{wrong}",
                    int(across.sum()),
                    self._best("across"),
                    "Look at the examples. If they show one thing twice, name the column of its group as"
                    " `group_column`, or remove the copies from one side.",
                )
            )
        if clash.any():
            found.append(
                Finding(
                    "near-duplicate-labels",
                    "note",
                    f"{int(clash.sum())} {self._what} are nearly the same as one with another label"
                    f" ({self._counts(clash)}).",
                    int(clash.sum()),
                    self._best("clash"),
                    "Look whether the labels are right; a small defect is a difference too.",
                )
            )
        if inside.any():
            found.append(
                Finding(
                    "near-duplicates",
                    "note",
                    f"{int(inside.sum())} {self._what} are nearly the same as another one in their split"
                    f" ({self._counts(inside)}).",
                    int(inside.sum()),
                    self._best("inside"),
                    "They teach less than their number says.",
                )
            )
        return found

    def _kinds(self, one: Places, other: Places) -> dict[str, Mask]:
        copies = self._key[one] == self._key[other]
        same = self._split[one] == self._split[other]
        clash = (self._label[one] != self._label[other]) & self._known[one] & self._known[other]
        predict = SPLITS.index("predict")
        counts = ~copies & (self._split[one] != predict) & (self._split[other] != predict)
        return {"across": counts & ~same, "inside": counts & same, "clash": counts & clash}

    def _pair(self, one: int, other: int, similarity: float, kind: str) -> str:
        rows = [self._records[one], self._records[other]]
        reason = f"similarity {similarity:.2f}"
        return _name(rows, f"{_labels(rows)}, {reason}" if kind == "clash" else reason)

    def _best(self, name: str) -> tuple[str, ...]:
        return tuple(text for _, text in self._examples[name])

    def _counts(self, flags: Mask) -> str:
        return _counts(Counter(SPLITS[place] for place in self._split[flags]))


def _name(rows: Sequence[Record], reason: str) -> str:
    """Name two copies, of different splits and labels where there are."""
    ordered = sorted(rows, key=lambda row: SPLITS.index(row.split or "predict"))
    first = ordered[0]
    second = max(ordered[1:], key=lambda row: (row.split != first.split, row.label != first.label))
    more = f", {len(rows)} in all" if len(rows) > 2 else ""
    return f"{first.split} {first.id} | {second.split} {second.id} ({reason}{more})"


def _labels(rows: Iterable[Record]) -> str:
    return " or ".join(f"`{label}`" for label in dict.fromkeys(str(row.label) for row in rows))


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{split} {found[split]}" for split in SPLITS if found[split])
