"""A base for transcription: labels are texts, batches are as large as their longest input allows."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lightning_transfer.data import audit_data
from lightning_transfer.errors import DataError
from lightning_transfer.types import Batch, ModelOutput, Record, Schema
from tests.unit.data.test_datamodule import CARD, Numbers

TOKENS = ("<pad>", *"abc")


class Texts(Numbers):
    """A record is as long as its number says, modulo seven; its target are the places of its letters."""

    def __init__(self, records: Sequence[Record], budget: float | None = 24.0, **kwargs) -> None:
        super().__init__(records, task="transcription", **kwargs)
        self.batch_budget = budget

    def find_classes(self, restored: Schema | None, expands: Schema | None, enough: str | None) -> tuple[str, ...]:
        return TOKENS

    def encode_target(self, record: Record) -> torch.Tensor | None:
        return None if record.label is None else torch.tensor([TOKENS.index(letter) for letter in record.label])

    def input_lengths(self, records: Sequence[Record]) -> list[float]:
        return [1.0 + int(record.id) % 7 for record in records]

    def load_input(self, record: Record) -> torch.Tensor:
        return torch.full((1 + int(record.id) % 7,), float(record.id))

    def collate_inputs(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(inputs), batch_first=True)

    def augment_input(self, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return value + torch.rand(1, generator=generator)


def _records(count: int = 140) -> list[Record]:
    return [Record(str(i), i, "abc"[: i % 4], group=f"g{i // 5}", meta={"duration": 1.0}) for i in range(count)]


class Learner(pl.LightningModule):
    """Sums its inputs into one weight, so that the weight is a history of the batches and their order."""

    def __init__(self) -> None:
        super().__init__()
        self.card = CARD
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.seen: list[list[int]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.seen.append(batch.index.tolist())
        return (self.weight**2 - self.weight * batch.input.double().mean() - 0.01 * (batch.target >= 0).sum()).sum()

    def validation_step(self, batch: Batch, _: int) -> None:
        assert batch.input.shape[0] * batch.input.shape[1] <= 24

    def predict_step(self, batch: Batch, _: int) -> ModelOutput:
        return ModelOutput(batch.input[:, :1], batch.input[:, :1], batch.target, batch.index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _trainer(**options) -> pl.Trainer:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(accelerator="cpu", **{"max_epochs": 2, "enable_checkpointing": False, **quiet, **options})


def test_labels_are_texts() -> None:
    data = Texts(_records())
    data.setup("fit")
    assert data.schema.task == "transcription"
    assert data.schema.classes == TOKENS
    assert sum(count["utterances"] for count in data.schema.counts.values()) == 140
    assert all(count.keys() == {"utterances"} for count in data.schema.counts.values())
    assert data.schema.piece_counts == {}
    records = data.records_for("test")
    for batch in data.test_dataloader():
        for row, index in zip(batch.target, batch.index.tolist(), strict=True):
            assert "".join(TOKENS[number] for number in row.tolist() if number >= 0) == records[index].label
            assert set(row[row < 0].tolist()) <= {-100}


def test_missing_texts_and_leaks_are_refused_and_classes_not_looked_at() -> None:
    data = Texts([*_records(), Record("999", 0, None)])
    with pytest.raises(DataError, match="1 records have no label: `999`"):
        data.setup("fit")
    rows = [replace(row, split="test" if place % 3 else "train") for place, row in enumerate(_records())]
    with pytest.raises(DataError, match="groups are in more than one split"):
        Texts(rows).setup("fit")


def test_the_audit_says_nothing_of_classes() -> None:
    data = Texts(_records())
    data.setup("fit")
    codes = {finding.code for finding in audit_data(data)}
    assert not codes & {"class-counts", "label-case", "label-typo", "class-imbalance", "few-records"}


def test_every_batch_keeps_to_its_budget() -> None:
    data = Texts(_records())
    data.setup("fit")
    for loader, split in ((data.train_dataloader(), "train"), (data.val_dataloader(), "val")):
        batches = list(loader)
        assert len(loader) == len(batches)
        assert max(batch.input.numel() for batch in batches) <= 24
        assert sorted(i for batch in batches for i in batch.index.tolist()) == list(range(len(data.records_for(split))))
    few = list(data.ordered_dataloader("train", only=[3, 8, 5]))
    assert sorted(i for batch in few for i in batch.index.tolist()) == [3, 5, 8]


def test_without_a_budget_batches_have_one_size() -> None:
    data = Texts(_records(), budget=None, batch_size=8)
    data.setup("fit")
    assert {len(batch.index) for batch in list(data.train_dataloader())[:-1]} == {8}


def test_prediction_goes_through_the_trainer() -> None:
    data = Texts(_records())
    module = Learner()
    trainer = _trainer()
    trainer.fit(module, datamodule=data)
    data.use_schema(data.schema)
    batches = trainer.predict(module, datamodule=data)
    found = {int(i): float(v) for batch in batches for i, v in zip(batch.index, batch.logits[:, 0], strict=True)}
    assert found == {place: float(record.id) for place, record in enumerate(data.records_for("predict"))}
    assert all(batch.target is None for batch in batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fit_goes_on_bit_for_bit_from_within_an_epoch(tmp_path, workers: int) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args) -> None:
            if trainer.global_step in (3, 9):
                trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    whole = Learner()
    _trainer(callbacks=[Save()]).fit(whole, datamodule=Texts(_records(), num_workers=workers))
    steps = len(whole.seen) // 2
    assert whole.seen[:steps] != whole.seen[steps:]
    assert steps > 9
    for step in (3, 9):
        again = Learner()
        data = Texts(_records(), num_workers=workers)
        _trainer().fit(again, datamodule=data, ckpt_path=tmp_path / f"{step}.ckpt", weights_only=True)
        assert again.seen == whole.seen[step:]
        assert torch.equal(again.weight, whole.weight)


class Note(Callback):
    """Each process writes down its batches; a checkpoint is kept after two steps."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def on_train_batch_end(self, trainer: pl.Trainer, module: Learner, *args) -> None:
        if trainer.global_step == 2 and self.name == "whole":
            trainer.save_checkpoint(self.folder / "2.ckpt")

    def on_train_end(self, trainer: pl.Trainer, module: Learner) -> None:
        values = {"seen": module.seen, "weight": float(module.weight)}
        (self.folder / f"{self.name}-{trainer.global_rank}.json").write_text(json.dumps(values))


@pytest.mark.slow
def test_two_processes_share_the_batches_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    options = {"strategy": "ddp_fork", "devices": 2, "limit_val_batches": 0}
    _trainer(callbacks=[Note(tmp_path, "whole")], **options).fit(Learner(), datamodule=Texts(_records(), num_workers=1))
    again = Texts(_records(), num_workers=1)
    trainer = _trainer(callbacks=[Note(tmp_path, "again")], **options)
    trainer.fit(Learner(), datamodule=again, ckpt_path=tmp_path / "2.ckpt", weights_only=True)
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    single = Texts(_records())
    single.setup("fit")
    loader = single.train_dataloader()
    steps = len(found["whole-0"]["seen"]) // 2
    assert steps == -(-len(loader) // 2)
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        drawn = [tuple(batch.index.tolist()) for batch in loader]
        part = slice(epoch * steps, (epoch + 1) * steps)
        taken = [tuple(batch) for rank in (0, 1) for batch in found[f"whole-{rank}"]["seen"][part]]
        # Lightning's own sampler shuffles them once more, as wholes, and repeats one to fill the last step.
        assert set(taken) == set(drawn)
        assert len(taken) - len(drawn) in (0, 1)
    for rank in (0, 1):
        assert found[f"again-{rank}"]["seen"] == found[f"whole-{rank}"]["seen"][2:]
        assert found[f"again-{rank}"]["weight"] == found["whole-0"]["weight"]
