"""Every item comes once, in runs of like length, and the runs are not sorted."""

import pytest
import torch

from lightning_transfer.data.length_groups import group_by_length
from lightning_transfer.data.loading import EpochSampler


def _padding(order: list[int], lengths: list[int], size: int) -> float:
    batches = [[lengths[item] for item in order[start : start + size]] for start in range(0, len(order), size)]
    return 1 - sum(lengths[item] for item in order) / sum(max(batch) * len(batch) for batch in batches)


@pytest.fixture
def lengths() -> list[int]:
    # As banking77's: most short, a few very long.
    drawn = torch.distributions.LogNormal(2.5, 0.6).sample((1003,))
    return drawn.round().int().clamp(3, 98).tolist()


def test_every_item_comes_once_and_little_is_padding(lengths: list[int]) -> None:
    order = torch.randperm(1003).tolist()
    found = group_by_length(order, lengths, 16, torch.Generator().manual_seed(0))
    assert sorted(found) == list(range(1003))
    assert found[-(1003 % 16) :] == order[-(1003 % 16) :]  # what fills no batch stays last
    assert _padding(found, lengths, 16) < 0.15 < 0.3 < _padding(order, lengths, 16)


def test_short_texts_do_not_come_first(lengths: list[int]) -> None:
    found = group_by_length(list(range(1003)), lengths, 16, torch.Generator().manual_seed(0))
    means = torch.tensor([sum(lengths[item] for item in found[start : start + 16]) / 16 for start in range(0, 992, 16)])
    places = torch.arange(len(means)).float()
    assert abs(float(torch.corrcoef(torch.stack([places, means]))[0, 1])) < 0.35


def test_the_sampler_groups_and_depends_on_seed_and_epoch_alone(lengths: list[int]) -> None:
    def orders(seed: int) -> list[list[int]]:
        sampler = EpochSampler(1003, seed, lengths=lengths, batch_size=16)
        return [[item for item, _ in sampler] for _ in range(2)]

    first, second = orders(1)
    assert orders(1) == [first, second]
    assert first != second
    assert orders(2)[0] != first
    assert sorted(first) == list(range(1003))
    assert _padding(first, lengths, 16) < 0.15
