"""Random states stand still, and fixed ones are the same each time."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_transfer.callbacks.forgetting_random import fixed_rng, isolated_rng


def states(*generators):
    array = np.random.get_state()
    return (
        torch.get_rng_state().tolist(),
        (array[0], array[1].tolist(), *array[2:]),
        random.getstate(),
        [item.get_state().tolist() for item in generators],
    )


def draw(*generators):
    numbers = torch.rand(1).item(), np.random.rand(), random.random()
    return (*numbers, *(torch.rand(1, generator=item).item() for item in generators))


def test_all_states_come_back_also_after_an_error():
    generator = torch.Generator().manual_seed(5)
    before = states(generator)
    with isolated_rng(generator, None, generator):
        draw(generator)
    assert states(generator) == before

    def fail():
        with isolated_rng(generator):
            draw(generator)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert states(generator) == before


def test_fixed_draws_are_the_same_each_time_and_leave_no_trace():
    data = TensorDataset(torch.arange(4.0))
    own, samplers = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    loader = DataLoader(data, sampler=RandomSampler(data, generator=samplers), generator=own)
    before, drawn = states(own, samplers), []
    for _ in range(2):
        with fixed_rng(loader):
            drawn.append(draw())
            list(loader)
        assert states(own, samplers) == before
    assert drawn[0] == drawn[1]
