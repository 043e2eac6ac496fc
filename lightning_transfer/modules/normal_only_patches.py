"""From maps of a backbone to patches and back: descriptors of neighbourhoods, a bounded collection, an anomaly map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PatchReservoir", "anomaly_map", "patch_features"]


def patch_features(maps: Sequence[Tensor]) -> Tensor:
    """Return one descriptor for each place of the finest map.

    Each place is averaged with its eight neighbours (at the edge with those that exist), coarser maps are brought to
    the finest grid, and all are concatenated (Roth et al. 2022, arXiv 2106.08265, equations 1 to 3).

    Args:
        maps: ``(N, C_i, h_i, w_i)`` of the chosen layers.

    Returns:
        ``(N, sum of C_i, h, w)`` in float32.

    Example:
        >>> patch_features([torch.ones(1, 2, 8, 8), torch.ones(1, 3, 4, 4)]).shape
        torch.Size([1, 5, 8, 8])
    """
    size = max((tuple(item.shape[2:]) for item in maps), key=lambda grid: grid[0] * grid[1])
    smooth = [F.avg_pool2d(item.float(), 3, stride=1, padding=1, count_include_pad=False) for item in maps]
    return torch.cat([_resized(item, size) for item in smooth], dim=1)


def anomaly_map(grid: Tensor, size: Sequence[int], sigma: float) -> Tensor:
    """Return the distances of patches ``(N, h, w)`` as maps ``(N, H, W)``: interpolated, then smoothed.

    Args:
        grid: Distance of each patch.
        size: Height and width of the image in pixels.
        sigma: Of the Gaussian, in pixels of ``size``; 0 leaves the map as interpolated. Edges are mirrored.

    Example:
        >>> anomaly_map(torch.ones(1, 4, 4), (16, 24), sigma=2.0).shape
        torch.Size([1, 16, 24])
    """
    found = F.interpolate(grid[:, None].float(), (size[0], size[1]), mode="bilinear", align_corners=False)
    return _smooth(found, sigma)[:, 0]


class PatchReservoir:
    """Keep a uniform sample of patches from a stream, in bounded memory.

    Up to its capacity it keeps all. Beyond, every patch of the stream has had the same chance to be kept: each draws a
    random key, and the highest keys stay.

    Args:
        capacity: Patches to keep; their memory is taken when the first arrive.
        generator: Draws the keys, so that the same stream gives the same sample.

    Attributes:
        seen: Patches that came by.

    Example:
        >>> reservoir = PatchReservoir(capacity=3, generator=torch.Generator().manual_seed(0))
        >>> reservoir.add(torch.randn(5, 2), torch.arange(5))
        >>> reservoir.patches.shape, reservoir.seen
        (torch.Size([3, 2]), 5)
    """

    def __init__(self, capacity: int, generator: torch.Generator) -> None:
        self.capacity = capacity
        self.seen = 0
        self._generator = generator
        self._size = 0
        self._patches = torch.empty(0)
        self._images = torch.empty(0, dtype=torch.long)
        self._keys = torch.empty(0, dtype=torch.float64)

    @property
    def patches(self) -> Tensor:
        """What was kept, ``(n, D)`` float32 on the CPU."""
        return self._patches[: self._size]

    @property
    def images(self) -> Tensor:
        """Image that each kept patch is of, ``(n,)``."""
        return self._images[: self._size]

    def add(self, patches: Tensor, images: Tensor) -> None:
        """Take patches ``(n, D)`` and the number of the image that each is of, ``(n,)``."""
        patches, images = patches.detach().cpu().float(), images.cpu()
        if not self.seen:
            self._patches = torch.empty(self.capacity, patches.shape[1])
            self._images = torch.empty(self.capacity, dtype=torch.long)
            self._keys = torch.empty(self.capacity, dtype=torch.float64)
        self.seen += len(patches)
        keys = torch.rand(len(patches), generator=self._generator, dtype=torch.float64)
        room = min(self.capacity - self._size, len(patches))
        self._put(torch.arange(self._size, self._size + room), patches[:room], images[:room], keys[:room])
        self._size += room
        patches, images, keys = patches[room:], images[room:], keys[room:]
        if len(patches):
            stay = torch.cat([self._keys, keys]).topk(self.capacity).indices
            arriving = stay[stay >= self.capacity] - self.capacity
            free = torch.ones(self.capacity, dtype=torch.bool)
            free[stay[stay < self.capacity]] = False
            self._put(free.nonzero()[:, 0], patches[arriving], images[arriving], keys[arriving])

    def _put(self, places: Tensor, patches: Tensor, images: Tensor, keys: Tensor) -> None:
        self._patches[places], self._images[places], self._keys[places] = patches, images, keys


def _resized(item: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(item.shape[2:]) == tuple(size):
        return item
    return F.interpolate(item, (size[0], size[1]), mode="bilinear", align_corners=False)


def _smooth(images: Tensor, sigma: float) -> Tensor:
    """Blur ``(N, 1, H, W)`` with a Gaussian cut at four sigma; edges are mirrored, the edge pixel included."""
    if sigma <= 0:
        return images
    radius = int(4 * sigma + 0.5)
    places = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    for axis in (2, 3):
        index = _mirrored(images.shape[axis], radius, images.device)
        padded = images.index_select(axis, index)
        shape = [1, 1, 1, 1]
        shape[axis] = len(kernel)
        images = F.conv2d(padded, kernel.reshape(shape))
    return images


def _mirrored(length: int, radius: int, device: torch.device) -> Tensor:
    """Return positions ``-radius ... length + radius`` folded back into the image, however small it is."""
    places = torch.arange(-radius, length + radius, device=device) % (2 * length)
    return torch.minimum(places, 2 * length - 1 - places)
