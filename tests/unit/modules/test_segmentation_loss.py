"""Oracles: torch's cross-entropy, and the Dice written out with numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_transfer.modules.segmentation_loss import UNKNOWN, dice_loss, pixel_cross_entropy, segmentation_loss

PREDS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
TARGET[0, 0] = UNKNOWN


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_cross_entropy_is_torchs_mean(weight: torch.Tensor | None) -> None:
    wanted = F.cross_entropy(PREDS, TARGET, weight=weight, ignore_index=UNKNOWN)
    assert torch.allclose(pixel_cross_entropy(PREDS, TARGET, weight), wanted)


def test_dice_is_that_of_the_formula() -> None:
    chances, known = PREDS.softmax(1).numpy(), (TARGET != UNKNOWN).numpy()
    found = []
    for name in (1, 2):
        p, t = chances[:, name][known], (TARGET.numpy() == name)[known]
        found.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    assert dice_loss(PREDS, TARGET).item() == pytest.approx(np.mean(found), rel=1e-5)


def test_unknown_pixels_have_no_gradient() -> None:
    preds = PREDS.clone().requires_grad_(True)
    segmentation_loss(preds, TARGET).backward()
    assert preds.grad is not None
    assert not preds.grad[0, :, 0].any()
    assert preds.grad[1].abs().sum() > 0


def test_a_batch_without_known_pixels_costs_nothing() -> None:
    preds = PREDS.clone().requires_grad_(True)
    loss = segmentation_loss(preds, torch.full_like(TARGET, UNKNOWN), weight=torch.ones(3))
    loss.backward()
    assert loss.item() == 0
    assert preds.grad is not None
    assert not preds.grad.any()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_mixes_both(share: float) -> None:
    wanted = share * dice_loss(PREDS, TARGET) + (1 - share) * pixel_cross_entropy(PREDS, TARGET)
    assert torch.allclose(segmentation_loss(PREDS, TARGET, dice_share=share), wanted)


def test_half_precision_is_computed_in_full() -> None:
    found = segmentation_loss(PREDS.bfloat16(), TARGET)
    assert found.dtype == torch.float32
    assert torch.allclose(found, segmentation_loss(PREDS, TARGET), atol=2e-2)
