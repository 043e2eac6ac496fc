"""Pixel AUROC, PRO and regions. Oracles: scikit-learn, the definition in loops, scipy.ndimage.label."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score

from lightning_transfer.metrics import (
    PixelCounts,
    count_pixels,
    label_regions,
    pixel_auroc,
    region_overlap,
    resample,
    score_bins,
)


def _images(seed: int, levels: int | None = 50, count: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Anomaly maps of different sizes, with blots as defects; the first image is good."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for number in range(count):
        shape = (18 + 3 * number, 25 - 2 * number)
        mask = rng.random(shape) < (0.0 if number == 0 else 0.12)
        scores = rng.normal(size=shape) + 1.2 * mask
        maps.append(scores if levels is None else np.round(scores * levels / 6) / levels)
        masks.append(mask)
    return maps, masks


def _count(maps: list[np.ndarray], masks: list[np.ndarray]) -> PixelCounts:
    bins = score_bins(np.concatenate([item.ravel() for item in maps]))
    return PixelCounts.join([count_pixels(item, mask, bins) for item, mask in zip(maps, masks, strict=True)])


def _pro(maps: list[np.ndarray], masks: list[np.ndarray], max_fpr: float) -> float:
    """Every threshold, every region, one by one; the area by fine steps of the false positive rate."""
    thresholds = sorted({float(value) for item in maps for value in item.ravel()}, reverse=True)
    points = [(0.0, 0.0)]
    for threshold in thresholds:
        false, normal, shares = 0, 0, []
        for item, mask in zip(maps, masks, strict=True):
            above = item >= threshold
            false += int((above & ~mask).sum())
            normal += int((~mask).sum())
            regions, number = label(mask, structure=np.ones((3, 3)))
            shares += [float(above[regions == region].mean()) for region in range(1, number + 1)]
        points.append((false / normal, float(np.mean(shares))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            y1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            x1 = max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


@pytest.mark.parametrize("seed", range(3))
def test_pixel_auroc_matches_scikit_learn(seed: int) -> None:
    maps, masks = _images(seed)
    found = pixel_auroc(np.ones((1, 4)), _count(maps, masks))
    flat = [np.concatenate([item.ravel() for item in parts]) for parts in (masks, maps)]
    assert found[0] == pytest.approx(roc_auc_score(*flat), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_region_overlap_matches_its_definition(seed: int, max_fpr: float) -> None:
    maps, masks = _images(seed)
    assert region_overlap(np.ones((1, 4)), _count(maps, masks), max_fpr)[0] == pytest.approx(_pro(maps, masks, max_fpr))


def test_weights_are_copies_of_images() -> None:
    maps, masks = _images(1)
    weights = np.array([[1.0, 0.0, 2.0, 1.0]])
    chosen = [0, 2, 2, 3]
    copies = [maps[place] for place in chosen], [masks[place] for place in chosen]
    counts = _count(maps, masks)
    assert region_overlap(weights, counts)[0] == pytest.approx(_pro(*copies, 0.3))
    flat = [np.concatenate([item.ravel() for item in parts]) for parts in (copies[1], copies[0])]
    assert pixel_auroc(weights, counts)[0] == pytest.approx(roc_auc_score(*flat), abs=1e-12)


def test_many_scores_are_binned_with_little_error() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((300, 300), dtype=bool)
    mask[40:60, 40:45] = mask[200:203, 100:260] = True
    scores = rng.normal(size=mask.shape) + 2.0 * mask
    counts = _count([scores], [mask])
    assert counts.normal.shape[1] < 2200
    assert pixel_auroc(np.ones((1, 1)), counts)[0] == pytest.approx(
        roc_auc_score(mask.ravel(), scores.ravel()), abs=1e-4
    )
    fine = count_pixels(scores, mask, np.unique(scores)[1:])
    assert region_overlap(np.ones((1, 1)), counts)[0] == pytest.approx(
        region_overlap(np.ones((1, 1)), fine)[0], abs=1e-3
    )


def test_perfect_and_useless_maps() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[3:9, 4:30] = True
    for scores, expected in ((mask.astype(float), 1.0), (np.zeros(mask.shape), 0.15)):
        # A constant map has one threshold: the curve is the straight line to (1, 1), of mean 0.15 up to 0.3.
        counts = _count([scores], [mask])
        assert region_overlap(np.ones((1, 1)), counts)[0] == pytest.approx(expected)
        assert pixel_auroc(np.ones((1, 1)), counts)[0] == pytest.approx(1.0 if expected == 1.0 else 0.5)


def test_undefined_is_nan() -> None:
    maps, masks = _images(0)
    good = _count(maps[:1], masks[:1])
    assert np.isnan(pixel_auroc(np.ones((1, 1)), good)[0])
    assert np.isnan(region_overlap(np.ones((1, 1)), good)[0])
    full = _count([np.ones((2, 2))], [np.ones((2, 2), dtype=bool)])
    assert np.isnan(pixel_auroc(np.ones((1, 1)), full)[0])
    assert np.isnan(region_overlap(np.ones((1, 1)), full)[0])


def test_it_fits_the_bootstrap() -> None:
    maps, masks = _images(2)
    counts = _count(maps, masks)
    drawn = resample(
        lambda weights: {"auroc": pixel_auroc(weights, counts), "pro": region_overlap(weights, counts)},
        ["a", "a", "b", "c"],
        n_resamples=50,
    )
    assert drawn.interval("pro").low <= drawn.point["pro"] <= drawn.interval("pro").high


@pytest.mark.parametrize("share", [0.02, 0.3, 0.45, 0.7, 1.0])
def test_regions_match_scipy(share: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = rng.random((int(rng.integers(1, 25)), int(rng.integers(1, 25)))) < share
        expected, number = label(mask, structure=np.ones((3, 3)))
        found, count = label_regions(mask)
        assert count == number
        assert len({*zip(found.ravel(), expected.ravel(), strict=True)}) == number + (not mask.all())
        assert np.array_equal(found > 0, mask)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), \(3, 2\)"):
        count_pixels(np.zeros((2, 2)), np.zeros((3, 2), dtype=bool), np.array([0.5]))
    with pytest.raises(ValueError, match="1 that are NaN"):
        count_pixels(np.array([[np.nan]]), np.zeros((1, 1), dtype=bool), np.array([0.5]))
    with pytest.raises(ValueError, match="got 0"):
        region_overlap(np.ones((1, 4)), _count(*_images(0)), max_fpr=0)
