"""Divide records by time: learn from the older ones, test on the newer ones, as a model is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

from lightning_transfer.data.audit_columns import parse_times
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record, Split

__all__ = ["assign_splits_by_time", "read_times"]

_MANY = 0.2  # share of a split's records from before its begin, above which its score is no longer about what is new


def assign_splits_by_time(
    records: Sequence[Record],
    column: str,
    *,
    val_fraction: float = 0.15,
    calibration_fraction: float = 0.1,
    test_fraction: float = 0.2,
) -> tuple[list[Record], list[Finding]]:
    """Give every record a split by its time: train is oldest, then validation, calibration, test; no group is divided.

    A group is placed by its last record, so no record of training is later than the end of training, and the splits
    have their sizes up to one group. A group that is older in part goes with all of its records to the later split;
    these are counted. Splits that the data bring along stay, as in `assign_splits`, and nothing is drawn at random.

    Args:
        records: With the time in ``meta``; what is understood is said in `parse_times`. A record without group is its
            own group.
        column: Key of ``meta``.
        val_fraction: Share of what is not test; not used where the data have such a split, as the next two.
        calibration_fraction: Share of what is not test.
        test_fraction: Share of all records, but for those in given splits.

    Returns:
        Copies of the records, in the same order, and ``time-split`` for each split that was cut: a warning where more
        than a fifth of its records are from before its begin.

    Raises:
        DataError: If a record that is to be divided has no readable time.

    Example:
        >>> rows = [Record(str(day), "text", "a", meta={"time": f"2025-01-{day:02}"}) for day in range(1, 11)]
        >>> divided, [finding] = assign_splits_by_time(
        ...     rows, "time", val_fraction=0, calibration_fraction=0, test_fraction=0.2
        ... )
        >>> [row.split for row in divided][-3:], finding.severity
        (['train', 'test', 'test'], 'note')
    """
    given = {record.split for record in records}
    wanted: dict[Split, float] = {"train": 0.0}
    test = 0.0 if "test" in given else test_fraction
    for name, share in (("val", val_fraction), ("calibration", calibration_fraction)):
        if share > 0 and name not in given:
            wanted[name] = (1 - test) * share  # type: ignore[index]  # both are splits
    if test > 0:
        wanted["test"] = test
    wanted["train"] = 1 - sum(wanted.values())
    pool = [place for place, record in enumerate(records) if record.split in (None, "train")]
    if len(wanted) == 1 or not pool:
        return [replace(record, split=record.split or "train") for record in records], []
    times = dict(zip(pool, read_times([records[place] for place in pool], column), strict=True))

    groups: defaultdict[str, list[int]] = defaultdict(list)
    for place in pool:
        record = records[place]
        groups[f"group {record.group}" if record.group is not None else f"record {record.id}"].append(place)
    ordered = sorted(groups, key=lambda name: (max(times[place] for place in groups[name]), name))
    parts = _parts([len(groups[name]) for name in ordered], list(wanted.values()))
    splits = [record.split or "train" for record in records]
    names = list(wanted)
    for name, part in zip(ordered, parts, strict=True):
        for place in groups[name]:
            splits[place] = names[part]
    findings = []
    for later in range(1, len(names)):
        earlier = [
            max(times[p] for p in groups[name]) for name, part in zip(ordered, parts, strict=True) if part < later
        ]
        own = [groups[name] for name, part in zip(ordered, parts, strict=True) if part == later]
        if earlier and own:
            findings.append(_describe(records, times, own, names[later], max(earlier), column))
    return [replace(record, split=split) for record, split in zip(records, splits, strict=True)], findings


def read_times(records: Sequence[Record], column: str) -> list[float]:
    """Return the time of each record, in seconds since 1970.

    Raises:
        DataError: If the column is missing, holds no times, or some of its values are none.
    """
    known = {key for record in records for key in record.meta}
    if column not in known:
        raise DataError(
            f"No record has the time `{column}`.{closest(column, known)}"
            f" Columns: {listing(sorted(known), 20) or 'none'}."
        )
    values = [str(record.meta.get(column, "")).strip() for record in records]
    known_times = {value: parse_times(column, [value]) for value in set(values)}
    bad = [place for place, value in enumerate(values) if known_times[value] is None]
    if bad:
        shown = listing(f"`{records[place].id}` (`{values[place]}`)" for place in bad)
        raise DataError(
            f"{len(bad)} of {len(values)} records have no readable time in `{column}`: {shown}. Write times as"
            " `2025-06-03T10:11`, or split by group."
        )
    return [(known_times[value] or [0.0])[0] for value in values]


def _parts(sizes: Sequence[int], fractions: Sequence[float]) -> list[int]:
    """Return the part of each group, in order: where the middle of the group falls."""
    total, parts, before = sum(sizes), [], 0
    ends = [sum(fractions[: number + 1]) * total for number in range(len(fractions))]
    for size in sizes:
        middle = before + size / 2
        parts.append(next((number for number, end in enumerate(ends[:-1]) if middle <= end), len(ends) - 1))
        before += size
    return parts


def _describe(
    records: Sequence[Record],
    times: dict[int, float],
    groups: Sequence[Sequence[int]],
    split: Split,
    end: float,
    column: str,
) -> Finding:
    """Say where a split begins, and how much of it is older."""
    size = sum(len(group) for group in groups)
    straddling = [group for group in groups if min(times[place] for place in group) <= end]
    older = sum(times[place] <= end for group in straddling for place in group)
    share = older / size
    begin = datetime.fromtimestamp(end, tz=timezone.utc).strftime("%Y-%m-%d %H:%M")
    moved = "none of its groups began before"
    if straddling:
        moved = (
            f"{len(straddling)} of its {len(groups)} groups began before and brought {older} older records along"
            f" ({share:.0%})"
        )
    return Finding(
        "time-split",
        "warning" if share > _MANY else "note",
        f"By `{column}`, `{split}` is what came after {begin} UTC: {size} records; {moved}.",
        len(straddling),
        tuple(f"{records[group[0]].group} ({len(group)} records)" for group in straddling[:MAX_EXAMPLES]),
        "Groups that last long leave little that is new: use a smaller group (thread in place of customer)."
        if share > _MANY
        else "",
    )
