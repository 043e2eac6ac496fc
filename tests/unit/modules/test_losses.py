"""Oracles: torch's own losses, torchvision's focal loss, scikit-learn's balanced weights, closed forms."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from lightning_transfer.modules.losses import (
    balanced_class_weights,
    binary_loss,
    ctc_loss,
    log_prior,
    multiclass_loss,
    next_token_loss,
    supervised_contrastive_loss,
)

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


def _contrastive_by_hand(features: torch.Tensor, target: torch.Tensor, temperature: float) -> float:
    """Equation 2 of Khosla et al. 2020, term by term."""
    units = [row / row.norm() for row in features.double()]
    total, anchors = 0.0, 0
    for i, anchor in enumerate(units):
        others = [j for j in range(len(units)) if j != i]
        partners = [j for j in others if target[j] == target[i]]
        if not partners:
            continue
        bottom = sum(torch.exp(anchor @ units[j] / temperature) for j in others)
        terms = [torch.log(torch.exp(anchor @ units[j] / temperature) / bottom) for j in partners]
        total, anchors = total - float(sum(terms)) / len(partners), anchors + 1
    return total / anchors


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrastive_loss_is_the_papers_equation(temperature: float) -> None:
    features = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 1])  # 3 is alone
    got = supervised_contrastive_loss(features, target, temperature).item()
    assert got == pytest.approx(_contrastive_by_hand(features, target, temperature), rel=1e-4)
    # The length of a feature has no say.
    scaled = supervised_contrastive_loss(features * torch.arange(1, 10)[:, None], target, temperature).item()
    assert scaled == pytest.approx(got, rel=1e-5)


def test_contrastive_loss_without_any_partner_is_zero_with_a_gradient_of_zero() -> None:
    features = torch.randn(3, 4, requires_grad=True)
    loss = supervised_contrastive_loss(features, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(features.grad, torch.zeros(3, 4))


def test_contrastive_loss_has_a_finite_gradient_that_lowers_it() -> None:
    features = torch.randn(8, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    target = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    loss = supervised_contrastive_loss(features, target)
    loss.backward()
    assert features.grad.isfinite().all()
    assert supervised_contrastive_loss(features - 0.01 * features.grad, target) < loss


def _all_paths(logs: torch.Tensor, target: list[int], blank: int) -> float:
    """Minus the logarithm of the summed probability of every path that reads as the target; by enumeration."""
    total = 0.0
    for path in itertools.product(range(logs.shape[1]), repeat=logs.shape[0]):
        if [token for token, _ in itertools.groupby(path) if token != blank] == target:
            total += float(logs[range(len(path)), list(path)].sum().exp())
    return -np.log(total)


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_sums_all_paths_and_averages_over_tokens_and_items(blank: int) -> None:
    tokens = [token for token in range(3) if token != blank]
    rows = [[tokens[0], tokens[1]], [tokens[1], tokens[1]], [tokens[0]]]
    logits = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lengths = torch.tensor([5, 4, 2])
    target = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, -100)
    logs = logits.log_softmax(-1)
    each = [_all_paths(logs[i, : lengths[i]], row, blank) / len(row) for i, row in enumerate(rows)]
    loss, too_short = ctc_loss(logits, lengths, target, blank=blank)
    assert loss.item() == pytest.approx(np.mean(each), rel=1e-5)
    assert not too_short.any()


def test_ctc_tells_of_texts_without_a_path_and_they_count_as_zero() -> None:
    logits = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    # One frame each is enough but for equal neighbours, which need a blank between.
    target = torch.tensor([[1, 2, 3], [1, 1, 2], [1, -100, -100], [-100, -100, -100]])
    lengths = torch.tensor([3, 3, 0, 2])
    loss, too_short = ctc_loss(logits, lengths, target)
    assert too_short.tolist() == [False, True, True, False]
    each = F.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        target.clamp(min=0),
        lengths,
        torch.tensor([3, 3, 1, 0]),
        reduction="none",
    )
    assert each.isinf().tolist() == too_short.tolist(), "what is told is what is infinite"
    assert loss.item() == pytest.approx((each[0] / 3 + each[3]).item() / 4)
    loss.backward()
    assert bool(torch.isfinite(logits.grad).all())
    assert not logits.grad[1].any()


def test_next_tokens_are_cross_entropy_over_what_is_wanted() -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[1, 2, -100, -100], [0, 4, 3, 3]])
    expected = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100)
    torch.testing.assert_close(next_token_loss(logits, target), expected)
    nothing = next_token_loss(logits.requires_grad_(), torch.full((2, 4), -100))
    nothing.backward()
    assert nothing.item() == 0.0
    assert not logits.grad.any()
