"""Let a network that was pretrained on colours read pictures of one channel, or of another number of them."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.architectures import describe
from lightning_transfer.backbones.cards import complete
from lightning_transfer.backbones.libraries import Built
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import BackboneCard

__all__ = ["adapt_first_convolution", "adapted_weight", "first_convolution", "native_channels", "with_channels"]


def adapted_weight(weight: Tensor, in_channels: int) -> Tensor:
    """Return the weights of a first convolution for another number of input channels.

    One channel gets the sum over the old ones: what it then computes is what the network computed of that channel
    repeated, at a third of the work. More channels repeat the old ones in turn, scaled so that equal channels add up to
    the same. Both are timm's ``adapt_input_conv``.

    Args:
        weight: ``(out, old channels, height, width)``.
        in_channels: New channels.

    Raises:
        ValueError: If ``in_channels`` is smaller than 1.

    Example:
        >>> adapted_weight(torch.ones(1, 3, 1, 1), 1).flatten().tolist()
        [3.0]
        >>> adapted_weight(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1), 4).flatten().tolist()
        [0.75, 1.5, 2.25, 0.75]
    """
    if in_channels < 1:
        raise ValueError(f"Expected `in_channels` of at least 1, got {in_channels}. 1 is a grey picture.")
    old = weight.shape[1]
    if in_channels == old:
        return weight
    if in_channels == 1:
        return weight.float().sum(dim=1, keepdim=True).to(weight.dtype)
    repeated = weight.float().repeat(1, ceil(in_channels / old), 1, 1)[:, :in_channels]
    return (repeated * (old / in_channels)).to(weight.dtype)


def first_convolution(module: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Return name and layer of the convolution that reads the picture; None where there is no convolution.

    Example:
        >>> first_convolution(nn.Sequential(nn.Identity(), nn.Conv2d(3, 8, 3)))
        ('1', Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1)))
    """
    return next(((name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)), None)


def adapt_first_convolution(module: nn.Module, in_channels: int, old_channels: int = 3) -> None:
    """Change a network in place, so that it reads another number of channels; see `adapted_weight`.

    Args:
        module: The backbone.
        in_channels: Channels of the pictures.
        old_channels: Channels that it reads now.

    Raises:
        BackboneError: If its first convolution reads something else than the picture's channels.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> adapt_first_convolution(layers, 1)
        >>> layers(torch.zeros(2, 1, 5, 5)).shape
        torch.Size([2, 8, 3, 3])
    """
    found = first_convolution(module)
    advice = f"Repeat the {in_channels} channel(s) of the data as the {old_channels} that it was pretrained on instead."
    if found is None:
        raise BackboneError(f"`{type(module).__name__}` has no convolution that reads pictures. {advice}")
    name, layer = found
    if layer.in_channels != old_channels or layer.groups != 1:
        raise BackboneError(
            f"The first convolution `{name}` of `{type(module).__name__}` reads {layer.in_channels} channels in "
            f"{layer.groups} group(s), not the {old_channels} of a picture. {advice}"
        )
    if getattr(module, "transform_input", False):
        raise BackboneError(
            f"`{type(module).__name__}` normalises its {old_channels} colours itself (`transform_input`). {advice}"
        )
    trains = layer.weight.requires_grad
    with torch.no_grad():
        layer.weight = nn.Parameter(adapted_weight(layer.weight, in_channels).clone(), requires_grad=trains)
    layer.in_channels = in_channels
    for part in module.modules():
        # transformers compares the picture with this number before it convolves.
        if getattr(part, "num_channels", None) == old_channels:
            part.num_channels = in_channels  # type: ignore[assignment] # a plain number, no tensor or module


def native_channels(card: BackboneCard) -> int | None:
    """Return the channels that a card's network has as its library builds it; None where none are stated.

    Example:
        >>> native_channels(BackboneCard("x", "torchvision/resnet18", input_size=(1, 64, 64), mean=(0.5,), std=(0.5,)))
        3
    """
    if card.modality != "image" or card.input_size is None:
        return None
    described = describe(card.architecture, dict(card.architecture_config)).input_size
    # Of transformers' vision models the configuration says it.
    stated = card.architecture_config.get("num_channels")
    return described[0] if described is not None else int(stated) if stated is not None else None


def with_channels(built: Built, card: BackboneCard, in_channels: int) -> tuple[Built, BackboneCard]:
    """Adapt a network with its weights, and say so in its card.

    The card gets the mean of the channels' means and of their deviations for one channel, and repeats them for more:
    a grey picture is then normalised by one pair of numbers.

    Args:
        built: With the weights that are adapted.
        card: Of the network.
        in_channels: Channels of the pictures.

    Raises:
        BackboneError: If it reads no pictures, or its first layer cannot be adapted.
    """
    old = native_channels(card)
    if card.modality != "image" or old is None or card.input_size is None:
        raise BackboneError(
            f"`in_channels: {in_channels}` is for networks that read pictures, and `{card.name}` reads {card.modality} "
            "or states no input size. Leave it out."
        )
    found = first_convolution(built.module)
    if found is None or found[1].in_channels != in_channels:
        adapt_first_convolution(built.module, in_channels, old)
    card = replace(
        card,
        input_size=(in_channels, *card.input_size[1:]),
        mean=_each(card.mean, in_channels),
        std=_each(card.std, in_channels),
        num_parameters=0,
    )
    return built, complete(card, built.module, built.num_features)


def _each(values: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
    if values is None or len(values) == channels:
        return values
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[place % len(values)] for place in range(channels))
