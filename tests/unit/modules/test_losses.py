"""Oracles: torch's own losses, torchvision's focal loss, scikit-learn's balanced weights, closed forms."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from lightning_transfer.modules.losses import balanced_class_weights, binary_loss, log_prior, multiclass_loss

PREDS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 3, 0, 0, 1, 2, 0, 0, 3, 1])


def test_multiclass_is_cross_entropy_by_default() -> None:
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    got = multiclass_loss(PREDS, TARGET, weight=weight, label_smoothing=0.1)
    assert torch.equal(got, F.cross_entropy(PREDS, TARGET, weight=weight, label_smoothing=0.1))


def test_focal_matches_its_closed_form_and_weights_are_normalised() -> None:
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    probability = PREDS.double().softmax(1).gather(1, TARGET[:, None]).squeeze(1)
    expected = (weight[TARGET] * (1 - probability) ** 2 * -probability.log()).sum() / weight[TARGET].sum()
    got = multiclass_loss(PREDS.double(), TARGET, weight=weight.double(), focal_gamma=2.0)
    torch.testing.assert_close(got, expected)


def test_logit_adjustment_makes_the_prior_the_neutral_answer() -> None:
    # With logits of zero the adjusted softmax is the prior itself, so the loss is its cross-entropy.
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1])
    got = multiclass_loss(torch.zeros(12, 4), TARGET, adjustment=prior.log())
    torch.testing.assert_close(got, -prior[TARGET].log().mean())


def test_binary_focal_matches_torchvision() -> None:
    target = (TARGET > 1).float()
    got = binary_loss(PREDS[:, 0], target, focal_gamma=2.0)
    torch.testing.assert_close(got, sigmoid_focal_loss(PREDS[:, 0], target, alpha=-1, gamma=2.0, reduction="mean"))


def test_binary_weights_are_those_of_the_true_side() -> None:
    target = (TARGET > 1).float()
    weight = torch.tensor([[0.5, 3.0]])
    factor = torch.where(target > 0.5, 3.0, 0.5)
    each = F.binary_cross_entropy_with_logits(PREDS[:, 0], target, reduction="none")
    got = binary_loss(PREDS[:, :1], target[:, None], weight=weight)
    torch.testing.assert_close(got, (each * factor).sum() / factor.sum())


def test_missing_labels_do_not_count_and_get_no_gradient() -> None:
    preds = PREDS.clone().requires_grad_()
    target = (PREDS > 0).float()
    target[:, 2] = float("nan")
    loss = binary_loss(preds, target)
    loss.backward()
    known = [0, 1, 3]
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(PREDS[:, known], (PREDS[:, known] > 0).float()))
    assert preds.grad is not None
    assert torch.count_nonzero(preds.grad[:, 2]) == 0
    assert torch.isfinite(preds.grad).all()


def test_a_batch_without_any_label_is_zero_not_nan() -> None:
    assert binary_loss(PREDS, torch.full_like(PREDS, float("nan"))).item() == 0.0


def test_label_smoothing_of_binary_moves_targets_towards_half() -> None:
    target = (TARGET > 1).float()
    expected = F.binary_cross_entropy_with_logits(PREDS[:, 0], target * 0.8 + 0.1)
    torch.testing.assert_close(binary_loss(PREDS[:, 0], target, label_smoothing=0.2), expected)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [50, 7, 3])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_class_weights([50, 7, 3]).numpy(), expected, rtol=1e-6)


def test_balanced_weights_need_every_class() -> None:
    with pytest.raises(ValueError, match=r"\[50, 0\]"):
        balanced_class_weights([50, 0])


def test_log_prior_is_finite_for_an_absent_class() -> None:
    prior = log_prior({"a": 9}, ["a", "b"])
    assert torch.isfinite(prior).all()
    assert prior[0] > prior[1]
