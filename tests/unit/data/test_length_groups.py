"""Every item comes once, in runs of like length, and the runs are not sorted."""

from itertools import pairwise

import pytest
import torch

from lightning_transfer.data.length_groups import batches_in_order, group_by_length, length_buckets
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


@pytest.mark.parametrize("budget", [40.0, 200.0, 5000.0])
def test_buckets_hold_every_input_within_the_budget(lengths: list[int], budget: float) -> None:
    buckets = length_buckets(lengths, budget)
    assert sorted(item for items, _ in buckets for item in items) == list(range(1003))
    for number, (items, count) in enumerate(buckets):
        longest = lengths[items[0]]
        size = -(-len(items) // count)
        assert size == 1 or size * longest <= budget
        assert number == len(buckets) - 1 or len(items) >= max(1, budget // longest)  # one full batch at least
    padded = sum(lengths[items[0]] * len(items) for items, _ in buckets)
    if budget <= 200:
        assert padded < 1.2 * sum(lengths)
    batches = sum(count for _, count in buckets)
    assert batches <= 1.3 * padded / budget + len(buckets)


def test_an_input_beyond_the_budget_has_a_batch_of_its_own() -> None:
    assert length_buckets([50.0, 1.0, 49.0, 1.0], budget=10) == [([0, 2], 2), ([1, 3], 1)]
    assert batches_in_order(range(4), [50.0, 1.0, 49.0, 1.0], budget=10) == [[1, 3], [2], [0]]


def test_inputs_without_length_fill_one_batch() -> None:
    assert length_buckets([0.0, 0.0], budget=1) == [([0, 1], 1)]
    assert length_buckets([], budget=1) == []


def test_batches_in_order_are_full_and_within_the_budget(lengths: list[int]) -> None:
    chosen = list(range(0, 1003, 2))
    batches = batches_in_order(chosen, lengths, 200)
    assert sorted(item for batch in batches for item in batch) == chosen
    for batch, following in pairwise(batches):
        assert len(batch) * max(lengths[item] for item in batch) <= 200
        assert (len(batch) + 1) * lengths[following[0]] > 200  # one more would not have fitted
