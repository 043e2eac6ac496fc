import pickle
from collections import Counter

import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import DataLoader

from lightning_transfer.data.length_batches import LengthBatchSampler
from lightning_transfer.data.loading import (
    Collate,
    EpochSampler,
    RecordDataset,
    ResumableLoader,
    class_weights,
    encode_label,
    stack_inputs,
)
from lightning_transfer.types import Batch, Record

RECORDS = [Record(id=str(i), input=float(i), label="abb"[i % 3]) for i in range(9)]


def _load(record: Record) -> torch.Tensor:
    return torch.tensor([record.input])


def _augment(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return value + torch.rand(1, generator=generator)


def test_labels_of_each_task() -> None:
    assert encode_label(RECORDS[1], ("a", "b"), "multiclass").dtype == torch.int64
    assert encode_label(RECORDS[1], ("a", "b"), "multiclass") == 1
    assert encode_label(RECORDS[1], ("a", "b"), "binary").dtype == torch.float32
    many = encode_label(Record("x", None, (1.0, None, 0.0)), ("a", "b", "c"), "multilabel")
    torch.testing.assert_close(many, torch.tensor([1.0, float("nan"), 0.0]), equal_nan=True)
    assert encode_label(Record("x", None), ("a", "b"), "multiclass") is None
    assert encode_label(Record("x", None, "c"), ("a", "b"), "multiclass") is None


def test_weights_give_every_class_the_same_total() -> None:
    weights = class_weights(RECORDS)
    totals = Counter()
    for record, weight in zip(RECORDS, weights.tolist(), strict=True):
        totals[record.label] += weight
    assert totals["a"] == pytest.approx(totals["b"])


def test_each_epoch_visits_each_record_once_in_another_order() -> None:
    sampler = EpochSampler(50, seed=1)
    epochs = [[index for index, _ in sampler] for _ in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len(sampler) == 50


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    first = EpochSampler(50, seed=1)
    passes = [list(first) for _ in range(3)]
    again = EpochSampler(50, seed=1)
    torch.manual_seed(123)
    again.set_epoch(2)
    before = torch.get_rng_state()
    assert list(again) == passes[2]
    assert torch.equal(torch.get_rng_state(), before)
    again.set_epoch(0)
    assert list(again) == passes[0]
    assert list(EpochSampler(50, seed=2)) != passes[0]


def test_weighted_drawing_balances_the_classes() -> None:
    records = [Record(str(i), None, "rare" if i < 10 else "frequent") for i in range(1000)]
    drawn = [index for index, _ in EpochSampler(1000, 0, class_weights(records))]
    rare = sum(index < 10 for index in drawn)
    assert len(drawn) == 1000
    assert 430 < rare < 570  # 3.5 standard deviations around a half


def test_processes_share_an_epoch_and_shuffle_the_next() -> None:
    shares = []
    for rank in range(2):
        wrapped = DistributedSamplerWrapper(EpochSampler(40, 0), num_replicas=2, rank=rank)
        share = []
        for epoch in range(2):
            wrapped.set_epoch(epoch)
            share.append([index for index, _ in wrapped])
        shares.append(share)
    for epoch in range(2):
        assert sorted(shares[0][epoch] + shares[1][epoch]) == list(range(40))
    assert shares[0][0] != shares[0][1]


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_depends_on_neither_workers_nor_global_state(workers: int) -> None:
    dataset = RecordDataset(RECORDS, _load, ("a", "b"), "multiclass", _augment)
    reference = [dataset[key][0] for key in EpochSampler(9, 0)]
    torch.manual_seed(workers)
    loader = DataLoader(dataset, 2, sampler=EpochSampler(9, 0), num_workers=workers, collate_fn=Collate())
    assert torch.equal(torch.cat([batch.input for batch in loader]), torch.stack(reference))


def test_without_a_seed_nothing_is_augmented() -> None:
    dataset = RecordDataset(RECORDS, _load, ("a", "b"), "multiclass", _augment)
    assert [dataset[i][0].item() for i in range(9)] == [record.input for record in RECORDS]


def test_batches_carry_targets_and_positions() -> None:
    dataset = RecordDataset(RECORDS, _load, ("a", "b"), "multiclass")
    batches = list(DataLoader(dataset, 4, collate_fn=Collate()))
    assert all(isinstance(batch, Batch) for batch in batches)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(9))
    assert torch.cat([batch.target for batch in batches]).tolist() == [0, 1, 1] * 3
    assert [len(batch.input) for batch in batches] == [4, 4, 1]


def test_a_batch_with_an_unknown_label_has_no_target() -> None:
    dataset = RecordDataset([RECORDS[0], Record("x", 1.0)], _load, ("a", "b"), "multiclass")
    assert next(iter(DataLoader(dataset, 2, collate_fn=Collate()))).target is None


def test_dicts_are_padded_to_the_longest() -> None:
    inputs = [{"ids": torch.tensor([1, 2, 3]), "n": torch.tensor(3)}, {"ids": torch.tensor([4]), "n": torch.tensor(1)}]
    stacked = stack_inputs(inputs)
    assert stacked["ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert stacked["n"].tolist() == [3, 1]


def test_dataset_and_collation_can_be_sent_to_workers() -> None:
    dataset = pickle.loads(pickle.dumps(RecordDataset(RECORDS, _load, ("a", "b"), "binary", _augment)))  # noqa: S301
    assert dataset[3][1] == 0.0
    assert isinstance(pickle.loads(pickle.dumps(Collate())), Collate)  # noqa: S301


def _loader(workers: int = 0, weighted: bool = False, rank: int | None = None) -> ResumableLoader:
    sampler = EpochSampler(9, 3, class_weights(RECORDS) if weighted else None)
    return ResumableLoader(
        RecordDataset(RECORDS, _load, ("a", "b"), "multiclass", _augment),
        batch_size=2,
        sampler=sampler if rank is None else DistributedSamplerWrapper(sampler, num_replicas=2, rank=rank),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=Collate(),
        generator=torch.Generator().manual_seed(0),
    )


def _batches(loader: ResumableLoader, epoch: int) -> list[torch.Tensor]:
    batches = iter(loader)
    loader.sampler.set_epoch(epoch)  # as Lightning does: after `iter`
    return [batch.input for batch in batches]


@pytest.mark.parametrize(
    ("workers", "weighted", "rank"), [(0, False, None), (0, True, None), (0, False, 1), (2, False, None), (2, True, 0)]
)
def test_a_loader_goes_on_where_another_stood(workers: int, weighted: bool, rank: int | None) -> None:
    whole = [_batches(_loader(weighted=weighted, rank=rank), epoch) for epoch in (4, 5, 6)]
    for taken in range(len(whole[0]) + 1):
        if workers and taken != 2:
            continue  # starting workers takes a while
        again = _loader(workers, weighted, rank)
        again.load_state_dict({"batches": taken, "of": len(again)})
        assert len(again) == len(whole[0])
        rest = [_batches(again, epoch) for epoch in (4, 5, 6)]
        expected = [whole[0][taken:], *whole[1:]]
        for batches, wanted in zip(rest, expected, strict=True):
            assert len(batches) == len(wanted)
            assert all(map(torch.equal, batches, wanted))


def test_the_state_counts_what_was_handed_out_not_what_workers_have_loaded() -> None:
    for workers in (0, 2):
        loader = _loader(workers)
        assert loader.state_dict() == {"batches": 0, "of": 5}
        batches = iter(loader)
        next(batches), next(batches)
        assert loader.state_dict() == {"batches": 2, "of": 5}
        again = _loader()
        again.load_state_dict(loader.state_dict())
        batches = iter(again)
        assert again.state_dict() == {"batches": 2, "of": 5}
        next(batches)
        assert again.state_dict() == {"batches": 3, "of": 5}


def test_what_was_trained_on_is_not_loaded_again() -> None:
    loaded: list[str] = []

    def load(record: Record) -> torch.Tensor:
        loaded.append(record.id)
        return torch.tensor([record.input])

    dataset = RecordDataset(RECORDS, load, ("a", "b"), "multiclass")
    loader = ResumableLoader(dataset, batch_size=2, sampler=EpochSampler(9, 3), collate_fn=Collate())
    loader.load_state_dict({"batches": 3, "of": 5})
    list(loader)
    assert loaded == [str(index) for index, _ in EpochSampler(9, 3)][6:]


def test_an_epoch_of_another_length_is_said() -> None:
    with pytest.warns(UserWarning, match="an epoch of 7 batches, and now there are 5: the first 3"):
        _loader().load_state_dict({"batches": 3, "of": 7})


def test_a_loader_without_batches_cannot_skip_any() -> None:
    loader = ResumableLoader(range(4), batch_size=None)
    loader.load_state_dict({"batches": 1, "of": 4})
    with pytest.raises(ValueError, match="batch_size=None"):
        list(loader)


@pytest.mark.parametrize("rank", [None, 0, 1])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_whose_sampler_draws_batches_goes_on_too(workers: int, rank: int | None) -> None:
    lengths = [1.0 + index % 4 for index in range(9)]

    def loader(workers: int = 0) -> ResumableLoader:
        sampler = LengthBatchSampler(lengths, 3, budget=6)
        return ResumableLoader(
            RecordDataset(RECORDS, _load, ("a", "b"), "multiclass", _augment),
            batch_size=1,
            sampler=sampler if rank is None else DistributedSamplerWrapper(sampler, num_replicas=2, rank=rank),
            num_workers=workers,
            collate_fn=Collate(),
        )

    whole = [_batches(loader(), epoch) for epoch in (4, 5)]
    assert len({len(batch) for batch in whole[0]}) > 1
    for taken in range(len(whole[0]) + 1):
        if workers and taken != 1:
            continue
        again = loader(workers)
        again.load_state_dict({"batches": taken, "of": len(again)})
        for expected, epoch in ((whole[0][taken:], 4), (whole[1], 5)):
            found = _batches(again, epoch)
            assert len(found) == len(expected)
            assert all(map(torch.equal, found, expected))


def test_targets_of_unlike_length_are_padded_with_what_losses_leave_out() -> None:
    texts = {"0": [5, 6, 7], "1": [], "2": [8]}

    def encode(record: Record) -> torch.Tensor | None:
        return torch.tensor(texts[record.id], dtype=torch.int64) if record.id in texts else None

    dataset = RecordDataset(RECORDS, _load, (), "transcription", encode=encode)
    batch = Collate()([dataset[[0, 1, 2]]])
    assert batch.target.tolist() == [[5, 6, 7], [-100, -100, -100], [8, -100, -100]]
    assert batch.target.dtype == torch.int64
    assert batch.index.tolist() == [0, 1, 2]
    assert Collate()(dataset[[0, 3]]).target is None  # unknown
    assert RecordDataset(RECORDS, _load, (), None, encode=encode)[0][1] is None
