"""The toy's points as tickets: two queues, some of no queue, and rows that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from lightning_transfer.data import Skipped
from lightning_transfer.types import Batch, Record, Split
from toy_recipe.data import ToyData

__all__ = ["RoutedData"]


class RoutedData(ToyData):
    """Add points of no queue, and leave out rows of what to predict.

    Args:
        num_outside: Points of no queue, divided as the others are.
        unreadable: Places in the rows to predict that cannot be read.
        **kwargs: As `ToyData`.
    """

    def __init__(self, num_outside: int = 40, unreadable: tuple[int, ...] = (0, 3, 8), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_outside = num_outside
        self.unreadable = unreadable
        self.outside: list[Record] = []

    def read_records(self) -> list[Record]:
        points = torch.randn(self.num_outside, 3, generator=torch.Generator().manual_seed(1))
        points += torch.tensor([3.0, -3.0, 0.0])
        return super().read_records() + [
            Record(id=f"o{place}", input=point, label="none", group=f"h{place}") for place, point in enumerate(points)
        ]

    def set_aside(self, records: list[Record]) -> list[Record]:
        self.outside = [record for record in records if record.label == "none"]
        return [record for record in records if record.label != "none"]

    def read_predict_records(self) -> list[Record]:
        rows = [replace(record, label=None) for record in self.read_records()]
        self.skip([Skipped(row, "cannot be read", place) for place, row in enumerate(rows) if place in self.unreadable])
        return [row for place, row in enumerate(rows) if place not in self.unreadable]

    def out_of_scope_for(self, split: Split) -> list[Record]:
        return [record for record in self.outside if record.split == split]

    def out_of_scope_dataloader(self, split: Split) -> DataLoader[Batch]:
        return self.loader_of(self.out_of_scope_for(split))
