"""A recogniser of three letters: each sounds for three frames, and the pretrained one takes `b` for `c`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from lightning_transfer.cli import Recipe
from lightning_transfer.data import Skipped
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.metrics import error_rate, word_errors
from lightning_transfer.speech import AudioSegment, Transcript
from lightning_transfer.types import BackboneCard, Batch, Calibration, Record, Schema

__all__ = ["RECIPE", "ToyRecogniser", "ToySpeech"]

RECIPE = Recipe(
    name="toyspeech",
    package="toy_recipe",
    module="toy_recipe.speech:ToyRecogniser",
    data="toy_recipe.speech:ToySpeech",
    description="Write down three letters.",
    kind="transcription",
)

VOCABULARY = CTCVocabulary(("<pad>", "|", "a", "b", "c"))
SIZE = len(VOCABULARY)
FRAME = 0.02


def sound(text: str, seed: int) -> Tensor:
    """Return frames ``(T, SIZE)``: three of each letter or blank, one silent one between, with noise."""
    rows: list[int] = []
    for number in VOCABULARY.encode(text):
        rows += [number] * 3 + [0]
    noise = torch.randn(len(rows), SIZE, generator=torch.Generator().manual_seed(seed))
    return nn.functional.one_hot(torch.tensor(rows), SIZE).float() + 0.1 * noise


class ToySpeech(LightningDataModule):
    """Utterances of six speakers in memory; the last of the rows cannot be read.

    Args:
        each: Utterances of each speaker.
        batch_size: Of the batches.
        labelled: Whether what is predicted has transcripts.
    """

    show_progress = False

    def __init__(self, each: int = 8, batch_size: int = 8, labelled: bool = True) -> None:
        super().__init__()
        self.each, self.batch_size, self.labelled = each, batch_size, labelled
        self.records: list[Record] = []
        self.schema: Schema | None = None

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.records = []
        for place in range(6 * self.each):
            speaker = place // self.each
            count = 1 + int(torch.randint(3, (1,), generator=generator))
            words = ["abc bca cab acb ba cb".split()[int(i)] for i in torch.randint(6, (count,), generator=generator)]
            split = ("train", "train", "train", "val", "test", "test")[speaker]
            text = " ".join(words)
            meta = {"accent": "xy"[speaker % 2], "duration": 4 * len(text) * FRAME}
            segment = AudioSegment(f"s{speaker}/{place}.wav")
            self.records.append(Record(f"u{place}", segment, f"{text.upper()}.", split, f"s{speaker}", meta))
        counts = {name: {"utterances": len(self.records_for(name))} for name in ("train", "val", "test")}
        preprocessing = {"kind": "toy", "normaliser": "basic", "scoring_normaliser": "basic"}
        self.schema = Schema("transcription", VOCABULARY.tokens, counts, preprocessing=preprocessing)

    def use_schema(self, schema: Schema) -> None:
        self.schema = schema

    def records_for(self, split: str) -> list[Record]:
        if split == "predict":
            rows = self.records_for("test")
            return [replace(row, split="predict", label=row.label if self.labelled else None) for row in rows]
        return [record for record in self.records if record.split == split]

    def list_skipped(self, stage: str = "fit") -> list[Skipped]:
        return [Skipped(Record("broken", AudioSegment("broken.wav")), "no sound in it", 2)]

    def _loader(self, split: str, shuffle: bool = False) -> DataLoader[Any]:
        records = self.records_for(split)
        items = [(place, sound(self._text(row), place), row.label) for place, row in enumerate(records)]
        return DataLoader(items, batch_size=self.batch_size, shuffle=shuffle, collate_fn=self._collate)  # type: ignore[arg-type]

    def _text(self, record: Record) -> str:
        known = next(row for row in self.records if row.id == record.id)
        return str(known.label).lower().rstrip(".")

    @staticmethod
    def _collate(items: list[tuple[int, Tensor, str | None]]) -> Batch:
        values = pad_sequence([value for _, value, _ in items], batch_first=True)
        mask = pad_sequence([torch.ones(len(value)).long() for _, value, _ in items], batch_first=True)
        labels = [torch.tensor(VOCABULARY.encode(str(text).rstrip("."))) for _, _, text in items if text is not None]
        target = pad_sequence(labels, batch_first=True, padding_value=-100) if len(labels) == len(items) else None
        index = torch.tensor([place for place, _, _ in items])
        return Batch({"input_features": values, "attention_mask": mask}, target, index)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._loader("predict")

    def ordered_dataloader(self, split: str, only: Any = None) -> DataLoader[Any]:
        return self._loader(split)


class ToyRecogniser(LightningModule):
    """A linear layer on each frame, and another one for the letters.

    Args:
        backbone: Any name.
        weights: ``random``, or what stands for pretrained weights.
        card: Values of a card.
        own_vocabulary: Whether the pretrained network can write.
        decoding: A lexicon of one word, which is then all that it writes.
        optimizer: Called with the parameters.
    """

    monitor = "val_wer"
    monitor_mode = "min"

    def __init__(
        self,
        backbone: str = "toy/ears",
        weights: str | None = None,
        card: str | dict[str, Any] | None = None,
        own_vocabulary: bool = True,
        decoding: str | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=0.03),
    ) -> None:
        super().__init__()
        processor = {"vocabulary": VOCABULARY.to_dict()} if own_vocabulary else {}
        own = BackboneCard(backbone, backbone, SIZE, licence="CC0", pretraining="three letters", processor=processor)
        self.card = BackboneCard.from_dict(card) if isinstance(card, Mapping) else own
        self.pretrained, self.own_vocabulary = weights != "random", own_vocabulary
        self.backbone = nn.Linear(SIZE, SIZE)
        if self.pretrained:
            nn.init.eye_(self.backbone.weight)
            nn.init.zeros_(self.backbone.bias)
        self.head: nn.Module | None = None
        self.schema: Schema | None = None
        self.calibration = Calibration()
        self.run_config: dict[str, Any] = {}
        self.decoding = decoding
        self._optimizer = optimizer
        self.test_outputs: list[Transcript] = []

    def use_schema(self, schema: Schema) -> None:
        self.schema = schema

    def configure_model(self) -> None:
        if self.head is not None:
            return
        self.schema = self.schema or self.trainer.datamodule.schema
        self.head = nn.Linear(SIZE, SIZE)
        if self.pretrained and self.own_vocabulary:
            mixed = torch.eye(SIZE) * 8
            mixed[4, 3], mixed[3, 3] = 8.0, 4.0
            self.head.weight.data.copy_(mixed)
            nn.init.zeros_(self.head.bias)

    def rebuild_arguments(self) -> dict[str, Any]:
        return {"backbone": self.card.name, "own_vocabulary": self.own_vocabulary, "decoding": self.decoding}

    def forward(self, input: Mapping[str, Tensor]) -> Tensor:
        assert self.head is not None
        logits: Tensor = self.head(self.backbone(input["input_features"]))
        return logits

    def _loss(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        known = batch.target >= 0
        return nn.functional.ctc_loss(
            self(batch.input).log_softmax(-1).transpose(0, 1),
            batch.target.clamp(min=0),
            batch.input["attention_mask"].sum(1),
            known.sum(1),
            zero_infinity=True,
        )

    def transcribe(self, batch: Batch) -> list[Transcript]:
        best = self(batch.input).log_softmax(-1).max(-1)
        found = []
        lengths = batch.input["attention_mask"].sum(1).tolist()
        for place, values, ids, length in zip(batch.index.tolist(), *best, lengths, strict=True):
            text = self.decoding or VOCABULARY.decode(ids[:length].tolist())
            sure = float(values[:length].mean().exp())
            found.append(Transcript(place, text, sure, length * FRAME, "" if text else "only blanks"))
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._loss(batch)

    def on_validation_epoch_start(self) -> None:
        self._counts: list[tuple[int, int]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch), batch_size=len(batch.index))
        said = [VOCABULARY.decode(row[row >= 0].tolist()) for row in batch.target]
        for item in word_errors(said, [item.text for item in self.transcribe(batch)]):
            self._counts.append((item.errors, item.length))

    def on_validation_epoch_end(self) -> None:
        errors, lengths = zip(*self._counts, strict=True)
        self.log("val_wer", float(error_rate(errors, lengths)[0]))

    def on_test_epoch_start(self) -> None:
        self.test_outputs = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.test_outputs += self.transcribe(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Transcript]:
        return self.transcribe(batch)

    def configure_optimizers(self) -> Any:
        return self._optimizer(self.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.schema is not None
        checkpoint["lightning_transfer"] = {
            "format": 1,
            "version": "0",
            "module": "ToyRecogniser",
            "arguments": self.rebuild_arguments(),
            "source_head": None,
            "card": self.card.to_dict(),
            "schema": self.schema.to_dict(),
            "calibration": self.calibration.to_dict(),
            "config": self.run_config,
        }
