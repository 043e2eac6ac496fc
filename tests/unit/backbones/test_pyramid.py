"""The oracle is timm, which knows the channels and the strides of its networks' features."""

import pytest
import timm
import torch
from torch import nn

from lightning_transfer.backbones import load_backbone
from lightning_transfer.backbones.feature_maps import read_maps
from lightning_transfer.backbones.pyramid import find_pyramid, unreached_parameters
from lightning_transfer.errors import BackboneError

SIZE = (3, 64, 64)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "test_efficientnet"])
def test_the_levels_are_those_that_timm_states(name: str) -> None:
    backbone, _ = load_backbone(f"timm/{name}", weights="random")
    found = find_pyramid(backbone, SIZE)
    info = timm.create_model(name, features_only=True).feature_info
    assert [round(max(stride)) for stride in found.strides] == info.reduction()
    # timm ends an EfficientNet before its last convolution, which here belongs to the backbone.
    assert list(found.channels)[:-1] == info.channels()[:-1]
    assert not found.is_flat


def test_blocks_of_a_vision_transformer_are_spread_through_the_depth() -> None:
    backbone, _ = load_backbone("timm/test_vit", weights="random")
    found = find_pyramid(backbone, (3, 160, 160))
    assert found.is_flat
    assert found.layers == ("blocks.1", "blocks.2", "blocks.4", "blocks.5")
    assert set(found.strides) == {(16.0, 16.0)}


def test_what_the_head_enlarges_again_is_no_level() -> None:
    backbone, _ = load_backbone("torchvision/vgg11", weights="random")
    found = find_pyramid(backbone, SIZE)
    assert "avgpool" not in found.layers
    assert [stride[0] for stride in found.strides] == [1, 2, 4, 8, 16, 32]


def test_looking_changes_nothing() -> None:
    backbone, _ = load_backbone("timm/test_resnet", weights="random")
    backbone.layer1.eval()
    modes = [part.training for part in backbone.modules()]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    state = torch.random.get_rng_state()
    unreached_parameters(backbone, find_pyramid(backbone, SIZE).layers, SIZE)
    assert [part.training for part in backbone.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(item.grad is None for item in backbone.parameters())


def test_unreached_parameters_have_no_gradient_and_the_others_do() -> None:
    backbone, _ = load_backbone("timm/test_vit", weights="random")
    size = (3, 160, 160)
    layers = find_pyramid(backbone, size).layers
    names = set(unreached_parameters(backbone, layers, size))
    assert names == {"norm.weight", "norm.bias"}
    _, maps = read_maps(backbone, layers, torch.randn(1, *size))
    sum(item.sum() for item in maps).backward()
    assert {name for name, item in backbone.named_parameters() if item.grad is None} == names


def test_layers_from_coarse_to_fine_are_refused() -> None:
    backbone, _ = load_backbone("timm/test_resnet", weights="random")
    with pytest.raises(BackboneError, match=r"from fine to coarse.*`layer3` 4 x 4, `layer1` 16 x 16"):
        find_pyramid(backbone, SIZE, ["layer3", "layer1"])


def test_a_network_without_maps_is_refused() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 8))
    with pytest.raises(BackboneError, match="Sequential` shows no layer with a map"):
        find_pyramid(backbone, (3, 4, 4))
