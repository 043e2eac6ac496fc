"""Patches, their sample, and the map. Oracles: loops over neighbours, scipy's Gaussian, the binomial law."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lightning_transfer.modules.normal_only_patches import PatchReservoir, anomaly_map, patch_features


def test_a_patch_is_the_mean_of_its_neighbours() -> None:
    fine = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = patch_features([fine])
    for row in range(4):
        for column in range(5):
            window = fine[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            torch.testing.assert_close(found[:, :, row, column], window.mean(dim=(2, 3)))


def test_the_coarser_map_is_brought_to_the_finer_grid() -> None:
    fine, coarse = torch.randn(1, 2, 4, 4), torch.arange(4.0).reshape(1, 1, 2, 2)
    for maps in ([fine, coarse], [coarse, fine]):
        found = patch_features(maps)
        assert found.shape == (1, 3, 4, 4)
    # Its four places are averaged to 1.5 each, so the interpolation is flat.
    torch.testing.assert_close(patch_features([fine, coarse])[:, 2], torch.full((1, 4, 4), 1.5))
    half = patch_features([fine.half(), coarse.half()])
    assert half.dtype == torch.float32


@pytest.mark.parametrize(("sigma", "size"), [(4.0, (32, 48)), (1.5, (17, 9)), (4.0, (6, 5))])
def test_smoothing_matches_scipy(sigma: float, size: tuple[int, int]) -> None:
    grid = torch.rand(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    found = anomaly_map(grid, size, sigma)
    for item, one in zip(grid.double().numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(one, gaussian_filter(item, sigma, mode="reflect", truncate=4.0), atol=1e-6)


def test_no_smoothing_leaves_the_interpolation() -> None:
    grid = torch.tensor([[[0.0, 1.0]]])
    torch.testing.assert_close(anomaly_map(grid, (1, 4), 0.0), torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))


def test_below_its_capacity_the_reservoir_keeps_everything_in_order() -> None:
    reservoir = PatchReservoir(10, torch.Generator().manual_seed(0))
    patches, images = torch.randn(9, 3), torch.arange(9) // 2
    reservoir.add(patches[:4], images[:4])
    reservoir.add(patches[4:], images[4:])
    assert torch.equal(reservoir.patches, patches)
    assert torch.equal(reservoir.images, images)


def test_every_patch_of_the_stream_has_the_same_chance() -> None:
    counts = torch.zeros(40)
    for seed in range(600):
        reservoir = PatchReservoir(10, torch.Generator().manual_seed(seed))
        for start in range(0, 40, 7):
            places = torch.arange(start, min(start + 7, 40))
            reservoir.add(places[:, None].float(), places)
        assert len(reservoir.images.unique()) == 10
        assert torch.equal(reservoir.patches[:, 0].long(), reservoir.images)
        counts[reservoir.images] += 1
    # Binomial(600, 1/4): mean 150, deviation 10.6; four deviations.
    assert counts.sum() == 6000
    assert counts.min() > 107
    assert counts.max() < 193
    assert abs(counts[:10].mean() - 150) < 14


def test_the_same_stream_gives_the_same_sample() -> None:
    kept = []
    for _ in range(2):
        reservoir = PatchReservoir(5, torch.Generator().manual_seed(3))
        reservoir.add(torch.arange(50.0)[:, None], torch.arange(50))
        kept.append(reservoir.images)
    assert torch.equal(*kept)
