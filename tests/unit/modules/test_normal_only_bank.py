"""The memory bank. Oracles: scikit-learn's NearestNeighbors, equation 7 written out, the bank without a group."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from lightning_transfer.modules import normal_only_bank
from lightning_transfer.modules.normal_only_bank import FENCE, MemoryBank


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _bank(patches: torch.Tensor, num_neighbours: int = 9) -> MemoryBank:
    bank = MemoryBank(num_neighbours)
    bank.fill(patches)
    return bank


@pytest.mark.parametrize("block", [1, 100, 2**24])
def test_distances_match_scikit_learn(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normal_only_bank, "_BLOCK", block)
    memory, features = _randn(40, 6) + 20.0, _randn(3, 6, 4, 5, seed=1) + 20.0
    _, grid = _bank(memory)(features)
    rows = features.permute(0, 2, 3, 1).reshape(-1, 6)
    expected, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(memory.double()).kneighbors(rows.double())
    np.testing.assert_allclose(grid.reshape(-1), expected[:, 0], rtol=1e-4)


def test_a_remembered_patch_has_distance_zero() -> None:
    memory = _randn(50, 4) * 100.0
    distance, nearest = _bank(memory).nearest(memory)
    assert torch.equal(distance, torch.zeros(50))
    assert torch.equal(nearest, torch.arange(50))


def test_the_score_is_equation_7() -> None:
    memory, features = _randn(30, 5).double(), _randn(4, 5, 3, 3, seed=2)
    scores, _ = _bank(memory, num_neighbours=3)(features)
    plain, _ = _bank(memory, num_neighbours=0)(features)
    index = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(memory)
    for image, score, distance in zip(features.double(), scores, plain, strict=True):
        rows = image.permute(1, 2, 0).reshape(-1, 5)
        distances, places = index.kneighbors(rows, 1)
        worst = int(distances[:, 0].argmax())
        assert float(distance) == pytest.approx(distances[worst, 0], rel=1e-5)
        around = index.kneighbors(memory[places[worst]], return_distance=False)[0]
        above = math.exp(distances[worst, 0])
        below = sum(math.exp((rows[worst] - memory[item]).norm()) for item in around)
        assert float(score) == pytest.approx((1 - above / below) * distances[worst, 0], rel=1e-4)


def test_a_single_patch_or_huge_distances_still_give_a_score() -> None:
    scores, _ = _bank(torch.zeros(1, 2))(torch.full((1, 2, 1, 1), 3.0))
    assert float(scores) == pytest.approx(math.sqrt(18))
    scores, _ = _bank(_randn(20, 2))(torch.full((1, 2, 2, 2), 1e6))
    assert torch.isfinite(scores).all()


def test_leaving_a_group_out_is_a_bank_without_it() -> None:
    patches = _randn(60, 4)
    images = torch.arange(60) // 10
    groups = torch.tensor([0, 0, 1, 2, 2, 2])
    bank = _bank(patches[::3], num_neighbours=4)
    found = bank.left_out_scores(patches, images, groups, groups[images][::3])
    for image in range(6):
        kept = patches[::3][groups[images][::3] != groups[image]]
        rows = patches[images == image].T.reshape(1, 4, 10, 1)
        expected, _ = _bank(kept, num_neighbours=4)(rows)
        assert float(found[image]) == pytest.approx(float(expected), rel=1e-5)


def test_fewer_allowed_patches_than_neighbours() -> None:
    patches = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [9.0, 0.0]])
    groups = torch.tensor([0, 0, 0, 1])
    found = _bank(patches, num_neighbours=9).left_out_scores(patches, torch.arange(4), groups, groups)
    # One patch is left for the first three: no neighbourhood, the plain distance. Three for the last.
    torch.testing.assert_close(found[:3], torch.tensor([9.0, math.sqrt(82), 5.0]))
    near, far, other = 5.0, 9.0, math.sqrt(82)
    weight = 1 - math.exp(near) / (math.exp(near) + math.exp(far) + math.exp(other))
    assert float(found[3]) == pytest.approx(weight * near, rel=1e-5)


def test_nothing_to_compare_with_gives_nan() -> None:
    patches = _randn(6, 2)
    groups = torch.zeros(3, dtype=torch.long)
    found = _bank(patches).left_out_scores(patches, torch.tensor([0, 0, 0, 1, 1, 1]), groups, torch.zeros(6))
    assert found.isnan().all()


def test_logits_rise_with_the_score_and_are_robust_deviations() -> None:
    bank = _bank(_randn(5, 2))
    good = torch.exp(_randn(1001, seed=5) * 0.2 + 1.0)
    polluted = torch.cat([good, torch.full((40,), 1e4)])
    bank.standardise(polluted)
    assert float(bank.location) == pytest.approx(1.0, abs=0.03)
    assert float(bank.scale) == pytest.approx(0.2, rel=0.1)
    scores = torch.linspace(0.0, 50.0, 200)
    logits = bank.logits(scores)[:, 0]
    assert (logits.diff() > 0).sum() >= 198
    assert torch.isfinite(logits).all()
    fence = torch.exp(bank.location + FENCE * bank.scale)
    assert float(bank.logits(fence[None])) == pytest.approx(0.0, abs=1e-4)
    assert (bank.logits(good) > 0).float().mean() < 0.005


@pytest.mark.parametrize("scores", [[], [2.0], [2.0, 2.0, 2.0], [0.0, 0.0]])
def test_few_or_equal_scores_give_finite_logits(scores: list[float]) -> None:
    bank = _bank(_randn(5, 2))
    bank.standardise(torch.tensor(scores))
    assert torch.isfinite(bank.logits(torch.tensor([0.0, 1.0, 1e5]))).all()


def test_any_number_of_patches_loads() -> None:
    bank = _bank(_randn(7, 3))
    bank.standardise(torch.tensor([1.0, 2.0, 3.0]))
    other = MemoryBank()
    other.load_state_dict(bank.state_dict())
    assert all(torch.equal(other.state_dict()[name], value) for name, value in bank.state_dict().items())
    assert len(other) == 7
    other.empty()
    assert len(other) == 0
    assert float(other.scale) == 1.0


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1"):
        MemoryBank(1)
    with pytest.raises(ValueError, match="empty"):
        MemoryBank()(torch.zeros(1, 2, 3, 3))
