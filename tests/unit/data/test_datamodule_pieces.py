"""Records that are fed in pieces, as images are in tiles: what training learns from, and what the evaluation sees."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from lightning_transfer.types import BackboneCard, Batch, Record
from tests.unit.data.test_datamodule import Numbers

CARD = BackboneCard(name="t", architecture="t", input_size=(1, 1, 1), mean=(0.0,), std=(1.0,))

FRACTIONS = ("val_fraction", "calibration_fraction", "test_fraction")


class Pieces(Numbers):
    """A record ``i`` has ``i % 3 + 1`` pieces; the first of a defect shows it, and those of every fifth are unknown."""

    def pieces(self, record: Record, *, learn: bool) -> Sequence[Record] | None:
        number = int(record.id)
        found = [replace(record, id=f"{number}.{place}") for place in range(number % 3 + 1)]
        if learn and number % 5 == 0:
            return []
        return [found[0], *(replace(piece, label="good") for piece in found[1:])] if learn else found

    def load_input(self, record: Record) -> torch.Tensor:
        return torch.tensor([float(record.id)])


def _records(count: int = 120) -> list[Record]:
    return [Record(str(i), i, "bad" if i % 4 == 0 else "good", group=f"g{i // 2}") for i in range(count)]


@pytest.fixture
def data() -> Pieces:
    data = Pieces(_records(), negative_class="good", batch_size=8)
    data.setup("fit")
    return data


def _all(loader) -> Batch:
    batches = list(loader)
    return Batch(*(torch.cat([batch[part] for batch in batches]) for part in range(3)))


def _expected(records: Sequence[Record], learn: bool) -> list[tuple[str, int]]:
    rows = []
    for record in records:
        number = int(record.id)
        for place in range(number % 3 + 1):
            label = int(record.label == "bad" and (place == 0 or not learn))
            if not (learn and number % 5 == 0):
                rows.append((f"{number}.{place}", label))
    return sorted(rows)


def _seen(batch: Batch) -> list[tuple[str, int]]:
    return sorted((f"{value:.1f}", int(label)) for value, label in zip(batch.input[:, 0], batch.target, strict=True))


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_loss_sees_pieces_with_labels_of_their_own(data: Pieces, split: str) -> None:
    data.augment_input = lambda value, generator: value
    batch = _all(data.train_dataloader() if split == "train" else data.val_dataloader())
    assert _seen(batch) == _expected(data.records_for(split), learn=True)


@pytest.mark.parametrize("split", ["train", "val", "calibration", "test"])
def test_the_evaluation_sees_all_pieces_with_the_label_of_the_record(data: Pieces, split: str) -> None:
    loader = data.calibration_dataloader() if split == "calibration" else data.ordered_dataloader(split)
    batch = _all(loader)
    records = data.records_for(split)
    assert _seen(batch) == _expected(records, learn=False)
    index = [(place, i, int(r.id) % 3 + 1) for place, r in enumerate(records) for i in range(int(r.id) % 3 + 1)]
    assert batch.index.tolist() == [list(row) for row in index]


def test_some_records_come_with_all_their_pieces(data: Pieces) -> None:
    batch = _all(data.ordered_dataloader("train", only=[7, 2]))
    records = [data.records_for("train")[place] for place in (2, 7)]
    assert _seen(batch) == _expected(records, learn=False)
    assert sorted(set(batch.index[:, 0].tolist())) == [2, 7]
    whole = Numbers([replace(r, label="rare" if r.label == "bad" else "frequent") for r in _records()])
    whole.setup("fit")
    assert _all(whole.ordered_dataloader("train", only=[7, 2])).index.tolist() == [2, 7]


def test_the_schema_counts_records_and_pieces(data: Pieces) -> None:
    train = data.records_for("train")
    labels = Counter(label for _, label in _expected(train, learn=True))
    assert data.schema.piece_counts == {"good": labels[0], "bad": labels[1]}
    assert data.schema.train_counts == data.schema.piece_counts
    assert data.schema.counts["train"] == Counter(record.label for record in train)


def test_multi_label_pieces_are_counted_by_their_positives() -> None:
    labels = {"bad": (1.0, 0.0), "good": (0.0, None)}
    records = [replace(r, label=labels[r.label] if r.id != "1" else (1.0, 1.0), split="train") for r in _records()]
    data = Numbers(records, task="multilabel", classes=("x", "y"), **dict.fromkeys(FRACTIONS, 0.0))
    data.pieces = lambda record, learn: [record, record]
    data.setup("fit")
    assert data.schema.piece_counts == {"x": 2 * 31, "y": 2}


def test_balanced_batches_balance_pieces() -> None:
    data = Pieces(_records(1200), negative_class="good", sampler="weighted")
    data.setup("fit")
    data.augment_input = lambda value, generator: value
    shares = _all(data.train_dataloader()).target.float().mean()
    assert 0.45 < shares < 0.55  # a quarter of the records, an eighth of the pieces


def test_without_pieces_nothing_changes() -> None:
    data = Numbers([replace(r, label="rare" if r.label == "bad" else "frequent") for r in _records()])
    data.setup("fit")
    assert data.schema.piece_counts == {}
    assert data.schema.train_counts == data.schema.counts["train"]
    assert _all(data.test_dataloader()).index.tolist() == list(range(len(data.records_for("test"))))


def test_prediction_sees_all_pieces(data: Pieces) -> None:
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert all(batch.target is None for batch in batches)
    assert sum(len(batch.index) for batch in batches) == sum(i % 3 + 1 for i in range(120))
