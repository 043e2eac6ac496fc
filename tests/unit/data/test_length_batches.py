"""Batches by length: a function of seed and epoch, within the budget, each input once."""

from itertools import pairwise

import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

from lightning_transfer.data.length_batches import LengthBatchSampler

BUDGET = 60.0


@pytest.fixture(scope="module")
def lengths() -> list[float]:
    generator = torch.Generator().manual_seed(0)
    return torch.empty(700).log_normal_(1.0, 0.6, generator=generator).clamp(0.3, 25).tolist()


def test_each_epoch_shows_each_input_once_within_the_budget(lengths: list[float]) -> None:
    sampler = LengthBatchSampler(lengths, 1, budget=BUDGET)
    for _ in range(3):
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(item for batch in batches for item, _ in batch) == list(range(700))
        assert max(len(batch) * max(lengths[item] for item, _ in batch) for batch in batches) <= BUDGET
        assert len({seed for batch in batches for _, seed in batch}) == 700
        padded = sum(len(batch) * max(lengths[item] for item, _ in batch) for batch in batches)
        assert padded < 1.12 * sum(lengths)
        assert min(map(len, batches)) > 1


def test_an_epoch_depends_on_seed_and_number_alone(lengths: list[float]) -> None:
    first = LengthBatchSampler(lengths, 1, budget=BUDGET)
    epochs = [list(first) for _ in range(3)]
    again = LengthBatchSampler(lengths, 1, budget=BUDGET)
    again.set_epoch(2)
    assert list(again) == epochs[2]
    assert list(LengthBatchSampler(lengths, 2, budget=BUDGET)) != epochs[0]


def test_company_and_order_change_from_epoch_to_epoch(lengths: list[float]) -> None:
    sampler = LengthBatchSampler(lengths, 1, budget=BUDGET)
    one, other = ([frozenset(item for item, _ in batch) for batch in sampler] for _ in range(2))
    assert len(set(one) & set(other)) < 0.1 * len(one)
    # Short ones do not come first, or last.
    means = torch.tensor([sum(lengths[item] for item in batch) / len(batch) for batch in one])
    places = torch.arange(len(means)).float()
    assert abs(float(torch.corrcoef(torch.stack([places, means]))[0, 1])) < 0.35


def test_processes_share_whole_batches(lengths: list[float]) -> None:
    whole = list(LengthBatchSampler(lengths, 1, budget=BUDGET))
    parts = []
    for rank in range(3):
        own = LengthBatchSampler(lengths, 1, budget=BUDGET)
        wrapped = DistributedSamplerWrapper(own, num_replicas=3, rank=rank, shuffle=False)  # as Lightning makes it
        wrapped.set_epoch(0)
        parts.append(list(wrapped))
    assert len({len(part) for part in parts}) == 1
    joined = [batch for step in zip(*parts, strict=True) for batch in step]
    assert joined[: len(whole)] == whole
    assert joined[len(whole) :] == whole[: len(joined) - len(whole)]  # the last step is filled up
    assert all(batch and isinstance(batch[0], tuple) for batch in joined)


def test_batches_of_a_bucket_differ_by_one_at_most() -> None:
    sizes = sorted(map(len, LengthBatchSampler([1.0] * 101, 0, budget=10)))
    assert len(sizes) == 11
    assert all(large - small <= 1 for small, large in pairwise(sizes))


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        LengthBatchSampler([1.0], 0, budget=0)
