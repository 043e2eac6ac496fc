"""It finds what filters can see, keeps the shares of the classes, and refuses masks of one class."""

import numpy as np
import pytest
import torch

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.segmentation_plain import FILTER_SIZES, fit_pixels, pixel_features


def _pair(place: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(place)
    target = torch.zeros(24, 24, dtype=torch.long)
    top, left = rng.integers(0, 18, 2)
    target[top : top + 5, left : left + 5] = 1
    image = 2.0 * (target == 1) + torch.from_numpy(rng.standard_normal((24, 24)))
    return image[None].float(), target


def test_bright_squares_are_found() -> None:
    found = fit_pixels(_pair, 20, 2)
    image, target = _pair(100)
    logs = found(image)
    assert logs.shape == (2, 24, 24)
    assert torch.allclose(logs.exp().sum(0), torch.ones(24, 24), atol=1e-4)
    drawn = logs.argmax(0)
    assert (drawn[target == 1] == 1).float().mean() > 0.6
    assert drawn[target == 0].float().mean() < 0.05


def test_it_is_a_function_of_data_and_seed() -> None:
    image, _ = _pair(100)
    assert torch.equal(fit_pixels(_pair, 10, 2, max_images=4)(image), fit_pixels(_pair, 10, 2, max_images=4)(image))


def test_a_class_that_training_lacks_is_never_drawn() -> None:
    logs = fit_pixels(_pair, 10, 3)(_pair(100)[0])
    assert logs[2].max() < -15


def test_filters_are_local() -> None:
    image = torch.zeros(1, 64, 64)
    image[0, 0, 0] = 9.0
    found = pixel_features(image).reshape(64, 64, -1)
    assert found.shape[2] == 1 + 4 * len(FILTER_SIZES)
    assert found[0, 0].any()
    assert not found[63, 63].any()


def test_one_class_alone_teaches_nothing() -> None:
    with pytest.raises(TransferError, match="one class alone"):
        fit_pixels(lambda place: (_pair(place)[0], torch.zeros(24, 24, dtype=torch.long)), 3, 2)
