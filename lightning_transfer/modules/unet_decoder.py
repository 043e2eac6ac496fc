"""From maps of several resolutions to one score a pixel and class: the decoder of a U-Net, on any pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TokenPyramid", "UNetDecoder", "conv_block"]

_LEAST_WIDTH = 16
_MOST_WIDTH = 256


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two convolutions of 3 x 3 with batch norm and ReLU, the block of a U-Net.

    Example:
        >>> conv_block(3, 8)(torch.zeros(2, 3, 5, 7)).shape
        torch.Size([2, 8, 5, 7])
    """
    layers: list[nn.Module] = []
    for width in (in_channels, out_channels):
        layers += [nn.Conv2d(width, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)


class TokenPyramid(nn.Module):
    """Make maps of four resolutions of the tokens of a vision transformer, which has one.

    The "reassemble" of DPT (Ranftl et al. 2021, arXiv 2103.13413, section 3.1): early blocks are enlarged by
    transposed convolutions, the last one is made coarser, each with a width that fits its resolution.

    Args:
        channels: Of the tokens, of each block that is read, from first to last.
        width: Of the finest map; each coarser one has twice that, up to the tokens' own.
    """

    def __init__(self, channels: Sequence[int], width: int = 48) -> None:
        super().__init__()
        # One step coarser than the tokens at the last block, then one step finer for each block before it.
        self.powers = tuple(len(channels) - 2 - place for place in range(len(channels)))
        self.channels = tuple(min(width * 2**place, own) for place, own in enumerate(channels))
        self.levels = nn.ModuleList(
            _resampling(own, wanted, power)
            for own, wanted, power in zip(channels, self.channels, self.powers, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps from fine to coarse."""
        return [level(item) for level, item in zip(self.levels, maps, strict=True)]


def _resampling(own: int, wanted: int, power: int) -> nn.Module:
    project = nn.Conv2d(own, wanted, 1)
    if power > 0:
        return nn.Sequential(project, nn.ConvTranspose2d(wanted, wanted, 2**power, stride=2**power))
    if power < 0:
        return nn.Sequential(project, nn.Conv2d(wanted, wanted, 3, stride=2**-power, padding=1))
    return project


class UNetDecoder(nn.Module):
    """Go from the coarsest map to the size of the image; at each resolution join what the encoder saw there.

    As in a U-Net (Ronneberger et al. 2015, arXiv 1505.04597), for an encoder of any widths and strides: a map is
    enlarged to the size of the next finer one, whatever that is, so images need not divide by anything. Resolutions
    finer than the finest map, up to that of the image, have blocks without a map; in the last one the image itself is
    joined, by a block of its own, so that the border of a thin defect can be found at its pixel.

    Args:
        channels: Of the maps, from fine to coarse.
        strides: Pixels of the image for a step in each map, the larger of down and across.
        num_classes: Logits of a pixel.
        image_channels: Of the image.
        is_flat: Whether all maps have one resolution: they then pass a `TokenPyramid`.
        widths: Of the blocks, from coarse to fine; None halves from the coarsest map's, between 16 and 256.
        dropout: Share of channels that are dropped before the last layer.

    Example:
        >>> decoder = UNetDecoder([8, 16], [4.0, 8.0], num_classes=3, image_channels=1)
        >>> decoder([torch.zeros(2, 8, 9, 16), torch.zeros(2, 16, 5, 8)], torch.zeros(2, 1, 36, 63)).shape
        torch.Size([2, 3, 36, 63])
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        image_channels: int,
        *,
        is_flat: bool = False,
        widths: Sequence[int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens = TokenPyramid(channels) if is_flat else None
        finest = float(strides[0])
        if self.tokens is not None:
            channels, finest = self.tokens.channels, finest / 2 ** self.tokens.powers[0]
        # Blocks without a map, down to a step of one pixel.
        beyond = max(0, round(math.log2(finest)))
        joined = [*reversed(channels[:-1]), *([0] * beyond)]
        self.image_block: nn.Module | None = None
        if beyond:
            joined[-1] = _LEAST_WIDTH
            self.image_block = conv_block(image_channels, _LEAST_WIDTH)
        self.num_maps = len(channels) - 1
        found = _widths(channels[-1], len(joined)) if widths is None else list(widths)
        if len(found) != len(joined):
            raise ValueError(
                f"Expected {len(joined)} `decoder_widths` for this backbone, from coarse to fine, got {found}."
            )
        inputs = [channels[-1], *found]
        self.blocks = nn.ModuleList(
            conv_block(before + beside, width) for before, beside, width in zip(inputs, joined, found, strict=False)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(inputs[-1], num_classes, 1)

    def forward(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes, H, W)`` of images ``(N, C, H, W)`` and their maps, from fine to coarse."""
        if self.tokens is not None:
            maps = self.tokens(maps)
        *finer, found = maps
        size = (images.shape[2], images.shape[3])
        for place, block in enumerate(self.blocks):
            left = len(self.blocks) - 1 - place
            if place < self.num_maps:
                beside = finer[-1 - place]
                found = torch.cat([_resize(found, (beside.shape[2], beside.shape[3])), beside], dim=1)
            else:
                found = _resize(found, (math.ceil(size[0] / 2**left), math.ceil(size[1] / 2**left)))
                if left == 0 and self.image_block is not None:
                    found = torch.cat([found, self.image_block(images)], dim=1)
            found = block(found)
        logits: Tensor = self.classify(self.dropout(_resize(found, size)))
        return logits


def _widths(coarsest: int, count: int) -> list[int]:
    first = min(_MOST_WIDTH, max(_LEAST_WIDTH, coarsest // 2))
    return [max(_LEAST_WIDTH, first // 2**place) for place in range(count)]


def _resize(item: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat pixels: interpolating has no deterministic gradient on GPUs, and a convolution follows."""
    return item if (item.shape[2], item.shape[3]) == size else F.interpolate(item, size, mode="nearest")
