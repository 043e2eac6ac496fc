"""For which epochs a frozen prefix stays as it is, and which one is worth keeping: the plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Segment", "choose_frozen", "epochs_frozen", "segments"]


@dataclass(frozen=True)
class Segment:
    """Epochs that train on what one frozen prefix gave.

    Attributes:
        begin: First epoch.
        end: Epoch after the last; infinity where the run has no end.
        frozen: Layer groups in the prefix, counted from the stem.
    """

    begin: int
    end: float
    frozen: int


def epochs_frozen(
    open_at: Callable[[int], int], total: int, frozen: int, *, epoch: int, end: float, horizon: int = 10_000
) -> float:
    """Count the epochs from one on in which the first groups stay frozen without a break.

    Args:
        open_at: Most groups that are open at some time of an epoch, counted from the head side.
        total: Number of groups.
        frozen: Number of first groups that must be frozen.
        epoch: To begin with.
        end: Epoch after the last; infinity: there is none.
        horizon: Epochs that are looked at, at most; what is frozen for longer stays so.

    Example:
        >>> epochs_frozen(lambda epoch: max(0, epoch - 2), 5, 5, epoch=0, end=10)
        3
    """
    last = min(end, epoch + horizon)
    number = epoch
    while number < last and total - open_at(number) >= frozen:
        number += 1
    return number - epoch if number < epoch + horizon else end - epoch


def choose_frozen(
    open_at: Callable[[int], int], total: int, *, epoch: int, end: float, min_epochs: float
) -> tuple[int, float]:
    """Return the most groups that stay frozen long enough to be worth one pass more, and for how many epochs they do.

    With all groups of now, a schedule that opens one in each epoch would never be worth it; with fewer it is.

    Args:
        open_at: See `epochs_frozen`.
        total: Number of groups.
        epoch: To begin with.
        end: Epoch after the last.
        min_epochs: Epochs that a prefix must last.

    Returns:
        0 groups where none is worth it.

    Example:
        >>> gradual = lambda epoch: min(5, max(0, epoch - 2))
        >>> [choose_frozen(gradual, 5, epoch=epoch, end=10, min_epochs=2) for epoch in (0, 3, 6, 7)]
        [(5, 3), (3, 2), (0, 0), (0, 0)]
    """
    for frozen in range(total - open_at(epoch), 0, -1):
        lasts = epochs_frozen(open_at, total, frozen, epoch=epoch, end=end)
        if lasts >= min_epochs:
            return frozen, lasts
    return 0, 0


def segments(open_at: Callable[[int], int], total: int, *, end: float, min_epochs: float) -> list[Segment]:
    """Return all that a run will keep, one after the other: a prefix is used for as long as it stays frozen.

    Args:
        open_at: See `epochs_frozen`.
        total: Number of groups.
        end: Epoch after the last; of a run without end, the stages of the first 1000 epochs are looked at.
        min_epochs: Epochs that a prefix must last.

    Example:
        >>> segments(lambda epoch: 0 if epoch < 10 else 5, 5, end=12, min_epochs=2)
        [Segment(begin=0, end=10, frozen=5)]
    """
    found: list[Segment] = []
    epoch = 0
    while epoch < min(end, 1000):
        frozen, lasts = choose_frozen(open_at, total, epoch=epoch, end=end, min_epochs=min_epochs)
        if not frozen:
            epoch += 1
            continue
        found.append(Segment(epoch, epoch + lasts, frozen))
        if lasts == math.inf:
            break
        epoch += int(lasts)
    return found
