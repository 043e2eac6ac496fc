"""What is read, in which order, and that reading leaves no trace."""

from __future__ import annotations

import random
from types import SimpleNamespace

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
)

from lightning_transfer.callbacks.forgetting_batches import input_of
from lightning_transfer.callbacks.forgetting_probe import (
    Probe,
    is_stream,
    named_probes,
    read_probe,
    training_batches,
)
from lightning_transfer.data.loading import Collate, RecordDataset, make_loader
from lightning_transfer.types import Record


def padded(inputs):
    return torch.nn.utils.rnn.pad_sequence(list(inputs), batch_first=True)


NUMBERS = TensorDataset(torch.arange(100.0)[:, None], torch.arange(100) % 7)


def trainer(train=None, val=None, **options):
    strategy = SimpleNamespace(barrier=lambda name: None)
    return SimpleNamespace(train_dataloader=train, val_dataloaders=val, local_rank=0, strategy=strategy, **options)


def inputs(probe):
    return torch.cat([input_of(batch) for batch in probe.batches])[:, 0].tolist()


def read(probe, n_probe=10, given=None):
    return read_probe("photos", probe, n_probe, given or trainer())


# ---- which inputs --------------------------------------------------------------------------------------------------


def test_items_are_evenly_spaced_because_data_may_be_sorted():
    probe = read(NUMBERS)
    assert inputs(probe) == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert probe.labels.tolist() == [item % 7 for item in range(0, 100, 11)]
    assert inputs(read(NUMBERS, n_probe=1000)) == list(range(100))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_gives_its_data_set_and_collation_not_its_order(shuffle):
    def collate(items):
        return torch.stack([item[0] for item in items]) + 0.5, torch.stack([item[1] for item in items])

    loader = DataLoader(NUMBERS, batch_size=4, shuffle=shuffle, collate_fn=collate)
    probe = read(loader)
    assert [len(batch[0]) for batch in probe.batches] == [4, 4, 2]
    assert inputs(probe)[:2] == [0.5, 11.5]
    distributed = DataLoader(NUMBERS, sampler=DistributedSampler(NUMBERS, num_replicas=2, rank=1))
    assert inputs(read(distributed)) == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]


def test_a_sampler_of_ones_own_chooses():
    loader = DataLoader(NUMBERS, sampler=SubsetRandomSampler([1, 3, 5, 7, 9]))
    assert sorted(inputs(read(loader))) == [1, 3, 5, 7, 9]

    class Pairs(BatchSampler):
        def __iter__(self):
            return iter([[40, 41], [50, 51], [60, 61]])

    assert inputs(read(DataLoader(NUMBERS, batch_sampler=Pairs([], 2, False)), n_probe=5)) == [40, 41, 50, 51, 60]


def test_batches_made_by_length_are_thinned_and_stay_as_they_are():
    records = [Record(str(i), float(i), label=f"word {i}") for i in range(20)]
    dataset = RecordDataset(records, lambda record: torch.full((1 + int(record.input),), record.input), (), None)
    loader = make_loader(
        dataset, None, batch_size=8, num_workers=0, collate=Collate(padded), drop_last=False, seed=0,
        lengths=[21.0 - i for i in range(20)], budget=40.0,
    )  # fmt: skip
    whole = [batch.index.tolist() for batch in loader]
    assert whole[0] == [19, 18, 17, 16, 15], "the shortest come first, as many as the budget allows"
    few = read_probe("calls", loader, 7, trainer(lightning_module=None), spoken=True)
    found = [batch.index.tolist() for batch in few.batches]
    assert [index for batch in found for index in batch] == [19, 16, 13, 9, 6, 3, 0]
    assert all(any(set(batch) <= set(other) for other in whole) for batch in found)
    assert few.spoken.references == tuple(f"word {i}" for i in (19, 16, 13, 9, 6, 3, 0))
    everything = read_probe("calls", loader, 100, trainer(lightning_module=None))
    assert [batch.index.tolist() for batch in everything.batches] == whole


def test_a_stream_is_read_in_whole_batches():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([torch.tensor([float(i)]) for i in range(1000)])

    assert inputs(read(DataLoader(Stream(), batch_size=4))) == list(range(12))
    assert len(inputs(read(Stream()))) == 64


def test_a_data_set_without_torchs_base_class():
    rows = [{"pixel_values": torch.tensor([float(i)]), "labels": i % 3} for i in range(6)]
    probe = read(rows)
    assert probe.batches[0]["pixel_values"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert probe.labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("lib", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
def test_a_data_module_is_set_up_and_gives_its_validation_data(lib):
    class Source(lib.LightningDataModule):
        called = ()

        def prepare_data(self):
            self.called += ("prepare",)

        def setup(self, stage):
            self.called += (stage, self.trainer is given)

        def val_dataloader(self):
            return [DataLoader(NUMBERS, batch_size=3), DataLoader(NUMBERS)]

    given, data = trainer(datamodule=None), Source()
    assert inputs(read(data, given=given))[:2] == [0, 11]
    assert data.called == ("prepare", "fit", True)
    assert data.trainer is None
    own = Source()
    own.trainer = given = trainer()
    given.datamodule = own
    read(own, given=given)
    assert own.called == ()  # the trainer already set it up

    class TrainOnly(lib.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(NUMBERS)

    assert len(inputs(read(TrainOnly()))) == 10
    with pytest.raises(MisconfigurationException, match="LightningDataModule gave no DataLoader"):
        read(lib.LightningDataModule())


class Stream(IterableDataset):
    def __iter__(self):
        return (NUMBERS[index] for index in range(len(NUMBERS)))


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (DataLoader(NUMBERS, batch_size=4, shuffle=True), [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]),
        ({"a": DataLoader(NUMBERS, batch_size=4), "b": None}, [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]),
        (DataLoader(Stream(), batch_size=6), list(range(12))),
        ([[torch.arange(3.0)[:, None]]] * 9, [0, 1, 2] * 4),
    ],
    ids=["map", "several", "stream", "any iterable"],
)
def test_training_batches_are_the_same_in_each_call(train, expected):
    given = trainer(train)
    state = torch.get_rng_state()
    for _ in range(2):
        assert torch.cat([input_of(batch) for batch in training_batches(given, 10)])[:, 0].tolist() == expected
    assert torch.equal(state, torch.get_rng_state())
    assert is_stream(given) == (expected[1] == 1)


def test_target_prefers_validation_data():
    train, val = DataLoader(NUMBERS), DataLoader(TensorDataset(-torch.ones(20, 1), torch.zeros(20).long()))
    assert inputs(read("target", given=trainer({"a": [train]}, [val]))) == [-1.0] * 10
    probe = read("target", given=trainer({"a": [train]}, None))
    assert inputs(probe)[:2] == [0, 11]
    assert probe.proxy


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_noise_has_the_inputs_shape_and_is_the_same_each_time(dtype):
    train = DataLoader(TensorDataset(torch.zeros(5, 3, 8, 6).to(dtype), torch.zeros(5)), batch_size=2)
    probe, again = read("noise", 70, trainer(train)), read("noise", 70, trainer(train))
    images = torch.cat(probe.batches)
    assert images.shape == (70, 3, 8, 6)
    assert images.dtype == dtype
    assert images.float().std() > 0.5
    assert probe.fingerprint == again.fingerprint
    assert probe.labels is None


# ---- no trace ------------------------------------------------------------------------------------------------------


def test_random_states_are_left_alone_and_random_transforms_are_the_same_each_time():
    class Augmented(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return torch.rand(3) + random.random() + np.random.rand()

    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(Augmented(), batch_size=2, shuffle=True, generator=generator)
    sampled = DataLoader(Augmented(), sampler=SubsetRandomSampler([0, 1, 2, 3], generator=generator))
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), generator.get_state()
    prints = [read(item).fingerprint for item in (Augmented(), Augmented(), loader, sampled, sampled)]
    assert prints[0] == prints[1]
    assert prints[3] == prints[4]
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    assert torch.equal(states[3], generator.get_state())


def test_random_states_come_back_after_an_error():
    class Broken(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            torch.rand(1)
            raise OSError("unreadable")

    state = torch.get_rng_state()
    with pytest.raises(OSError, match="unreadable"):
        read(Broken())
    assert torch.equal(state, torch.get_rng_state())


def test_fingerprint_sees_values_order_and_type():
    items = [torch.arange(8.0)[:, None], torch.arange(8.0).flip(0)[:, None], torch.arange(8)[:, None]]
    assert len({read(TensorDataset(item)).fingerprint for item in items}) == 3


# ---- names and errors ----------------------------------------------------------------------------------------------


def test_keys():
    assert Probe("photos", False, [], None, "").key("kl") == "forgetting_photos_kl"
    assert Probe("", True, [], None, "").key("kl") == "drift_kl"


@pytest.mark.parametrize(
    ("probe", "error", "message"),
    [
        ("noize", ValueError, "'noize'.*Did you mean `noise`"),
        ({}, ValueError, "got {}"),
        ({"a/b": "noise"}, ValueError, "'a/b'"),
        (3, TypeError, "got int"),
        (torch.ones(3), TypeError, "got Tensor"),
        ({"x": None}, TypeError, "got NoneType"),
    ],
)
def test_what_is_no_probe(probe, error, message):
    with pytest.raises(error, match=message):
        named_probes(probe)


def test_probes_that_cannot_be_read():
    with pytest.raises(MisconfigurationException, match="'photos' has 3 inputs"):
        read(TensorDataset(torch.ones(3, 1)))
    with pytest.raises(MisconfigurationException, match="got list"):
        read("target", given=trainer([1, 2]))
    with pytest.raises(MisconfigurationException, match=r"got torch\.int64"):
        read("noise", given=trainer(DataLoader(TensorDataset(torch.ones(5, 3).long()))))
