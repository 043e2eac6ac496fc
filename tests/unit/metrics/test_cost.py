from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from lightning_transfer.metrics import saved_activation_bytes, trainable_memory


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)

    def forward(self, batch):
        image = batch["image"] if isinstance(batch, dict) else batch
        return self.head(self.layers(image).mean((2, 3)))


def test_a_chain_of_linear_layers_keeps_its_inputs():
    layers = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5))
    assert saved_activation_bytes(layers, torch.zeros(7, 10)) == 4 * (10 + 20)


def test_batch_size_does_not_change_the_bytes_of_a_sample():
    layers = nn.Sequential(nn.Linear(10, 20), nn.GELU(), nn.Linear(20, 5))
    assert saved_activation_bytes(layers, torch.zeros(1, 10)) == saved_activation_bytes(layers, torch.zeros(9, 10))


def test_a_storage_that_several_layers_keep_counts_once():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x):
            return self.a(x) + self.b(x)

    assert saved_activation_bytes(Twice(), torch.zeros(2, 8)) == 4 * 8


def test_half_precision_halves_the_bytes():
    layers = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5)).bfloat16()
    assert saved_activation_bytes(layers, torch.zeros(7, 10, dtype=torch.bfloat16)) == 2 * (10 + 20)


def test_below_the_deepest_open_layer_nothing_is_kept():
    layers = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 30), nn.Linear(30, 5))
    for parameter in layers[:2].parameters():
        parameter.requires_grad_(False)
    assert saved_activation_bytes(layers, torch.zeros(2, 10)) == 4 * 30
    assert saved_activation_bytes(layers.requires_grad_(False), torch.zeros(2, 10)) == 0


def test_large_weights_and_buffers_do_not_count():
    # The weight of the second layer is saved to pass the gradient on; so are the running statistics, in eval mode.
    layers = nn.Sequential(nn.Linear(4, 500), nn.BatchNorm1d(500), nn.Linear(500, 1)).eval()
    assert saved_activation_bytes(layers, torch.zeros(50, 4)) < 4 * (4 + 500 * 3)


def test_nothing_of_the_module_changes():
    module = Block().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with torch.no_grad():
        assert saved_activation_bytes(module, {"image": torch.randn(2, 3, 8, 8, generator=torch.Generator())}) > 0
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training
    assert not torch.is_inference_mode_enabled()


def test_nothing_is_held_afterwards():
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    seen = []
    layers[1].register_forward_hook(lambda _, __, output: seen.append(weakref.ref(output)))
    saved_activation_bytes(layers, torch.zeros(2, 4))
    gc.collect()
    assert seen[0]() is None


def test_tuple_is_passed_as_arguments_and_dict_as_one():
    assert saved_activation_bytes(nn.Bilinear(3, 4, 2), (torch.zeros(2, 3), torch.zeros(2, 4))) == 4 * (3 + 4)


@pytest.mark.parametrize(
    ("example", "match"),
    [(torch.zeros(0, 3), r"\(0, 3\)"), (torch.tensor(1.0), r"\(\)"), ("text", "got str"), ({}, "got dict")],
)
def test_an_example_without_samples(example, match):
    with pytest.raises(ValueError, match=match):
        saved_activation_bytes(nn.Linear(3, 1), example)


def test_memory_of_a_stage_by_hand():
    layers = nn.Sequential(nn.Linear(10, 20), nn.BatchNorm1d(20, affine=False), nn.Linear(20, 5))
    layers[0].requires_grad_(False)
    result = trainable_memory(layers, torch.zeros(4, 10), batch_size=32, optimizer_states=1)
    head = 20 * 5 + 5
    buffers = 4 * (20 + 20) + 8
    assert result.parameters == 4 * (10 * 20 + 20 + head) + buffers
    assert result.gradients == 4 * head
    assert result.optimizer_state == 4 * head
    assert result.activations == 4 * 20 * 32
    assert result.total == result.parameters + 2 * 4 * head + 4 * 20 * 32


def test_tied_weights_count_once_and_activations_may_be_left_out():
    first, second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    second.weight = first.weight
    result = trainable_memory(nn.Sequential(first, second))
    assert (result.parameters, result.gradients, result.optimizer_state, result.activations) == (144, 144, 288, 0)


@pytest.mark.parametrize(("options", "match"), [({"batch_size": 0}, "got 0"), ({"optimizer_states": -1}, "got -1")])
def test_wrong_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        trainable_memory(nn.Linear(2, 2), **options)
