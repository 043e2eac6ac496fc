"""Oracles: torch's losses, torchvision's focal and timm's asymmetric one, scikit-learn's weights, closed forms."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from timm.loss import AsymmetricLossMultiLabel
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from lightning_transfer.modules.losses import (
    asymmetric_loss,
    balanced_class_weights,
    balanced_label_weights,
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


SOFT = torch.tensor([[1.0, 0.0, float("nan"), 0.7], [0.0, 0.3, 1.0, float("nan")], [1.0, 1.0, 0.0, 0.0]])
SCORES = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("gamma_positive", "gamma_negative", "margin"), [(0, 4, 0.05), (1, 4, 0.05), (2, 2, 0.0)])
def test_asymmetric_is_timms_on_hard_labels(gamma_positive: int, gamma_negative: int, margin: float) -> None:
    target = (SCORES.flip(0) > 0).double()
    oracle = AsymmetricLossMultiLabel(gamma_negative, gamma_positive, margin, reduction="mean")
    got = asymmetric_loss(SCORES, target, gamma_positive=gamma_positive, gamma_negative=gamma_negative, margin=margin)
    torch.testing.assert_close(got.float(), oracle(SCORES, target))


def test_asymmetric_without_exponents_and_margin_is_cross_entropy() -> None:
    target = SOFT.double().nan_to_num(0.4)
    got = asymmetric_loss(SCORES, target, gamma_positive=0, gamma_negative=0, margin=0)
    torch.testing.assert_close(got, F.binary_cross_entropy_with_logits(SCORES, target))


@pytest.mark.parametrize("loss", [asymmetric_loss, lambda *a, **k: binary_loss(*a, focal_gamma=2.0, **k)])
def test_a_soft_label_is_the_mean_of_both_and_a_missing_one_nothing(loss: Callable[..., torch.Tensor]) -> None:
    weight = torch.tensor([[1.0, 2.0], [0.5, 3.0], [1.0, 1.0], [0.2, 0.7]], dtype=torch.float64)
    total, weights = torch.tensor(0.0, dtype=torch.float64), 0.0
    for row, column in itertools.product(range(3), range(4)):
        share = float(SOFT[row, column])
        if share != share:
            continue
        for side, part in ((0.0, 1 - share), (1.0, share)):
            factor = part * float(weight[column, int(side)])
            total = total + factor * loss(SCORES[row : row + 1, column], torch.tensor([side], dtype=torch.float64))
            weights += factor
    torch.testing.assert_close(loss(SCORES, SOFT.double(), weight=weight), total / weights)


def test_soft_labels_without_options_are_torchs_cross_entropy() -> None:
    target = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(binary_loss(SCORES, target), F.binary_cross_entropy_with_logits(SCORES, target))


@pytest.mark.parametrize("loss", [asymmetric_loss, binary_loss])
def test_missing_labels_move_nothing(loss: Callable[..., torch.Tensor]) -> None:
    preds = torch.tensor([[300.0, -300.0], [2.0, 1.0]], requires_grad=True)
    found = loss(preds, torch.tensor([[float("nan")] * 2, [float("nan"), 1.0]]))
    found.backward()
    assert found.isfinite()
    assert preds.grad is not None
    assert preds.grad[0].tolist() == [0.0, 0.0]
    assert preds.grad[1, 0] == 0.0
    assert preds.grad[1, 1] != 0.0
    preds.grad = None
    nothing = loss(preds, torch.full((2, 2), float("nan")))
    nothing.backward()
    assert nothing == 0.0
    assert preds.grad.eq(0).all()


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_asymmetric_is_finite_with_its_gradient_where_probabilities_round(margin: float) -> None:
    preds = torch.tensor([[90.0, -90.0, 90.0, -90.0]], requires_grad=True)
    found = asymmetric_loss(preds, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), margin=margin)
    found.backward()
    assert found.isfinite()
    assert preds.grad is not None
    assert preds.grad.isfinite().all()
    assert asymmetric_loss(preds.half(), torch.tensor([[0.0, 0.0, 1.0, 1.0]])).dtype == torch.float32


def test_asymmetric_gradient_by_finite_differences() -> None:
    preds = SCORES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: asymmetric_loss(x, SOFT.double(), gamma_positive=1.0), (preds,))


def test_balanced_label_weights_are_scikit_learns_for_each_label() -> None:
    positives, negatives = [10, 40], [30, 5]
    got = balanced_label_weights(positives, negatives)
    for row, (have, lack) in zip(got, zip(positives, negatives, strict=True), strict=True):
        labels = np.array([1] * have + [0] * lack)
        expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
        torch.testing.assert_close(row.double(), torch.tensor(expected), rtol=1e-6, atol=0)


def test_balanced_label_weights_have_a_limit_and_refuse_nothing_to_weigh() -> None:
    [row] = balanced_label_weights([1], [10_000], max_positive_weight=20)
    assert (row[1] / row[0]).item() == pytest.approx(20)
    assert (row[1] * 1 + row[0] * 10_000).item() == pytest.approx(10_001)
    with pytest.raises(ValueError, match=r"positives \[0\]"):
        balanced_label_weights([0], [5])
    with pytest.raises(ValueError, match=r"got 0.5"):
        balanced_label_weights([1], [5], max_positive_weight=0.5)
