from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lightning_transfer.evaluation import slice_auroc
from lightning_transfer.evaluation.slice_auroc import FindingSliceAuroc, SliceAuroc


@pytest.mark.parametrize("levels", [6, 10_000], ids=["many ties", "few ties"])
def test_slices_and_their_rests_have_the_auroc_of_scikit_learn_with_weights(
    levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    n, groups = 90, 30
    scores, positive = rng.integers(0, levels, n).astype(float), rng.random(n) < 0.4
    masks = [rng.random(n) < 0.3, np.arange(n) < 20, np.arange(n) >= 20]
    codes, counts = rng.integers(0, groups, n), rng.integers(0, 3, (11, groups)).astype(float)
    monkeypatch.setattr(slice_auroc, "_CHUNK_BYTES", 8 * n * 4)  # four draws at a time
    own, rest = SliceAuroc(scores, positive, masks)(counts, codes)
    assert own.shape == rest.shape == (11, 3)
    for draw, row in enumerate(counts):
        for place, mask in enumerate(masks):
            for found, part in ((own, mask), (rest, ~mask)):
                expected = roc_auc_score(positive[part], scores[part], sample_weight=row[codes][part])
                assert found[draw, place] == pytest.approx(expected)


def test_without_a_positive_or_a_negative_it_is_undefined() -> None:
    scores, positive = np.arange(4.0), np.array([True, True, False, False])
    masks = [np.array([True, True, False, False]), np.array([True, False, True, False])]
    own, rest = SliceAuroc(scores, positive, masks)(
        np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]]), np.arange(4)
    )
    assert np.isnan(own).tolist() == [[True, False], [True, True]]
    assert np.isnan(rest).tolist() == [[True, False], [True, False]]


def test_several_findings_are_averaged_over_those_that_a_slice_has() -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 9, (60, 3)) / 8.0, (rng.random((60, 3)) < 0.4).astype(float)
    labels[rng.random((60, 3)) < 0.2] = np.nan
    mask = np.arange(60) % 3 == 0
    labels[mask, 2] = 0.0  # no positive of the third finding in the slice
    judge = FindingSliceAuroc([(name, scores[:, i], labels[:, i]) for i, name in enumerate("xyz")], [mask])
    own, inside, outside, single = judge(np.ones((1, 60)), np.arange(60))

    def expected(chosen: np.ndarray, column: int) -> float:
        known = chosen & ~np.isnan(labels[:, column])
        return float(roc_auc_score(labels[known, column], scores[known, column]))

    np.testing.assert_allclose(single[0, 0, :2], [expected(mask, 0), expected(mask, 1)])
    assert np.isnan(single[0, 0, 2])
    assert own[0, 0] == pytest.approx(np.mean([expected(mask, 0), expected(mask, 1)]))
    assert inside[0, 0] == own[0, 0]
    # The rest has the third, but is compared by the two that the slice has.
    assert outside[0, 0] == pytest.approx(np.mean([expected(~mask, 0), expected(~mask, 1)]))


def test_a_finding_that_nobody_has_a_label_of_is_left_out() -> None:
    nothing = np.full(4, np.nan)
    judge = FindingSliceAuroc(
        [("x", np.arange(4.0), np.array([0.0, 1, 0, 1])), ("y", np.arange(4.0), nothing)], [np.array([True] * 4)]
    )
    own, _, outside, single = judge(np.ones((2, 4)), np.arange(4))
    assert own[:, 0].tolist() == [0.75, 0.75]
    assert np.isnan(outside).all()
    assert np.isnan(single[..., 1]).all()
