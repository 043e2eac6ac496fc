"""Where networks are cut, and those that cannot be: long ways round, loose weights, shared layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_transfer.backbones.find_cut import activations_of, evaluating, find_cut
from lightning_transfer.backbones.pyramid import find_pyramid
from lightning_transfer.errors import BackboneError
from tests.unit.backbones.cut_toys import SEQUENCES, image_backbone


def ids(*modules: nn.Module) -> set[int]:
    return {id(value) for module in modules for value in module.parameters()}


class Chain(nn.Module):
    """Three layers in a row, with a way round the second where it is asked for."""

    def __init__(self, way_round: bool = False) -> None:
        super().__init__()
        self.stem, self.middle, self.top = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.way_round = way_round

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.stem(x))
        second = torch.relu(self.middle(first))
        return self.top(second + first if self.way_round else second)


def test_the_cut_lies_before_the_first_layer_that_trains() -> None:
    net, x = Chain(), torch.randn(2, 3)
    assert find_cut(net, x, ids(net.top), rows=2).layers == ("middle",)
    assert find_cut(net, x, ids(net.middle), rows=2).layers == ("stem",)
    assert find_cut(net, x, set(), rows=2).is_whole


def test_a_way_round_moves_the_cut_to_where_there_is_none() -> None:
    net, x = Chain(way_round=True), torch.randn(2, 3)
    assert find_cut(net, x, ids(net.top), rows=2).layers == ("stem",)


def test_nothing_before_the_first_layer_that_trains_is_said() -> None:
    net = Chain()
    with pytest.raises(BackboneError, match="`Chain` has no layer that ends before the first one that trains"):
        find_cut(net, torch.randn(2, 3), ids(net.stem), rows=2)


def test_what_reads_the_input_again_cannot_be_cut() -> None:
    class Again(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return self.top(torch.relu(self.middle(torch.relu(self.stem(x)))) + x.sum())

    net = Again()
    with pytest.raises(BackboneError, match=r"`Again` cannot be cut.*after `middle`, `stem` reads more"):
        find_cut(net, torch.randn(2, 3), ids(net.top), rows=2)
    assert find_cut(net, torch.randn(2, 3), set(), rows=2).is_whole


def test_weights_that_are_used_without_a_call_count_as_used_where_they_are() -> None:
    class Loose(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return self.top(torch.relu(self.middle(torch.relu(self.stem(x) * self.top.weight.sum()))))

    net = Loose()
    # `top` is called last, but its weight rules what `middle` gives: its gradient from there would be lost.
    assert find_cut(net, torch.randn(2, 3), {id(net.top.weight)}, rows=2).layers == ("stem",)
    assert all(value.requires_grad for value in net.parameters())


def test_attention_that_calls_none_of_its_layers_counts_from_its_begin() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    cut = find_cut(net.eval(), torch.randn(2, 3, 4), ids(net[1].self_attn), rows=2)
    assert cut.layers == ("0",)


def test_a_layer_that_runs_twice_is_no_place_for_a_cut_and_runs_as_ever() -> None:
    class Shared(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.top(self.act(self.middle(self.act(self.stem(x)))))

    net, x = Shared(), torch.randn(2, 3)
    cut = find_cut(net, x, ids(net.top), rows=2)
    assert cut.layers == ("middle",)
    assert "act" not in cut.skipped


@pytest.mark.parametrize(("open_from", "expected"), [(4, "layer3"), (2, "layer1")])
def test_an_image_network_is_cut_at_its_stages(open_from: int, expected: str) -> None:
    backbone, size = image_backbone("timm/test_resnet")
    above = ids(*(getattr(backbone, f"layer{number}") for number in range(open_from, 5)))
    assert find_cut(backbone, torch.randn(2, *size), above, rows=2).layers == (expected,)


def test_layers_that_a_decoder_reads_are_kept_too() -> None:
    backbone, size = image_backbone("timm/test_resnet")
    layers = find_pyramid(backbone, size).layers
    assert layers == ("act1", "layer1", "layer2", "layer3", "layer4")
    images = torch.randn(2, *size)
    cut = find_cut(backbone, images, ids(backbone.layer3, backbone.layer4), rows=2, reads=layers)
    assert cut.layers == ("act1", "layer1", "layer2")
    whole = find_cut(backbone, images, set(), rows=2, reads=layers)
    assert whole.layers[:5] == layers
    assert not whole.is_whole
    with pytest.raises(BackboneError, match=r"no layer `layer9`.*Did you mean `layer"):
        find_cut(backbone, images, set(), rows=2, reads=["layer9"])


def test_finding_changes_nothing() -> None:
    backbone, size = image_backbone("timm/test_resnet")
    backbone.train()
    backbone.layer1.eval()
    images = torch.randn(2, *size)
    modes = [part.training for part in backbone.modules()]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    find_cut(backbone, images, ids(backbone.layer4), rows=2)
    assert [part.training for part in backbone.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in backbone.modules())


def test_evaluating_asks_nobody() -> None:
    net = Chain().train()
    net.train = lambda mode=True: pytest.fail("asked")  # type: ignore[method-assign]
    with evaluating(net):
        assert not net.training
        assert not torch.is_grad_enabled()
    assert net.training


def test_ids_and_masks_are_kept_where_code_between_the_layers_reads_them() -> None:
    pytest.importorskip("transformers")
    backbone, input = SEQUENCES["bert"]()
    cut = find_cut(backbone, input, ids(backbone.model.encoder.layer[2]), rows=2)
    kept = activations_of(cut, cut.prefix(backbone, input), input)
    assert sorted(kept.given) == ["attention_mask", "input_ids"]
    assert kept.sizes == {}
    backbone, wave = SEQUENCES["wav2vec2"]()
    cut = find_cut(backbone, wave, ids(backbone.model.encoder.layers[2]), rows=2)
    kept = activations_of(cut, cut.prefix(backbone, wave), wave)
    assert sorted(kept.given) == ["attention_mask"]
    assert kept.sizes["input_values"].tolist() == [[2000], [2000]]
