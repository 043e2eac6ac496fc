"""Maps of an image at several resolutions, of any backbone: what a decoder of pixels is built on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.feature_maps import _blocks, _grid, _recorded, _stages, read_maps
from lightning_transfer.errors import BackboneError, listing

__all__ = ["Pyramid", "find_pyramid", "unreached_parameters"]

_TOKEN_LEVELS = 4


@dataclass(frozen=True)
class Pyramid:
    """Which layers of a backbone give maps, and what those look like.

    Attributes:
        layers: Dotted names inside the backbone, from the finest map to the coarsest; of a network of one resolution
            from the first block to the last.
        channels: Of each map.
        strides: Pixels of the image for a step in each map, down and across; they need not be whole.
        is_flat: Whether all maps have one resolution, as the tokens of a vision transformer; a decoder then resamples.
    """

    layers: tuple[str, ...]
    channels: tuple[int, ...]
    strides: tuple[tuple[float, float], ...]
    is_flat: bool


def find_pyramid(backbone: nn.Module, input_size: Sequence[int], layers: Sequence[str] | None = None) -> Pyramid:
    """Find the layers that a decoder should read, by one forward of zeros.

    Where a network lowers its resolution by stages, these are the last layer of each. A stack of transformer blocks
    keeps one resolution: there they are four blocks, evenly through the depth (Ranftl et al. 2021, arXiv 2103.13413,
    section 3.1, take 3, 6, 9 and 12 of ViT's 12).

    Args:
        backbone: Maps images to pooled features; modes, weights and random states stay as they are.
        input_size: ``(channels, height, width)`` of the images.
        layers: Names, if they are not to be found out: from fine to coarse.

    Raises:
        BackboneError: If the network keeps no map of the image, or a named layer has none.

    Example:
        >>> from lightning_transfer.backbones import load_backbone
        >>> found = find_pyramid(load_backbone("torchvision/resnet18", weights="random")[0], (3, 64, 64))
        >>> found.layers, found.channels
        (('relu', 'layer1', 'layer2', 'layer3', 'layer4'), (64, 64, 128, 256, 512))
        >>> [down for down, across in found.strides]
        [2.0, 4.0, 8.0, 16.0, 32.0]
    """
    parameter = next(backbone.parameters())
    zeros = torch.zeros(1, *input_size, dtype=parameter.dtype, device=parameter.device)
    modes = {part: part.training for part in backbone.modules()}
    try:
        with torch.no_grad():
            backbone.eval()
            chosen = list(layers) if layers is not None else _choose(backbone, zeros)
            _, maps = read_maps(backbone, chosen, zeros)
    finally:
        for part, training in modes.items():
            part.training = training
    height, width = input_size[1], input_size[2]
    sizes = [(item.shape[2], item.shape[3]) for item in maps]
    if sizes != sorted(sizes, reverse=True):
        named = ", ".join(f"`{name}` {size[0]} x {size[1]}" for name, size in zip(chosen, sizes, strict=True))
        raise BackboneError(f"Expected `layers` from fine to coarse, got {named}.")
    return Pyramid(
        tuple(chosen),
        tuple(item.shape[1] for item in maps),
        tuple((height / size[0], width / size[1]) for size in sizes),
        len(sizes) > 1 and len(set(sizes)) == 1,
    )


def _choose(backbone: nn.Module, images: Tensor) -> list[str]:
    size = (images.shape[2], images.shape[3])
    with _recorded(backbone, [name for name, _ in backbone.named_modules() if name]) as found:
        backbone(images)
    grids = {name: grid for name, output in found.items() if (grid := _grid(output, size))}
    places = {name: place for place, name in enumerate(found)}
    last_of: dict[tuple[int, int], str] = {}
    for name in sorted(_stages(backbone, grids), key=places.__getitem__):
        # What comes after a coarser map and is finer than it was enlarged for the head, such as VGG's pooling to 7 x 7.
        if all(math.prod(grids[name]) <= math.prod(grid) for grid in last_of):
            last_of[grids[name]] = name
    ordered = list(last_of.values())
    if len(ordered) >= 2:
        return ordered
    blocks = _blocks(backbone, grids)
    if len(blocks) >= 2:
        levels = min(_TOKEN_LEVELS, len(blocks))
        return [blocks[math.ceil(len(blocks) * level / levels) - 1] for level in range(1, levels + 1)]
    if ordered:
        return ordered
    raise BackboneError(
        f"`{type(backbone).__name__}` shows no layer with a map of the image, so its features have no places to draw a "
        f"mask from. Name layers in `layers`. Modules with maps: {listing(grids, 12) or 'none'}."
    )


def unreached_parameters(backbone: nn.Module, layers: Sequence[str], input_size: Sequence[int]) -> list[str]:
    """Return the names of parameters that none of the maps depends on, such as those of a norm before the pooling.

    They would never get a gradient from a decoder; DDP takes that for an error. Parameters that are frozen already are
    not named.

    Args:
        backbone: Modes, gradients and random states stay as they are.
        layers: As of `Pyramid`.
        input_size: ``(channels, height, width)`` of the images.

    Example:
        >>> from lightning_transfer.backbones import load_backbone
        >>> backbone, _ = load_backbone("torchvision/vgg11", weights="random")
        >>> names = unreached_parameters(backbone, find_pyramid(backbone, (3, 64, 64)).layers, (3, 64, 64))
        >>> [name.split(".")[0] for name in names][:1] in ([], ["classifier"])
        True
    """
    named = {name: item for name, item in backbone.named_parameters() if item.requires_grad}
    if not named:
        return []
    parameter = next(iter(named.values()))
    # Not zeros: behind a ReLU they would hide what depends on what.
    ramp = torch.linspace(-1, 1, math.prod(input_size), dtype=parameter.dtype, device=parameter.device)
    modes = {part: part.training for part in backbone.modules()}
    try:
        with torch.enable_grad():
            backbone.eval()
            _, maps = read_maps(backbone, layers, ramp.reshape(1, *input_size))
            total = torch.stack([item.float().sum() for item in maps]).sum()
            found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    finally:
        for part, training in modes.items():
            part.training = training
    return [name for name, gradient in zip(named, found, strict=True) if gradient is None]
