"""Check the further columns of records: groups that a split by record divides, and the order of time."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timezone

import numpy as np

from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import SPLITS, Record

__all__ = ["group_column_findings", "parse_times", "time_findings"]

# Words in a column's name that mean: records with the same value resemble each other whatever their class.
_GROUPS = frozenset(
    "animal author case client conversation customer donor group household lot mouse part participant patient person"
    " piece recording sequence serial session slide speaker specimen subject tile user video wafer".split()
)
# Words that make another thing of it: the size of a lot, the type of a customer.
_NO_GROUPS = frozenset(
    "age agent class count ethnic gender height kind name num rate score sex share size status type width".split()
)
_MANY_VALUES = 10  # fewer values of a clear name may be kinds of things, and are a warning only
_MAX_REPEATS = 20  # records of one value, on average: a column of unclear name that is more even is a kind, not a thing
_ENOUGH = 0.95  # share of a column's values that must be dates for it to be one
_LATER = 0.75


def group_column_findings(records: Sequence[Record], shared: Collection[str] = ()) -> list[Finding]:
    """Find columns whose values stand on both sides of a split, although they look like what must stay on one.

    Asked of ``Record.meta``: a column that is the group is no longer there. A name that clearly means a group
    (``tile_group``, ``patientId``) with at least 10 repeated values is an error where no group was chosen, else a
    warning, as are text columns of unclear names with many values of few records each.

    Args:
        records: With splits; those of ``predict`` do not count.
        shared: Columns that are known to be no groups, whatever they look like.

    Returns:
        ``group-column-overlap`` for each such column, and ``no-groups`` where nothing is known of groups.

    Example:
        >>> rows = [Record(str(i), None, "a", ("train", "test")[i % 2], meta={"patient": i // 2}) for i in range(40)]
        >>> [(finding.code, finding.severity) for finding in group_column_findings(rows)]
        [('group-column-overlap', 'error'), ('no-groups', 'note')]
    """
    used = [record for record in records if record.split is not None and record.split != "predict"]
    chosen = any(record.group is not None for record in used)
    findings = []
    for column in sorted({key for record in used for key in record.meta} - set(shared)):
        finding = _overlap(used, column, chosen=chosen)
        if finding is not None:
            findings.append(finding)
    if used and not chosen:
        findings.append(
            Finding(
                "no-groups",
                "note",
                f"No group is known: the {len(used)} records count as independent, in splits and in intervals.",
                len(used),
                (),
                "If several records are of one part, patient, customer or speaker, name that column as `group_column`.",
            )
        )
    return findings


def _overlap(records: Sequence[Record], column: str, *, chosen: bool) -> Finding | None:
    """Return what is to be said of one column, if its values look like groups and a split divides them."""
    members: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        value = str(record.meta.get(column, "")).strip()
        if value:
            members[value].append(record)
    sizes = [len(rows) for rows in members.values()]
    if not sizes or max(sizes) < 2 or len(members) < 3:
        return None
    clear = _names_group(column)
    if not clear and not _looks_like_group(list(members), sum(sizes), len(records)):
        return None
    divided = {value: rows for value, rows in members.items() if len({row.split for row in rows}) > 1}
    if not divided:
        return None
    tested = [row for rows in divided.values() for row in rows if row.split == "test"]
    share = len(tested) / max(1, sum(record.split == "test" for record in records))
    error = clear and not chosen and len(members) >= _MANY_VALUES
    what = "the same" if clear else "perhaps the same"
    message = (
        f"`{column}` is on both sides of the split: {len(divided)} of its {len(members)} values are in more than one"
        f" split ({listing(f'`{value}`' for value in sorted(divided))}), so {share:.0%} of `test` shows {what}"
        f" {_thing(column)} as another split."
    )
    given = " (together with the present group, if both must stay on one side)" if chosen else ""
    return Finding(
        "group-column-overlap",
        "error" if error else "warning",
        message,
        len(divided),
        tuple(_pair(rows, f"{column} {value}") for value, rows in sorted(divided.items())[:MAX_EXAMPLES]),
        f"Set `data.group_column: {column}`{given}; where splits came with the data, also `data.given_splits: ignore`.",
    )


def _names_group(column: str) -> bool:
    """Return whether a column's name clearly means a group."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", column)
    found = {word.lower() for word in words} | {word.lower().rstrip("s") for word in words}
    return bool(found & _GROUPS) and not found & _NO_GROUPS


def _looks_like_group(values: Sequence[str], filled: int, total: int) -> bool:
    """Return whether many values, of a few records each, are names and neither numbers nor times."""
    if filled < 0.5 * total or filled < 1.2 * len(values) or filled > _MAX_REPEATS * len(values) or len(values) < 20:
        return False
    numbers = sum(bool(re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?", value, re.IGNORECASE)) for value in values)
    return numbers < 0.5 * len(values) and parse_times("", values) is None


def _thing(column: str) -> str:
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", column)]
    return next((word for word in words if word in _GROUPS and word not in ("group", "case")), "group")


def _pair(rows: Sequence[Record], reason: str) -> str:
    """Name one record of each split that a value is in."""
    first = {row.split: row.id for row in reversed(rows)}
    return f"{' | '.join(f'{split} {first[split]}' for split in SPLITS if split in first)} ({reason})"


def time_findings(records: Sequence[Record]) -> list[Finding]:
    """Say how the splits lie in time, where a column holds dates or times.

    A model is used on what comes later than its training data. If ``train`` is later than ``test``, the score is about
    the past; if they are mixed, it does not show what drift will cost.

    Args:
        records: With splits.

    Returns:
        ``time-order``, for each such column: a warning if ``train`` is later as a rule, a note if they are mixed.

    Example:
        >>> days = [Record(str(i), None, "a", "train" if i > 5 else "test", meta={"day": f"2024-01-{i + 1:02}"})
        ...         for i in range(12)]
        >>> [(finding.code, finding.severity) for finding in time_findings(days)]
        [('time-order', 'warning')]
    """
    findings = []
    for column in sorted({key for record in records for key in record.meta}):
        rows = [(record, str(record.meta.get(column, "")).strip()) for record in records]
        filled = [(record, value) for record, value in rows if value and record.split in ("train", "test")]
        times = parse_times(column, [value for _, value in filled])
        if times is None:
            continue
        train, test = (
            np.sort([t for t, (record, _) in zip(times, filled, strict=True) if record.split == split and t == t])
            for split in ("train", "test")
        )
        if not len(train) or not len(test):
            continue
        later = 1.0 - float(np.searchsorted(train, test, side="right").mean()) / len(train)
        newer = float((train > test[0]).mean())
        if newer == 0:
            continue
        spans = f"train {_day(train[0])} to {_day(train[-1])}, test {_day(test[0])} to {_day(test[-1])}"
        reverse = later >= _LATER
        findings.append(
            Finding(
                "time-order",
                "warning" if reverse else "note",
                f"By `{column}`, `train` is {'later than' if reverse else 'mixed with'} `test` ({spans}):"
                f" {newer:.0%} of the training records are later than the first of `test`.",
                int((train > test[0]).sum()),
                (),
                "Give splits in the order of time (`split_column`), test last, if the model will be used on what comes"
                " later.",
            )
        )
    return findings


def parse_times(column: str, values: Sequence[str]) -> list[float] | None:
    """Return seconds since 1970 for each value, NaN where it is no time; None unless nearly all are.

    Understood are ISO 8601, EXIF (``2024:05:01 10:00:00``), ``31.12.2024``, and where the column's name says so
    ``20241231`` and seconds since 1970. Dates with slashes are not: the month may come first or second.

    Example:
        >>> parse_times("day", ["1970-01-02", "1970-01-01T00:01:00Z"])
        [86400.0, 60.0]
        >>> parse_times("width", ["20240101", "20240102"]) is None
        True
    """
    if not values:
        return None
    named = bool(re.search(r"date|time|stamp|day|datum|zeit|created|taken|captured", column, re.IGNORECASE))
    # A look at a few first: most columns hold no times.
    some = [values[place] for place in range(0, len(values), max(1, len(values) // 50))]
    if sum(_time(value, named) is None for value in some) > (1 - _ENOUGH) * len(some):
        return None
    known = {value: _time(value, named) for value in Counter(values)}
    times = [known[value] for value in values]
    if sum(found is None for found in times) > (1 - _ENOUGH) * len(times):
        return None
    return [float("nan") if found is None else found for found in times]


_FORMATS = ("%Y:%m:%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S")


def _time(text: str, named: bool) -> float | None:
    """Read one date or time, as UTC where it names no zone."""
    if not re.match(r"\d[\d\-:.T /Z+]*$", text):
        return None
    found: datetime | None = None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        if named and 5e8 < float(text) < 5e9:
            return float(text)
        if named and re.fullmatch(r"(19|20)\d{6}", text):
            text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
        else:
            return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        for form in _FORMATS:
            try:
                found = datetime.strptime(text, form)
                break
            except ValueError:
                continue
    if found is None:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d")
