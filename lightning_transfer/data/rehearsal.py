"""Old records beside new ones, so that a model that gets more classes does not forget those it has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.data.text_neighbours import normalise_text
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

__all__ = ["rehearse", "without_leaks"]


def rehearse(
    new: Sequence[Record], old: Sequence[Record], share: float, *, seed: int = 0, by_class: bool = True
) -> tuple[list[Record], list[Finding]]:
    """Return the new records and, after them, old ones, each in the split that it had; and what is to be said of it.

    Of the old training records so many are drawn that they are ``share`` of the training split, at least one of each
    class: class by class in turn, so that rare classes are rehearsed as much as frequent ones. The draw is the same
    for each epoch and for each order of the records. Old records of the other splits come along whole: validation
    then chooses an epoch that is good for all classes, and calibration and test are about all of them.

    Those that would leak are left out, see `without_leaks`.

    Args:
        new: With splits.
        old: With splits, those by which the model to expand was trained.
        share: Of all training records, from 0 to below 1; 0 draws none.
        seed: Of the draw.
        by_class: False draws from all alike: labels such as transcripts are no classes.

    Raises:
        ValueError: If ``share`` is out of range.

    Example:
        >>> new = [Record(f"n{place}", "new", "c", "train") for place in range(2)]
        >>> old = [Record(f"o{place}", f"old {place}", "ab"[place % 2], "train") for place in range(8)]
        >>> records, _ = rehearse(new, [*old, Record("t", "kept", "a", "test")], share=0.5)
        >>> [(record.label, record.split) for record in records[2:]]
        [('a', 'train'), ('b', 'train'), ('a', 'test')]
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(
            f"Expected `rehearsal_share` in [0, 1), got {share}. 0.8 trains with four old records a new one."
        )
    if not old:
        return list(new), []
    usable = without_leaks(new, old)
    train = [record for record in usable if record.split == "train"]
    num_new = sum(record.split == "train" for record in new)
    classes = {str(record.label) for record in train} if by_class else {""}
    wanted = max(round(share / (1.0 - share) * num_new), len(classes)) if share else 0
    drawn = _in_turn(train, wanted, seed, by_class)
    names = {record.id for record in drawn}
    joined = [record for record in usable if record.split != "train" or record.id in names]
    return [*new, *joined], [_note(joined, len(old) - len(usable), len(train), num_new, wanted)]


def without_leaks(new: Sequence[Record], old: Sequence[Record]) -> list[Record]:
    """Return the old records that may stand beside the new ones, under names that these do not have.

    Left out is a record whose text the new ones have, or whose group lies in another split there.
    """
    texts = {_content(record) for record in new}
    taken = {record.id for record in new}
    splits: defaultdict[str | None, set[str | None]] = defaultdict(set)
    for record in new:
        splits[record.group].add(record.split)
    return [
        replace(record, id=f"old {record.id}") if record.id in taken else record
        for record in old
        if _content(record) not in texts and (record.group is None or splits[record.group] <= {record.split})
    ]


def _content(record: Record) -> str:
    return normalise_text(record.input) or record.input if isinstance(record.input, str) else str(record.input)


def _in_turn(records: Sequence[Record], count: int, seed: int, by_class: bool) -> list[Record]:
    """Draw one record of each class, then a second of each, and so on, until there are enough or all are drawn."""
    by_label: defaultdict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.id):
        by_label[str(record.label) if by_class else ""].append(record)
    piles = [
        [rows[place] for place in np.random.default_rng((seed, number)).permutation(len(rows))]
        for number, (_, rows) in enumerate(sorted(by_label.items()))
    ]
    turns = (record for turn in zip_longest(*piles) for record in turn if record is not None)
    return [record for _, record in zip(range(count), turns, strict=False)]


def _note(joined: Sequence[Record], left_out: int, available: int, num_new: int, wanted: int) -> Finding:
    counts = Counter(str(record.split) for record in joined)
    drawn = counts.pop("train", 0)
    others = ", ".join(f"{split} {count}" for split, count in counts.items()) or "none"
    few = f" All of them: {wanted} were wanted." if drawn < wanted else ""
    leaks = (
        f" {left_out} are left out, as the new data have their text, or their group in another split."
        if left_out
        else ""
    )
    return Finding(
        "rehearsal",
        "note",
        f"{drawn} of {available} old training records are rehearsed beside {num_new} new ones.{few} Old records of the"
        f" other splits: {others}.{leaks}",
        len(joined),
        tuple(record.id for record in joined[:MAX_EXAMPLES]),
    )
