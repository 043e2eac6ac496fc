"""Classes in levels, such as ``delivery/late``: the levels above the leaves, and how probable each class of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Level", "find_levels", "level_probabilities"]

_SEPARATOR = "/"


@dataclass(frozen=True)
class Level:
    """One level above the leaves.

    Attributes:
        depth: Parts of a leaf's name that are kept, from 1.
        classes: Names, in the order in which their first leaves come.
        leaf_to_class: For each leaf the number of its class, ``C`` of them.
    """

    depth: int
    classes: tuple[str, ...]
    leaf_to_class: tuple[int, ...]


def find_levels(classes: Sequence[str]) -> tuple[Level, ...]:
    """Return the levels above the leaves, the coarsest first; none where no name has a ``/``.

    The class of a leaf at depth ``k`` is its name's first ``k`` parts; a leaf of fewer parts is its own class there. A
    level with one class alone says nothing and is left out.

    Example:
        >>> [level] = find_levels(["billing", "delivery/late", "delivery/lost"])
        >>> level.classes, level.leaf_to_class
        (('billing', 'delivery'), (0, 1, 1))
    """
    parts = [name.split(_SEPARATOR) for name in classes]
    levels = []
    for depth in range(1, max(map(len, parts), default=1)):
        above = [_SEPARATOR.join(part[:depth]) for part in parts]
        names = tuple(dict.fromkeys(above))
        if len(names) > 1:
            levels.append(Level(depth, names, tuple(names.index(name) for name in above)))
    return tuple(levels)


def level_probabilities(probs: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    """Return the probability of each class of a level, ``(N, classes)``: the sum of its leaves'.

    So the most probable class of a level may be another than that of the most probable leaf: two likely leaves of one
    queue can together be more likely than a third of another.

    Args:
        probs: Of the leaves, after temperature, ``(N, C)``.
        level: Of `find_levels`.

    Example:
        >>> [level] = find_levels(["billing", "delivery/late", "delivery/lost"])
        >>> level_probabilities(np.array([[0.4, 0.35, 0.25]]), level).round(2).tolist()
        [[0.4, 0.6]]
    """
    member = np.array(level.leaf_to_class)[:, None] == np.arange(len(level.classes))
    return np.asarray(probs @ member.astype(np.float64))
