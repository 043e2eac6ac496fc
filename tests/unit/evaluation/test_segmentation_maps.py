"""Oracle: `ImagePreprocessing.restore_map`, which goes the same way with Pillow; PIL reads the masks back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_transfer.data import ImagePreprocessing, read_label_map
from lightning_transfer.evaluation.segmentation_maps import (
    class_colours,
    log_odds,
    overlay,
    present_classes,
    restore_logits,
    write_mask,
)


@pytest.mark.parametrize("pad", ["none", "mean", "reflect"])
@pytest.mark.parametrize("size", [(40, 60), (64, 64), (90, 50)])
def test_restoring_is_that_of_the_preprocessing(pad: str, size: tuple[int, int]) -> None:
    spec = ImagePreprocessing((32, 32), 1, (0.5,), (0.5,), pad=pad)
    frame = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    inner = spec.placement(*size)
    if inner.height <= size[0] and inner.width <= size[1]:  # Pillow smooths where it makes smaller
        found = restore_logits(torch.from_numpy(frame)[None], size, spec.to_dict())[0]
        assert np.allclose(found, spec.restore_map(frame, *size), atol=1e-4)


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    chance = 1 - torch.from_numpy(logits).softmax(0)[0].numpy()
    assert np.allclose(log_odds(logits), np.log(chance / (1 - chance)), atol=1e-5)
    assert log_odds(np.array([[[0.0]], [[200.0]]], dtype=np.float32)).item() == 200.0


def test_masks_are_numbers_with_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [2, 1, 0]])
    path = write_mask(tmp_path / "masks" / "a.png", labels, 3)
    assert np.array_equal(read_label_map(path), labels)
    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((2, 0)) == class_colours(3)[2]
    with pytest.raises(ValueError, match="from 0 to 1, at most 255, got 0 to 2"):
        write_mask(tmp_path / "b.png", labels, 2)


def test_names_and_colours_of_classes() -> None:
    assert present_classes(np.array([[0, 0]]), ("good", "pit")) == ()
    assert len(set(class_colours(8))) == 8


def test_an_overlay_leaves_the_rest_of_the_picture_grey() -> None:
    pixels = np.full((6, 6, 3), 90, dtype=np.uint8)
    drawn = np.zeros((6, 6), dtype=bool)
    drawn[1, 1] = True
    truth = np.zeros((6, 6), dtype=bool)
    truth[3:, 3:] = True
    found = overlay(pixels, drawn, truth)
    assert found[0, 0].tolist() == [90, 90, 90]
    assert len(set(found[1, 1].tolist())) > 1
    assert found[3, 3].tolist() != [90, 90, 90]
    assert found[4, 4].tolist() == [90, 90, 90]
