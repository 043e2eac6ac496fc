"""Give all records of a data set their splits, by the rule that the user chose: by group, or by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lightning_transfer.data.splits import assign_splits
from lightning_transfer.data.splits_time import assign_splits_by_time
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

__all__ = ["Division"]


@dataclass(frozen=True)
class Division:
    """How records are divided; the arguments are those of `BaseDataModule`.

    Example:
        >>> rows = [Record(str(day), "text", "a", meta={"day": f"2025-01-{day:02}"}) for day in range(1, 11)]
        >>> by_time = Division(0.0, 0.0, 0.2, split_by_time="day")
        >>> [row.id for row in by_time.divide(rows)[0] if row.split == "test"]
        ['9', '10']
    """

    val_fraction: float
    calibration_fraction: float
    test_fraction: float
    num_folds: int | None = None
    fold: int = 0
    split_seed: int = 0
    given_splits: Literal["keep", "ignore"] = "keep"
    split_by_time: str | None = None

    def keeps_splits_of(self, records: Sequence[Record]) -> bool:
        """Whether the records bring splits along that count."""
        return self.given_splits == "keep" and any(record.split is not None for record in records)

    @property
    def wanted(self) -> dict[str, bool]:
        """Which splits beside training are to be made."""
        return {
            "val": self.val_fraction > 0,
            "calibration": self.calibration_fraction > 0,
            "test": self.num_folds is not None or self.test_fraction > 0,
        }

    def divide(self, records: Sequence[Record], *, by_label: bool = True) -> tuple[list[Record], list[Finding]]:
        """Return the records with their splits, and what is to be said of a division by time.

        Args:
            records: In any order.
            by_label: Give each split its share of every label; False where labels are texts, each of its own.

        Raises:
            DataError: If the splits that are there, or the times, do not allow it.
        """
        if not by_label:
            divided, said = self.divide([replace(record, label=None) for record in records])
            return [replace(old, split=new.split) for old, new in zip(records, divided, strict=True)], said
        if self.given_splits == "ignore":
            records = [replace(record, split=None) for record in records]
        fractions: dict[str, Any] = {
            "val_fraction": self.val_fraction,
            "calibration_fraction": self.calibration_fraction,
            "test_fraction": self.test_fraction,
        }
        if self.split_by_time is not None:
            return assign_splits_by_time(records, self.split_by_time, **fractions)
        folds: dict[str, Any] = {"num_folds": self.num_folds, "fold": self.fold, "seed": self.split_seed}
        return assign_splits(records, **fractions, **folds), []
