from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from lightning_transfer.evaluation import Outputs, collect_features, collect_outputs
from lightning_transfer.evaluation.tiles import join_logits, join_tiles
from lightning_transfer.types import Batch, ModelOutput, Schema

CLASSES = ("good", "pit", "crack")


def _schema(top_k, task="multiclass", classes=CLASSES, negative="good") -> Schema:
    return Schema(task, classes, negative_class=negative, preprocessing={"tiling": {"top_k": top_k}})


LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("top_k", [1, 3, 7, 9, None])
def test_an_image_has_the_mean_probabilities_of_its_most_defective_tiles(top_k: int | None) -> None:
    probs = softmax(LOGITS.double().numpy(), axis=1)
    best = np.argsort(probs[:, 0])[: top_k or 7]
    joined = softmax(join_logits(LOGITS, _schema(top_k)).double().numpy())
    np.testing.assert_allclose(joined, probs[best].mean(axis=0), atol=1e-6)
    assert 1 - joined[0] == pytest.approx(np.sort(1 - probs[:, 0])[::-1][: top_k or 7].mean(), abs=1e-6)


def test_the_negative_class_may_stand_anywhere() -> None:
    probs = softmax(LOGITS.double().numpy(), axis=1)
    joined = join_logits(LOGITS, _schema(1, negative="crack")).double().numpy()
    np.testing.assert_allclose(softmax(joined), probs[probs[:, 2].argmin()], atol=1e-6)


@pytest.mark.parametrize("top_k", [1, 3, None])
@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_binary_and_multi_label_rank_each_logit_by_itself(task: str, top_k: int | None) -> None:
    classes = ("good", "bad") if task == "binary" else CLASSES
    logits = LOGITS[:, :1] if task == "binary" else LOGITS
    expected = np.sort(expit(logits.double().numpy()), axis=0)[::-1][: top_k or 7].mean(axis=0)
    found = join_logits(logits, _schema(top_k, task, classes, None))
    np.testing.assert_allclose(expit(found.double().numpy()), expected, atol=1e-6)
    if top_k == 1:
        torch.testing.assert_close(found, logits.max(dim=0).values)


def test_sure_tiles_are_still_ranked() -> None:
    logits = torch.tensor([[0.0, 200.0, 0.0], [0.0, 300.0, 0.0]])  # both have a score of exactly 1 in floating point
    found = join_logits(logits, _schema(1))
    assert float(found[1] - found[0]) == pytest.approx(300.0)


def test_one_tile_that_is_no_number_makes_the_image_undefined() -> None:
    for top_k in (1, 2, None):
        logits = LOGITS.clone()
        logits[4, 1] = float("nan")
        assert join_logits(logits, _schema(top_k)).isnan().any()


def test_no_tile_ranks_without_a_negative_class() -> None:
    with pytest.raises(ValueError, match="`tile_top_k` is 2"):
        join_logits(LOGITS, _schema(2, negative=None))
    mean = softmax(LOGITS.double().numpy(), axis=1).mean(axis=0)
    joined = softmax(join_logits(LOGITS, _schema(None, negative=None)).double().numpy())
    np.testing.assert_allclose(joined, mean, atol=1e-6)


# Three records of 3, 1 and 2 tiles.
INDEX = torch.tensor([[0, 0, 3], [0, 1, 3], [0, 2, 3], [1, 0, 1], [2, 0, 2], [2, 1, 2]])
SPANS = [slice(0, 3), slice(3, 4), slice(4, 6)]


def _batches(order: list[int], size: int = 2, schema_logits: bool = True) -> list[ModelOutput]:
    features, target = torch.arange(6.0)[:, None] ** 2, torch.tensor([1, 1, 1, 0, 2, 2])
    logits = LOGITS[:6] if schema_logits else torch.zeros(6, 0)
    return [
        ModelOutput(logits[part], features[part], target[part], INDEX[part]) for part in torch.tensor(order).split(size)
    ]


def test_outputs_have_one_row_a_record_whatever_the_order_and_the_repeats() -> None:
    outputs = Outputs.from_batches(_batches([5, 2, 0, 3, 1, 4, 2, 5]), _schema(1))
    assert outputs.index.tolist() == [0, 1, 2]
    assert outputs.target.tolist() == [1, 0, 2]
    torch.testing.assert_close(outputs.features[:, 0], torch.tensor([5 / 3, 9.0, 41 / 2]))
    for row, span in zip(outputs.logits, SPANS, strict=True):
        torch.testing.assert_close(row, join_logits(LOGITS[span], _schema(1)))


def test_an_image_of_which_tiles_are_lacking_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        outputs = Outputs.from_batches(_batches([0, 1, 2, 3, 4]), _schema(1))  # as limit_test_batches does
    assert outputs.index.tolist() == [0, 1]
    assert "1 of 3 records are left out" in caplog.text
    with pytest.raises(ValueError, match="none of the 2 records all tiles"):
        Outputs.from_batches(_batches([0, 4]), _schema(1))


def test_features_alone_need_no_schema_and_logits_do() -> None:
    outputs = Outputs.from_batches(_batches([0, 1, 2, 3, 4, 5], schema_logits=False))
    assert outputs.logits.shape == (3, 0)
    assert outputs.index.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="width 3 cannot be joined without the schema"):
        Outputs.from_batches(_batches([0, 1, 2, 3, 4, 5]))


def test_unknown_targets_stay_unknown() -> None:
    found = join_tiles(LOGITS[:6], torch.zeros(6, 1), None, INDEX, _schema(1))
    assert found[2] is None


class _Module(torch.nn.Module):
    schema = _schema(1)

    def predict_step(self, batch: Batch, batch_idx: int) -> ModelOutput:
        return ModelOutput(batch.input, batch.input[:, :2], batch.target, batch.index)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value[:, :2]


def test_collecting_joins_by_the_modules_own_schema() -> None:
    loader = [Batch(LOGITS[part], None, INDEX[part]) for part in torch.arange(6).split(4)]
    outputs = collect_outputs(_Module(), loader, show_progress=False)
    torch.testing.assert_close(outputs.logits[2], join_logits(LOGITS[4:6], _schema(1)))
    features = collect_features(_Module(), loader, show_progress=False)
    torch.testing.assert_close(features.features[2], LOGITS[4:6, :2].mean(dim=0))
