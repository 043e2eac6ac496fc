"""Which layers are read, and that what is read is what they gave. Oracle: timm's `features_only`."""

import pytest
import timm
import torch
from torch import nn

from lightning_transfer.backbones import load_backbone
from lightning_transfer.backbones.feature_maps import gradient_maps, mid_level_layers, read_maps
from lightning_transfer.errors import BackboneError


def _backbone(name: str) -> nn.Module:
    return load_backbone(name, weights="random")[0].eval()


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("torchvision/resnet18", ("layer2", "layer3")),
        ("torchvision/wide_resnet50_2", ("layer2", "layer3")),
        ("torchvision/mobilenet_v2", ("features.6", "features.13")),
        ("torchvision/squeezenet1_1", ("features.4", "features.7")),
        ("timm/convnext_atto", ("stages.1", "stages.2")),
        ("timm/mobilenetv3_small_050", ("blocks.1", "blocks.3")),
        ("timm/test_vit", ("blocks.2", "blocks.4")),
        ("embedded/formula_resnet_tiny", ("layer2", "layer3")),
    ],
)
def test_layers_of_middle_depth(name: str, layers: tuple[str, str]) -> None:
    backbone = _backbone(name)
    size = 160 if name == "timm/test_vit" else 128
    assert mid_level_layers(backbone, (3, size, size)) == layers


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_defaults_are_the_strides_8_and_16_of_timm(name: str) -> None:
    torch.manual_seed(0)
    oracle = timm.create_model(name, features_only=True, out_indices=(2, 3) if "conv" not in name else (1, 2)).eval()
    backbone = _backbone(f"timm/{name}")
    state = {key.replace("stages_", "stages.").replace("stem_", "stem."): v for key, v in oracle.state_dict().items()}
    missing = backbone.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    layers = mid_level_layers(backbone, (3, 64, 64))
    with torch.no_grad():
        _, maps = read_maps(backbone, layers, images)
        expected = oracle(images)
    assert [tuple(item.shape[2:]) for item in maps] == [(8, 12), (4, 6)]
    if "mobilenet" in name:  # timm's stride-8 feature is the same block; later ones may be read before a last block
        expected = expected[:1]
    for item, other in zip(maps, expected, strict=False):
        torch.testing.assert_close(item, other)


def test_modes_weights_and_hooks_stay() -> None:
    backbone = load_backbone("timm/test_resnet", weights="random")[0].train()
    backbone.bn1.eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    layers = mid_level_layers(backbone, (3, 64, 64))
    read_maps(backbone.eval(), layers, torch.zeros(1, 3, 64, 64))
    assert not any(module._forward_hooks for module in backbone.modules())
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    backbone.train()
    backbone.bn1.eval()
    mid_level_layers(backbone, (3, 64, 64))
    assert not backbone.bn1.training
    assert backbone.conv1.training


def test_channels_last_and_tokens_become_maps() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()
            self.tokens = nn.Identity()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.inner(images[:, :, ::8, ::8].permute(0, 2, 3, 1))
            tokens = torch.cat([torch.full((len(images), 2, 3), -1.0), found.flatten(1, 2)], dim=1)
            return self.tokens(tokens).mean(1)

    images = torch.randn(2, 3, 64, 64)
    _, (inner, tokens) = read_maps(Last(), ["inner", "tokens"], images)
    assert torch.equal(inner, images[:, :, ::8, ::8])
    assert torch.equal(tokens, images[:, :, ::8, ::8])
    wide = torch.randn(2, 3, 64, 128)
    assert torch.equal(read_maps(Last(), ["inner"], wide)[1][0], wide[:, :, ::8, ::8])
    with pytest.raises(BackboneError, match="tokens need square images"):
        read_maps(Last(), ["tokens"], wide)


def test_a_wrong_layer_is_named() -> None:
    backbone = _backbone("torchvision/resnet18")
    with pytest.raises(BackboneError, match=r"no layer `layer22`\. Did you mean `layer2`"):
        read_maps(backbone, ["layer22"], torch.zeros(1, 3, 64, 64))


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(BackboneError, match="Name them in `layers`"):
        mid_level_layers(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("timm/test_resnet", "layer4"),
        ("timm/test_convnext", "stages.3"),
        ("torchvision/mobilenet_v2", "features.18"),
        ("timm/test_vit", "blocks.4"),  # of six blocks: the class token has left the patches of the last one behind
    ],
)
def test_gradients_are_those_of_the_last_map_that_matters(name: str, layer: str) -> None:
    """Oracle: a hook on the layer that one would name by hand."""
    torch.manual_seed(0)
    backbone, card = load_backbone(name, weights="random")
    backbone.eval()
    images = torch.randn(2, 3, *((64, 64) if card.input_size is None else card.input_size[1:]))
    found, gradients = gradient_maps(backbone, images, lambda features: features[:, 0] ** 2)
    kept = []
    handle = backbone.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output))
    score = (backbone(images) ** 2)[:, 0].sum()
    handle.remove()
    [slope] = torch.autograd.grad(score, kept[0])
    if kept[0].ndim == 3:  # tokens: one class token before the patches
        side = int((kept[0].shape[1] - 1) ** 0.5)
        shape = (2, side, side, -1)
        expected, slope = (item[:, 1:].reshape(shape).permute(0, 3, 1, 2) for item in (kept[0], slope))
    else:
        expected = kept[0]
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(gradients, slope)


def test_a_backbone_that_keeps_no_map_has_no_gradients_of_one() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    with pytest.raises(BackboneError, match="No layer of `Sequential` keeps a map of an image of 8 x 8 pixels"):
        gradient_maps(flat, torch.randn(1, 3, 8, 8), lambda features: features[:, 0])
