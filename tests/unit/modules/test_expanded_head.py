"""Old logits bit for bit, a norm that stands still, and rows that start where the features say. Oracle: numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_transfer.modules.expanded_head import ExpandedHead, FixedNorm

WIDTH = 48


def _features(count: int = 37, seed: int = 0) -> torch.Tensor:
    return 5.0 + 3.0 * torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def _old(norm: bool = False, dropout: bool = False, classes: int = 70) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    if norm:
        layers.append(nn.BatchNorm1d(WIDTH, affine=False))
    if dropout:
        layers.append(nn.Dropout(0.5))
    head = nn.Sequential(*layers, nn.Linear(WIDTH, classes))
    for _ in range(3):
        head(_features())
    return head.eval()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 37])
def test_old_logits_are_the_same_bit_for_bit(norm: bool, dropout: bool, batch: int) -> None:
    old, features = _old(norm, dropout), _features(batch)
    before = old(features)
    head = ExpandedHead(old, nn.Linear(WIDTH, 7)).eval()
    assert torch.equal(head(features)[:, :70], before)
    again = ExpandedHead(head, nn.Linear(WIDTH, 3)).eval()
    assert torch.equal(again(features)[:, :70], before)
    assert torch.equal(again(features)[:, 70:77], head(features)[:, 70:])
    assert (head.sizes, again.sizes) == ((70, 7), (70, 7, 3))
    assert [name for name, _ in again.named_parameters()][:2] == ["parts.0.weight", "parts.0.bias"]


def test_old_logits_do_not_move_with_the_batch_in_train_mode() -> None:
    old = _old(norm=True)
    before = old(_features())
    head = ExpandedHead(old, nn.Linear(WIDTH, 7)).train()
    state = {name: value.clone() for name, value in head.state_dict().items()}
    for seed in range(3):
        head(_features(seed=seed) * 10.0)
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())
    assert torch.equal(head(_features())[:, :70], before)


def test_dropout_is_kept() -> None:
    head = ExpandedHead(_old(dropout=True), nn.Linear(WIDTH, 7)).train()
    assert not torch.equal(head(_features()), head(_features()))


def test_a_fixed_norm_is_an_affine_batch_norm_in_eval_mode() -> None:
    norm = nn.BatchNorm1d(WIDTH)
    norm.weight.data.uniform_(0.5, 2.0)
    norm.bias.data.normal_()
    norm(_features())
    fixed = FixedNorm(norm).train()
    assert torch.equal(fixed(_features(seed=4)), norm.eval()(_features(seed=4)))
    assert set(fixed.state_dict()) == {"running_mean", "running_var", "weight", "bias"}


def test_old_and_new_rows_train() -> None:
    head = ExpandedHead(_old(), nn.Linear(WIDTH, 7)).train()
    head(_features()).logsumexp(dim=1).sum().backward()
    assert all(part.weight.grad is not None and part.weight.grad.abs().sum() > 0 for part in head.parts)


def test_a_head_without_a_last_linear_layer_is_refused() -> None:
    with pytest.raises(TypeError, match="ends with a linear layer, got ReLU"):
        ExpandedHead(nn.Sequential(nn.Linear(WIDTH, 3), nn.ReLU()), nn.Linear(WIDTH, 2))


def test_a_layer_for_other_features_is_refused() -> None:
    with pytest.raises(ValueError, match=f"takes {WIDTH} features, and the new layer 5"):
        ExpandedHead(_old(), nn.Linear(5, 2))


@pytest.mark.parametrize("norm", [False, True])
def test_new_rows_start_where_the_means_are(norm: bool) -> None:
    old = _old(norm, dropout=True)
    features = _features(60, seed=2)
    target = torch.arange(60) % 3
    features[target == 1] += 4.0
    head = ExpandedHead(old, nn.Linear(WIDTH, 3)).train()
    parts = [part.weight.clone() for part in head.parts[:-1]]
    head.start_new_rows(features, target)

    entering = (old[0](features) if norm else features).numpy().astype(np.float64)
    weight, bias = (value.detach().double().numpy() for value in old[-1].parameters())
    best = (entering @ weight.T + bias).max(axis=1)
    means = np.stack([entering[target.numpy() == place].mean(axis=0) for place in range(3)])
    away = means - means.mean(axis=0)
    rows = away / np.linalg.norm(away, axis=1, keepdims=True) * np.linalg.norm(weight, axis=1).mean()
    biases = [best[target.numpy() == place].mean() - rows[place] @ means[place] for place in range(3)]
    np.testing.assert_allclose(head.parts[-1].weight.detach().numpy(), rows, atol=2e-4)
    np.testing.assert_allclose(head.parts[-1].bias.detach().numpy(), biases, rtol=1e-3, atol=2e-3)
    assert all(torch.equal(part.weight, before) for part, before in zip(head.parts, parts, strict=False))
    first = head.parts[-1].weight.clone()
    head.start_new_rows(features, target)
    assert torch.equal(head.parts[-1].weight, first)


def test_a_class_without_records_keeps_its_row_and_one_class_alone_is_enough() -> None:
    head = ExpandedHead(_old(), nn.Linear(WIDTH, 2))
    before = head.parts[-1].weight[0].clone()
    features = _features(5)
    head.start_new_rows(features, torch.ones(5, dtype=torch.long))
    assert torch.equal(head.parts[-1].weight[0], before)
    old, new = head(features).split((70, 2), dim=1)
    assert new[:, 1].mean().item() == pytest.approx(old.amax(dim=1).mean().item(), rel=1e-4)
