"""A restored model draws at the size of each picture, whatever the batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.data import ImagePreprocessing
from lightning_transfer.evaluation import Segmenter, load
from lightning_transfer.modules import SegmentationModule
from lightning_transfer.modules.transfer import CHECKPOINT_KEY
from lightning_transfer.types import Record, Schema


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = SegmentationModule("timm/test_resnet", weights="random")
    spec = ImagePreprocessing.from_card(module.card, 64, "reflect")
    module.use_schema(Schema(task="segmentation", classes=("good", "pit", "crack"), preprocessing=spec.to_dict()))
    module.configure_model()
    saved: dict = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(saved)
    assert CHECKPOINT_KEY in saved
    path = tmp_path_factory.mktemp("run") / "model.ckpt"
    torch.save(saved, path)
    return path


def _pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, size, dtype=np.uint8) for size in ((40, 70), (64, 64, 3), (90, 30))]


def test_masks_have_the_size_of_their_pictures(checkpoint: Path) -> None:
    predictor = load(checkpoint)
    assert isinstance(predictor, Segmenter)
    pictures = _pictures()
    found = predictor.predict([*pictures[:2], Record("third", pictures[2])], batch_size=2)
    assert [item.labels.shape for item in found] == [(40, 70), (64, 64), (90, 30)]
    assert [item.id for item in found] == ["0", "1", "third"]
    for item in found:
        assert np.allclose(item.probabilities.sum(axis=0), 1.0, atol=1e-5)
        assert np.array_equal(item.probabilities.argmax(axis=0), item.labels)
        assert item.score == pytest.approx(1 - item.probabilities[0].min(), abs=1e-5)
        assert item.predicted == tuple(("good", "pit", "crack")[n] for n in np.unique(item.labels) if n)


def test_the_batch_has_no_say(checkpoint: Path) -> None:
    predictor = load(checkpoint)
    one, all_ = (predictor.predict(_pictures(), batch_size=size) for size in (1, 3))
    for first, second in zip(one, all_, strict=True):
        assert np.allclose(first.probabilities, second.probabilities, atol=1e-4)
    assert predictor.predict([]) == []


def test_wrong_calls_are_refused(checkpoint: Path) -> None:
    predictor = load(checkpoint)
    with pytest.raises(TypeError, match="a sequence of items, got one str"):
        predictor.predict("a.png")
    with pytest.raises(ValueError, match="`batch_size` of at least 1, got 0"):
        predictor.predict(_pictures(), batch_size=0)
