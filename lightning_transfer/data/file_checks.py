"""Look at every file of a data set once, in threads, before anything is learnt from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lightning_transfer.data.tables import OnBadFile, Skipped
from lightning_transfer.errors import DataError, listing
from lightning_transfer.types import Record

__all__ = ["check_files"]


def check_files(
    records: Sequence[Record],
    check: Callable[[Any], Any],
    what: str,
    on_bad_file: OnBadFile = "error",
    *,
    facts: dict[str, Any] | None = None,
    show_progress: bool = False,
) -> tuple[list[Record], list[Skipped]]:
    """Return the records whose input can be used, and the others with reasons.

    Args:
        records: With any input.
        check: Called with the input of each record, from several threads; raises a `DataError` where it cannot be used.
        what: What the inputs are, in the plural, for the message.
        on_bad_file: ``error`` raises for the first ones; ``skip`` returns them with reasons.
        facts: Receives what ``check`` returned, by the record's id; None keeps nothing.
        show_progress: Show a bar.

    Returns:
        The records that can be used, and the others; ``position`` is the place in ``records``.

    Raises:
        DataError: With the count and the first few, or if no input at all can be used.

    Example:
        >>> def check(value: int) -> int:
        ...     if value < 0:
        ...         raise DataError(f"{value} is below 0.")
        ...     return value * value
        >>> facts = {}
        >>> good, bad = check_files([Record("a", 3), Record("b", -1)], check, "numbers", "skip", facts=facts)
        >>> [row.id for row in good], [skip.reason for skip in bad], facts
        (['a'], ['-1 is below 0.'], {'a': 9})
    """
    # Decoding leaves Python's lock; more threads than cores only cost memory.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        reasons = pool.map(lambda record: _reason(record, check, facts), records)
        if show_progress:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]  # the bar that Lightning uses

            reasons = tqdm(reasons, total=len(records), desc=f"Checking {what}", leave=False)
        found = list(reasons)
    good = [record for record, reason in zip(records, found, strict=True) if not reason]
    bad = [Skipped(record, found[i], i) for i, record in enumerate(records) if found[i]]
    if bad and (on_bad_file == "error" or not good):
        lines = listing((f"\n  {skip.record.id}: {skip.reason}" for skip in bad), 5)
        raise DataError(
            f"{len(bad)} of {len(records)} {what} cannot be used:{lines}\n"
            + ("Mend or remove them, or set `on_bad_file: skip`." if good else "Check the root and the files.")
        )
    return good, bad


def _reason(record: Record, check: Callable[[Any], Any], facts: dict[str, Any] | None) -> str:
    """Return why an input cannot be used, or nothing."""
    try:
        found = check(record.input)
    except DataError as error:
        return str(error)
    if facts is not None:
        facts[record.id] = found
    return ""
