"""Oracle: scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_transfer.metrics.label_auroc import LabelAUROC, auroc_of_columns


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (80, 4), generator=generator) / 5  # with ties
    target = (torch.rand(80, 4, generator=generator) < torch.tensor([0.5, 0.1, 0.3, 0.2])).float()
    target[::7, 1] = torch.nan
    target[::5, 2] = 0.6  # soft
    return scores, target


def _expected(scores: torch.Tensor, target: torch.Tensor) -> list[float]:
    found = []
    for column in range(scores.shape[1]):
        known = (target[:, column] == 0) | (target[:, column] == 1)
        found.append(roc_auc_score(target[known, column], scores[known, column]))
    return found


def test_each_column_is_scikit_learns() -> None:
    scores, target = _data()
    np.testing.assert_allclose(auroc_of_columns(scores, target), _expected(scores, target), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_ranks_what_it_has(dtype: torch.dtype) -> None:
    scores, target = _data()
    low = scores.to(dtype)
    np.testing.assert_allclose(auroc_of_columns(low, target), _expected(low.double(), target), rtol=1e-12)


def test_batches_are_the_whole_and_reset_forgets() -> None:
    scores, target = _data()
    metric = LabelAUROC()
    metric.update(torch.ones(1, 4), torch.ones(1, 4))
    metric.reset()
    for part in range(0, 80, 16):
        metric.update(scores[part : part + 16], target[part : part + 16])
    torch.testing.assert_close(metric.compute(), auroc_of_columns(scores, target))


def test_states_that_come_joined_from_processes() -> None:
    scores, target = _data()
    metric = LabelAUROC()
    metric.preds, metric.target = scores, target  # type: ignore[assignment] # as torchmetrics' sync leaves them
    metric._update_count = 1
    torch.testing.assert_close(metric.compute(), auroc_of_columns(scores, target))


def test_undefined_is_nan() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.3], [0.2, 0.3, torch.nan], [0.3, 0.1, 0.2]])
    target = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [torch.nan, 0.0, 0.0]])
    assert auroc_of_columns(scores, target).isnan().all()


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="of one shape"):
        auroc_of_columns(torch.zeros(3, 2), torch.zeros(3))
