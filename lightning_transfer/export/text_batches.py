"""Put token ids of several texts into one batch. No torch: this file travels with exported models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_length", "padded"]


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, NDArray[Any]]:
    """Return ``input_ids`` and ``attention_mask``, ``(N, T)`` int64, filled up to the longest row.

    Example:
        >>> {name: values.tolist() for name, values in padded([[5, 6], [7]], pad_id=1).items()}
        {'input_ids': [[5, 6], [7, 1]], 'attention_mask': [[1, 1], [1, 0]]}
    """
    longest = max(map(len, rows), default=0)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return places of texts of like length in batches of ``size``, shortest first.

    Example:
        >>> by_length([9, 1, 5, 2], 2)
        [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    return [order[start : start + size] for start in range(0, len(order), size)]
