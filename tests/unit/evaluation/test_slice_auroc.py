from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lightning_transfer.evaluation import slice_auroc
from lightning_transfer.evaluation.slice_auroc import SliceAuroc


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
