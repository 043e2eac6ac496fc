"""What happens to records between reading and splitting: repeated ids are refused, unusable records left out aloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.data.tables import Skipped
from lightning_transfer.errors import DataError, listing
from lightning_transfer.types import Record

__all__ = ["leave_out_unusable"]


def leave_out_unusable(
    records: Sequence[Record],
    skipped: list[Skipped],
    check: Callable[[Sequence[Record]], tuple[list[Record], list[Skipped]]] | None,
) -> list[Record]:
    """Return the usable records, and say how many are left out.

    Args:
        records: As read.
        skipped: What the reader left out already; what ``check`` finds is appended, with its position among all rows.
        check: Returns usable records and the others; None takes all for usable.

    Raises:
        DataError: If ids repeat.
    """
    repeated = [name for name, count in Counter(record.id for record in records).items() if count > 1]
    if repeated:
        raise DataError(f"{len(repeated)} ids appear more than once: {listing(repeated)}. Ids must be unique.")
    usable = list(records)
    if check is not None:
        taken = {skip.position for skip in skipped}
        slots = [place for place in range(len(records) + len(skipped)) if place not in taken]
        usable, bad = check(records)
        skipped.extend(replace(skip, position=None if skip.position is None else slots[skip.position]) for skip in bad)
    if skipped:
        names = listing(f"{skip.record.id} ({skip.reason})" for skip in skipped)
        rank_zero_warn(f"{len(skipped)} of {len(usable) + len(skipped)} records are left out: {names}.")
    return usable
