"""Oracles: scikit-learn's F1 and Jaccard over pixels, distances of all pairs of border pixels."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics import f1_score, jaccard_score

from lightning_transfer import metrics
from lightning_transfer.metrics import OverlapCounts, SegmentationDice

RNG = np.random.default_rng(0)
PREDS, TARGET = RNG.integers(0, 3, (4, 9, 11)), RNG.integers(0, 3, (4, 9, 11))


def _counts() -> OverlapCounts:
    return OverlapCounts.join([metrics.count_overlap(a, b, 3) for a, b in zip(PREDS, TARGET, strict=True)])


def test_dice_and_iou_are_f1_and_jaccard_of_pixels() -> None:
    weights = np.ones((1, 4))
    flat = TARGET.ravel(), PREDS.ravel()
    assert metrics.dice(weights, _counts())[0] == pytest.approx(f1_score(*flat, average=None))
    assert metrics.iou(weights, _counts())[0] == pytest.approx(jaccard_score(*flat, average=None))


def test_weights_count_pictures_as_often() -> None:
    weights = np.array([[2.0, 0.0, 1.0, 0.0]])
    chosen = [0, 0, 2]
    flat = TARGET[chosen].ravel(), PREDS[chosen].ravel()
    assert metrics.dice(weights, _counts())[0] == pytest.approx(f1_score(*flat, average=None))


def test_unknown_pixels_do_not_count() -> None:
    target = TARGET[0].copy()
    target[:4] = -100
    found = metrics.count_overlap(PREDS[0], target, 3)
    assert found.true.sum() == target[4:].size
    known = metrics.count_overlap(PREDS[0][4:], target[4:], 3)
    assert all(np.array_equal(one, other) for one, other in zip(found, known, strict=True))


def test_a_class_that_is_not_there_has_no_dice() -> None:
    zeros = np.zeros((2, 2), dtype=np.int64)
    found = metrics.count_overlap(zeros, zeros, 2)
    assert np.isnan(metrics.dice(np.ones((1, 1)), found)[0, 1])
    assert np.isnan(metrics.image_dice(found)[0, 1])


def test_image_dice_is_of_pictures_that_show_the_class() -> None:
    shown, drawn = np.array([[0, 1]]), np.array([[1, 1]])
    found = OverlapCounts.join([metrics.count_overlap(drawn, shown, 2), metrics.count_overlap(drawn, 0 * shown, 2)])
    assert metrics.image_dice(found)[:, 1].tolist() == pytest.approx([2 / 3, np.nan], nan_ok=True)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_hausdorff_is_that_of_all_pairs(spacing: tuple[float, float]) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        one, two = (np.kron(rng.random((5, 6)) > 0.6, np.ones((4, 4))) > 0 for _ in range(2))
        borders = []
        for mask in (one, two):
            padded = np.pad(mask, 1)
            inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
            borders.append(np.argwhere(mask & ~inside) * spacing)
        pairs = cdist(*borders)
        wanted = max(np.percentile(pairs.min(1), 95), np.percentile(pairs.min(0), 95))
        assert metrics.hausdorff95(one, two, spacing) == pytest.approx(wanted)


def test_hausdorff_of_nothing_is_undefined() -> None:
    some, none = np.ones((2, 2), dtype=bool), np.zeros((2, 2), dtype=bool)
    assert np.isnan(metrics.hausdorff95(some, none))
    assert np.isnan(metrics.hausdorff95(none, some))


def test_the_metric_of_validation_is_the_macro_f1_of_the_shown_classes() -> None:
    metric = SegmentationDice(4)  # the fourth class is never there
    logits = torch.nn.functional.one_hot(torch.from_numpy(PREDS), 4).movedim(-1, 1).float()
    for half in (slice(0, 1), slice(1, 4)):
        metric.update(logits[half], torch.from_numpy(TARGET[half]))
    wanted = f1_score(TARGET.ravel(), PREDS.ravel(), labels=[1, 2], average="macro")
    assert metric.compute().item() == pytest.approx(wanted)


def test_validation_without_anything_shown_is_undefined() -> None:
    metric = SegmentationDice(2)
    metric.update(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    assert torch.isnan(metric.compute())


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(9, 11\) and \(3, 3\)"):
        metrics.count_overlap(PREDS[0], np.zeros((3, 3), dtype=np.int64), 3)
    with pytest.raises(ValueError, match="class 2, and there are 2"):
        metrics.count_overlap(PREDS[0], TARGET[0], 2)
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(2, 1\)"):
        metrics.hausdorff95(np.ones((1, 2), dtype=bool), np.ones((2, 1), dtype=bool))
