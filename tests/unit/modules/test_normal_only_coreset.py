"""Greedy k-center. Oracles: the definition with all distances in float64, and the best choice by brute force."""

from itertools import combinations

import pytest
import torch

from lightning_transfer.modules.normal_only_coreset import greedy_coreset, project


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(5))
def test_each_is_the_farthest_from_those_before(seed: int) -> None:
    patches = torch.randn(60, 7, generator=_generator(seed)) + 30.0  # far from the origin: rounding must not show
    chosen = greedy_coreset(patches, 25, _generator(seed)).tolist()
    distances = torch.cdist(patches.double(), patches.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert len(set(chosen)) == 25
    for step in range(1, 25):
        nearest = distances[:, chosen[:step]].min(dim=1).values
        assert chosen[step] == int(nearest.argmax())


def test_it_is_within_twice_the_best_choice() -> None:
    patches = torch.rand(12, 2, generator=_generator(4), dtype=torch.float64)
    distances = torch.cdist(patches, patches)
    best = min(float(distances[:, list(pick)].min(dim=1).values.max()) for pick in combinations(range(12), 3))
    for seed in range(6):
        chosen = greedy_coreset(patches, 3, _generator(seed))
        assert float(distances[:, chosen].min(dim=1).values.max()) <= 2 * best


def test_equal_patches_are_not_chosen_twice() -> None:
    assert sorted(greedy_coreset(torch.ones(6, 3), 6, _generator()).tolist()) == list(range(6))


def test_the_size_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"\[1, 4\], got 5"):
        greedy_coreset(torch.zeros(4, 2), 5, _generator())


def test_a_projection_nearly_keeps_distances() -> None:
    patches = torch.randn(80, 600, generator=_generator())
    found = torch.pdist(project(patches, 256, _generator(1))) / torch.pdist(patches)
    assert abs(float(found.mean()) - 1.0) < 0.02
    assert float(found.std()) < 0.06  # 1 / sqrt(2 * 256) = 0.044
    assert project(patches, 600, _generator()) is patches
