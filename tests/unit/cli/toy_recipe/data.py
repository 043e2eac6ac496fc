"""Points around two centres, in memory; no file is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_transfer.data import BaseDataModule
from lightning_transfer.types import BackboneCard, Record

__all__ = ["ToyData", "ToyProbe"]


class ToyProbe(Dataset[Tensor]):
    """Points as the pretrained network knew them."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(3, generator=torch.Generator().manual_seed(index))


class _Nothing:
    def to_dict(self) -> dict[str, Any]:
        return {"kind": "none"}


class ToyData(BaseDataModule):
    """Make records of two classes, four to a group, the groups from three lines in turn.

    Args:
        root: Only kept, as a real recipe's data would.
        num_records: In all.
        **kwargs: Arguments of `BaseDataModule`.
    """

    def __init__(self, root: str = "here", num_records: int = 80, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.num_records = num_records

    def read_records(self) -> list[Record]:
        generator = torch.Generator().manual_seed(0)
        points = torch.randn(self.num_records, 3, generator=generator)
        records = []
        for place in range(self.num_records):
            label = "bad" if place % 2 else "good"
            point = points[place] + (1.5 if label == "bad" else -1.5)
            meta = {"line": "abc"[place // 4 % 3]}
            records.append(Record(id=f"p{place}", input=point, label=label, group=f"g{place // 4}", meta=meta))
        return records

    def make_preprocessing(self, card: BackboneCard) -> _Nothing:
        return _Nothing()

    def load_input(self, record: Record) -> Tensor | Mapping[str, Tensor]:
        point: Tensor = record.input
        return point
