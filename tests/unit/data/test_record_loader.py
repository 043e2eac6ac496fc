"""Loaders with a cache against the same loaders without: what is drawn is the same, and nothing is loaded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

from lightning_transfer.data.length_batches import LengthBatchSampler
from lightning_transfer.data.loading import Collate, EpochSampler, RecordDataset, make_loader
from lightning_transfer.data.record_loader import RecordLoader, ResumableLoader
from lightning_transfer.types import Batch, Record

ROWS = [Record(str(number), number, "ab"[number % 2]) for number in range(11)]


class Counting:
    def __init__(self) -> None:
        self.loads = 0

    def __call__(self, record: Record) -> torch.Tensor:
        self.loads += 1
        return torch.tensor([float(record.input)])


class FromMemory:
    """Stands in for a cache: says what it was asked for."""

    def __init__(self, current: bool = True) -> None:
        self.is_current = lambda: current

    def batch(self, keys: list[Any]) -> Batch:
        flat = [key for one in keys for key in (one if isinstance(one, list) else [one])]
        items = [key[0] if isinstance(key, tuple) else key for key in flat]
        return Batch("stored", None, torch.tensor(items))


def loader_of(kind: str, workers: int = 0) -> tuple[DataLoader[Any], RecordDataset, Counting]:
    load = Counting()
    data = RecordDataset(ROWS, load, ("a", "b"), "multiclass")
    lengths = [float(number % 4 + 1) for number in range(11)]
    options: dict[str, Any] = {
        "batch_size": 3, "num_workers": workers, "collate": Collate(), "drop_last": kind == "drop_last", "seed": 0
    }  # fmt: skip
    samplers = {
        "shuffled": EpochSampler(11, 0), "drop_last": EpochSampler(11, 0), "val": None, "lengths": None, "budget": None,
        "weighted": EpochSampler(11, 0, torch.arange(1.0, 12.0)),
        "batches": LengthBatchSampler(lengths, 0, budget=8),
    }  # fmt: skip
    if kind in ("lengths", "budget"):
        options |= {"lengths": lengths, "budget": 8 if kind == "budget" else None}
    return make_loader(data, samplers[kind], **options), data, load


KINDS = ["shuffled", "drop_last", "weighted", "batches", "val", "lengths", "budget"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_is_the_same(kind: str) -> None:
    plain, _, _ = loader_of(kind)
    cached, data, load = loader_of(kind)
    for _ in range(2):  # each pass is the next epoch
        expected = [batch.index.tolist() for batch in plain]
        load.loads = 0
        data.stored = FromMemory()  # type: ignore[assignment]
        assert [batch.index.tolist() for batch in cached] == expected
        assert load.loads == 0
        data.stored = None
    assert [batch.index.tolist() for batch in cached] == [batch.index.tolist() for batch in plain]
    assert load.loads > 0


@pytest.mark.parametrize("kind", ["shuffled", "batches"])
def test_a_resumed_epoch_leaves_out_what_was_handed_out(kind: str) -> None:
    plain, _, _ = loader_of(kind)
    expected = [batch.index.tolist() for batch in plain]
    cached, data, _ = loader_of(kind)
    data.stored = FromMemory()  # type: ignore[assignment]
    assert isinstance(cached, ResumableLoader)
    cached.load_state_dict({"batches": 2, "of": len(cached)})
    assert [batch.index.tolist() for batch in cached] == expected[2:]
    assert cached.state_dict() == {"batches": len(expected), "of": len(expected)}


def test_whether_there_is_a_cache_is_asked_with_the_first_batch() -> None:
    for kind in ("shuffled", "val"):
        loader, data, load = loader_of(kind)
        batches = iter(loader)
        data.stored = FromMemory()  # type: ignore[assignment]
        assert next(batches).input == "stored"
        batches = iter(loader)
        data.stored = None
        assert next(batches).input != "stored"
        assert load.loads == 3


def test_a_cache_of_other_weights_is_not_read() -> None:
    for kind in ("shuffled", "val"):
        loader, data, load = loader_of(kind)
        data.stored = FromMemory(current=False)  # type: ignore[assignment]
        assert next(iter(loader)).input != "stored"
        assert load.loads == 3


def test_workers_are_not_asked_while_there_is_a_cache() -> None:
    loader, data, _ = loader_of("val", workers=1)
    assert len(list(loader)) == 4
    data.stored = FromMemory()  # type: ignore[assignment]
    assert [batch.input for batch in loader] == ["stored"] * 4
    data.stored = None
    assert torch.equal(next(iter(loader)).input, torch.tensor([[0.0], [1.0], [2.0]]))


def test_other_readers_of_the_data_set_read_it_itself() -> None:
    """Monitors and heads go over the same data set by loaders of their own, and want inputs."""
    _, data, load = loader_of("val")
    data.stored = FromMemory()  # type: ignore[assignment]
    batch = next(iter(DataLoader(data, batch_size=2, collate_fn=Collate())))
    assert batch.input.tolist() == [[0.0], [1.0]]
    assert load.loads == 2


def test_data_of_other_kinds_are_loaded_as_ever() -> None:
    assert [batch.tolist() for batch in RecordLoader(range(4), batch_size=2)] == [[0, 1], [2, 3]]
    with_state = SimpleNamespace(stored=None)
    assert with_state.stored is None
    assert len(RecordLoader(range(4), batch_sampler=BatchSampler(range(4), 3, False))) == 2
