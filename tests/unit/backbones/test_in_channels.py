"""Oracles: timm's ``adapt_input_conv``, and the network itself on a repeated picture."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models import adapt_input_conv
from torch import nn

from lightning_transfer.backbones import load_backbone
from lightning_transfer.backbones.in_channels import (
    adapt_first_convolution,
    adapted_weight,
    first_convolution,
    native_channels,
    with_channels,
)
from lightning_transfer.errors import BackboneError

WEIGHT = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_weights_are_timms(channels: int) -> None:
    torch.testing.assert_close(adapted_weight(WEIGHT, channels), adapt_input_conv(channels, WEIGHT.clone()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_in_float(dtype: torch.dtype) -> None:
    weight = WEIGHT.to(dtype)
    found = adapted_weight(weight, 1)
    assert found.dtype == dtype
    torch.testing.assert_close(found, adapt_input_conv(1, weight.clone()))


@pytest.mark.parametrize(
    "name", ["torchvision/squeezenet1_1", "timm/test_resnet", "timm/test_vit", "timm/test_convnext"]
)
def test_one_channel_is_the_network_on_the_repeated_picture(name: str) -> None:
    torch.manual_seed(0)
    before, card = load_backbone(name, weights="random")
    side = card.input_size[1] if card.input_size else 64
    picture = torch.randn(2, 1, side, side)
    with torch.no_grad():
        expected = before.eval()(picture.repeat(1, 3, 1, 1))
        adapt_first_convolution(before, 1)
        torch.testing.assert_close(before(picture), expected, rtol=1e-4, atol=1e-5)


def test_the_card_says_it_and_rebuilds_it() -> None:
    backbone, card = load_backbone("torchvision/squeezenet1_1", weights="random", in_channels=1)
    assert card.input_size is not None
    assert card.input_size[0] == 1
    assert card.mean == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    assert card.std == pytest.approx([(0.229 + 0.224 + 0.225) / 3])
    assert card.num_parameters == sum(item.numel() for item in backbone.parameters())
    again, same = load_backbone(card.name, weights="random", card=card)
    assert same == card
    again.load_state_dict(backbone.state_dict())


def test_pretrained_weights_are_adapted_and_not_dropped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, _ = load_backbone("timm/test_resnet", weights="random")
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    adapted, card = load_backbone("timm/test_resnet", weights=tmp_path / "weights.safetensors", in_channels=1)
    found = first_convolution(source), first_convolution(adapted)
    assert found[0] is not None
    assert found[1] is not None
    torch.testing.assert_close(found[1][1].weight, found[0][1].weight.sum(1, keepdim=True))
    # A file of a network that was adapted before fits, too.
    save_file(adapted.state_dict(), tmp_path / "grey.safetensors")
    (tmp_path / "card.yaml").write_text(
        f"architecture: timm/test_resnet\ninput_size: {list(card.input_size or ())}\nmean: [0.5]\nstd: [0.5]\n"
    )
    again, grey = load_backbone("timm/test_resnet", weights=tmp_path / "grey.safetensors", card=tmp_path / "card.yaml")
    assert grey.input_size == card.input_size
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in adapted.state_dict().items())


def test_more_channels_repeat_mean_and_deviation() -> None:
    backbone, card = load_backbone("torchvision/squeezenet1_1", weights="random", in_channels=4)
    assert card.mean == (0.485, 0.456, 0.406, 0.485)
    assert backbone(torch.zeros(1, 4, 64, 64)).shape == (1, card.num_features)


def test_the_same_number_changes_nothing() -> None:
    _, plain = load_backbone("torchvision/squeezenet1_1", weights="random")
    assert load_backbone("torchvision/squeezenet1_1", weights="random", in_channels=3)[1] == plain


def test_a_frozen_convolution_stays_frozen() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3).requires_grad_(False))
    adapt_first_convolution(layers, 1)
    assert not next(layers.parameters()).requires_grad


def test_what_cannot_be_adapted_is_said() -> None:
    with pytest.raises(BackboneError, match="has no convolution that reads pictures"):
        adapt_first_convolution(nn.Linear(3, 3), 1)
    with pytest.raises(BackboneError, match="reads 48 channels in 1 group"):
        adapt_first_convolution(nn.Conv2d(48, 8, 3), 1)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3))
    layers.transform_input = True  # type: ignore[assignment] # as torchvision's inception_v3 has it
    with pytest.raises(BackboneError, match="transform_input"):
        adapt_first_convolution(layers, 1)
    with pytest.raises(ValueError, match="got 0"):
        adapted_weight(WEIGHT, 0)


def test_a_text_model_has_no_channels() -> None:
    built = load_backbone("torchvision/squeezenet1_1", weights="random")
    from dataclasses import replace

    from lightning_transfer.backbones.libraries import Built

    text = replace(built[1], modality="text")
    assert native_channels(text) is None
    with pytest.raises(BackboneError, match=r"`in_channels: 1` is for networks that read pictures.*reads text"):
        with_channels(Built(built[0], 512), text, 1)
