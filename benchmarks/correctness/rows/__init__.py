"""The conditions, in the order of the table."""

from __future__ import annotations

from benchmarks.correctness.outcome import Row
from benchmarks.correctness.rows import distributed, frozen, lifecycle, optimizers, resume, schedulers

__all__ = ["ROWS"]

_KNOWN = {
    row.key: row for module in (distributed, resume, schedulers, frozen, optimizers, lifecycle) for row in module.ROWS
}
ROWS: tuple[Row, ...] = tuple(
    _KNOWN[key]
    for key in (
        "ddp",
        "resume",
        "resume-cli",
        "schedulers-closed",
        "schedulers-chained",
        "schedulers-other",
        "train-bn",
        "features",
        "all-parameters",
        "own-groups",
        "identity",
        "manual",
        "verbs",
        "compile",
        "own-callbacks",
        "backward",
        "names",
    )
)
