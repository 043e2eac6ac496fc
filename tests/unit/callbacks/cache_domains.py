"""Speech and masks for the tests of `FeatureCache`, as datamodules of ours that read no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_transfer.data import BaseDataModule
from lightning_transfer.modules import CTCModule, SegmentationModule
from lightning_transfer.types import BackboneCard, Record
from tests.unit.callbacks.cache_toys import Pictures, stir
from tests.unit.modules.speech_toys import CARD, PREPROCESSING, VOCABULARY

WORDS = ("ab", "cad", "bad cab", "dab", "abba", "cc d", "a", "bb", "dad a", "cab")


class Sounds(BaseDataModule):
    """Mel features of unequal length, each with a text; batches of like length."""

    def __init__(self, groups: int = 3, budget: float | None = None, **kwargs: Any) -> None:
        options = {"batch_size": 4, "check_data": False, "calibration_fraction": 0.0, "task": "transcription"}
        super().__init__(**{**options, **kwargs})
        self.groups, self.batch_budget = groups, budget

    def read_records(self) -> list[Record]:
        return [
            Record(f"{group} {place}", text, text, meta={"length": 6 * len(text) + 7 + 5 * group})
            for group in range(self.groups)
            for place, text in enumerate(WORDS)
        ]

    def make_preprocessing(self, card: BackboneCard) -> Sounds:
        return self

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "none", **PREPROCESSING}

    def find_classes(self, restored: Any, expands: Any, enough: Any) -> tuple[str, ...]:
        return VOCABULARY.tokens

    def encode_target(self, record: Record) -> Tensor | None:
        return torch.tensor(VOCABULARY.encode(str(record.label)))

    def input_lengths(self, records: Sequence[Record]) -> list[float]:
        return [float(record.meta["length"]) for record in records]

    def load_input(self, record: Record) -> Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, record.id)))
        return torch.randn(int(record.meta["length"]), 40, generator=generator)

    def collate_inputs(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        masks = [torch.ones(len(wave), dtype=torch.long) for wave in inputs]
        pad = torch.nn.utils.rnn.pad_sequence
        return {"input_features": pad(list(inputs), batch_first=True), "attention_mask": pad(masks, batch_first=True)}


class Masked(Pictures):
    """Pictures with a class for each pixel, made when they are asked for."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task = "segmentation"

    def read_records(self) -> list[Record]:
        return [Record(r.id, r.input, None, mask=f"{r.id}.png") for r in super().read_records()]

    def find_classes(self, restored: Any, expands: Any, enough: Any) -> tuple[str, ...]:
        return ("good", "pit", "crack")

    def load_target(self, record: Record) -> Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, record.id)))
        target = torch.randint(3, (self.size, self.size), generator=generator)
        target[0] = -100
        return target


def make_recogniser(**kwargs: Any) -> CTCModule:
    torch.manual_seed(0)
    return CTCModule(
        "toy", weights="random", card=CARD, optimizer=lambda params: torch.optim.SGD(params, lr=0.01), **kwargs
    )  # type: ignore[arg-type]


def make_segmenter(**kwargs: Any) -> SegmentationModule:
    torch.manual_seed(0)
    module = SegmentationModule(
        "timm/test_resnet", weights="random", optimizer=lambda params: torch.optim.SGD(params, lr=0.01), **kwargs
    )
    stir(module.backbone)
    return module
