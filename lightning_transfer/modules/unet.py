"""A plain U-Net from random weights, of a stated size: what a pretrained encoder has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_transfer.modules.unet_decoder import UNetDecoder, conv_block

__all__ = ["UNet", "unet_of_size"]

_DEPTH = 4
_LEAST = 2


class UNet(nn.Module):
    """The network of Ronneberger et al. 2015 (arXiv 1505.04597), with padding and batch norm as it is trained today.

    Two convolutions a resolution, halved by pooling, widths doubled; the way back joins each resolution's map.

    Args:
        in_channels: Of the images.
        num_classes: Logits of a pixel.
        width: Of the finest resolution; the paper's is 64.
        depth: How often the resolution is halved; the paper's is 4.

    Example:
        >>> UNet(1, 2, width=4)(torch.zeros(2, 1, 40, 56)).shape
        torch.Size([2, 2, 40, 56])
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 64, depth: int = _DEPTH) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            conv_block(before, own) for before, own in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.up = UNetDecoder(
            widths,
            [float(2**level) for level in range(depth + 1)],
            num_classes,
            in_channels,
            widths=widths[-2::-1],
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes, H, W)``."""
        maps: list[Tensor] = []
        found = images
        for level, block in enumerate(self.down):
            found = block(self.pool(found) if level else found)
            maps.append(found)
        logits: Tensor = self.up(maps, images)
        return logits


def unet_of_size(in_channels: int, num_classes: int, num_parameters: int) -> UNet:
    """Return the U-Net whose number of parameters is nearest to a stated one.

    Example:
        >>> found = unet_of_size(3, 2, 1_000_000)
        >>> 0.9e6 < sum(item.numel() for item in found.parameters()) < 1.1e6
        True
    """
    low, high = _LEAST, _LEAST + 1
    while _count(in_channels, num_classes, high) < num_parameters:
        low, high = high, 2 * high
    while high - low > 1:  # the number rises with the width
        middle = (low + high) // 2
        low, high = (middle, high) if _count(in_channels, num_classes, middle) < num_parameters else (low, middle)
    nearest = min((low, high), key=lambda width: abs(_count(in_channels, num_classes, width) - num_parameters))
    return UNet(in_channels, num_classes, nearest)


def _count(in_channels: int, num_classes: int, width: int) -> int:
    with torch.device("meta"):  # counted without being made
        return sum(item.numel() for item in UNet(in_channels, num_classes, width).parameters())
