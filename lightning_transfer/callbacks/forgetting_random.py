"""The random states stand still while `ForgettingMonitor` measures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch

__all__ = ["SEED", "fixed_rng", "isolated_rng"]

SEED: Final = 0
"""Random transforms of a probe are drawn from it, so that all checks and all runs see the same inputs."""


@contextmanager
def isolated_rng(*generators: torch.Generator | None) -> Iterator[None]:
    """Put the global random states, and those of the given generators, back on exit, also after an error."""
    cuda = torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    # Each generator once: the states below are set in turn.
    own = {id(generator): generator for generator in generators if generator is not None}
    states = [(generator, generator.get_state()) for generator in own.values()]
    python, array, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if cuda else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(devices)
        if mps is not None:
            torch.mps.set_rng_state(mps)
        for generator, state in states:
            generator.set_state(state)


@contextmanager
def fixed_rng(source: Any) -> Iterator[None]:  # noqa: ANN401 - a loader, a data set, or what stands for one
    """Set the global random states to `SEED`; on exit put them back, and those of the source's own generators."""
    with isolated_rng(*_generators(source)):
        random.seed(SEED)
        np.random.seed(SEED)
        torch.default_generator.manual_seed(SEED)
        yield


def _generators(source: Any) -> list[torch.Generator | None]:  # noqa: ANN401
    """Return the generators that reading a loader would advance."""
    parts = (source, getattr(source, "sampler", None), getattr(getattr(source, "batch_sampler", None), "sampler", None))
    found = [getattr(part, "generator", None) for part in parts]
    return [item for item in found if isinstance(item, torch.Generator)]
