"""Choose few patches that lie near to all: greedy k-center, on projected patches where they are wide."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]  # the bar that Lightning uses

__all__ = ["greedy_coreset", "project"]


def project(patches: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Return patches ``(N, D)`` in ``width`` random directions, which nearly keeps their distances.

    Johnson and Lindenstrauss 1984; Roth et al. 2022 choose the coreset so. Patches that are no wider stay as they are.

    Args:
        patches: ``(N, D)`` float.
        width: Directions.
        generator: Draws them, on the CPU.

    Example:
        >>> project(torch.ones(4, 512), 128, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 128])
    """
    if patches.shape[1] <= width:
        return patches
    directions = torch.randn(patches.shape[1], width, generator=generator) / math.sqrt(width)
    return patches @ directions.to(patches)


def greedy_coreset(patches: Tensor, size: int, generator: torch.Generator, *, show_progress: bool = False) -> Tensor:
    """Return the places of ``size`` patches, each the farthest from those chosen before it.

    The largest distance from any patch to its nearest chosen one is at most twice what the best choice of that size
    would give (Gonzalez 1985). Time and memory grow with ``size * N``, and with ``N``.

    Args:
        patches: ``(N, D)`` float.
        size: How many to choose, from 1 to N.
        generator: Draws the first one, on the CPU.
        show_progress: Whether to show a bar.

    Returns:
        ``(size,)`` int64, in the order in which they were chosen; no place twice.

    Raises:
        ValueError: If ``size`` is out of range.

    Example:
        >>> line = torch.tensor([[0.0], [0.1], [5.0], [10.0]])
        >>> sorted(greedy_coreset(line, 3, torch.Generator().manual_seed(0)).tolist())
        [0, 2, 3]
    """
    if not 1 <= size <= len(patches):
        raise ValueError(f"Expected `size` in [1, {len(patches)}], got {size}.")
    # Near the origin the squares below lose least to rounding.
    points = patches - patches.mean(dim=0)
    squares = points.square().sum(dim=1)
    chosen = torch.empty(size, dtype=torch.long)
    nearest = torch.full_like(squares, math.inf)
    last = int(torch.randint(len(points), (1,), generator=generator))
    steps = range(size)
    for step in tqdm(steps, desc="Coreset", leave=False) if show_progress else steps:
        chosen[step] = last
        squared = (squares - 2.0 * (points @ points[last]) + squares[last]).clamp_min_(0.0)
        torch.minimum(nearest, squared, out=nearest)
        nearest[last] = -1.0  # never again, even among equals
        last = int(nearest.argmax())
    return chosen
