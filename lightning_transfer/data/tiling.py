"""Cut large images into overlapping tiles that cover every pixel, so that small defects are not resized away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

__all__ = ["Box", "Tile", "Tiling", "cut_record", "label_tiles"]


class Box(NamedTuple):
    """A rectangle of an image, in its own pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts it out of an array ``(H, W, ...)``."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class Tile(NamedTuple):
    """One tile of an image, as the input of a record."""

    source: Any
    box: Box


@dataclass(frozen=True)
class Tiling:
    """How an image is cut, and how its tiles decide; it travels in the checkpoint with the preprocessing.

    Tiles have one size. The first begins at the border and the last ends at the other one; those between are spread
    evenly, so neighbours overlap by ``overlap`` pixels or a little more. A defect of at most ``overlap`` pixels is
    whole in some tile.

    Args:
        size: Height and width of a tile, in pixels of the image.
        overlap: Least overlap of neighbours, in pixels.
        top_k: The image's probabilities are the mean of those of its k tiles with the highest score; 1 is the maximum,
            None takes all tiles.

    Example:
        >>> Tiling((4, 4), overlap=1).boxes(4, 9)
        [Box(top=0, left=0, height=4, width=4), Box(top=0, left=2, height=4, width=4),
         Box(top=0, left=5, height=4, width=4)]
    """

    size: tuple[int, int]
    overlap: int
    top_k: int | None = 1

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"Expected `tile_size` as height and width of at least 1 pixel, got {self.size}.")
        if not 0 <= self.overlap < min(self.size):
            raise ValueError(
                f"Expected `tile_overlap` from 0 to {min(self.size) - 1}, below the tile's side, got {self.overlap}."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"Expected `tile_top_k` of at least 1, got {self.top_k}. Use null for all tiles.")

    def boxes(self, height: int, width: int) -> list[Box]:
        """Return the tiles of an image, row by row.

        Raises:
            DataError: If the image is smaller than a tile, whose content would then be of another scale.
        """
        if height < self.size[0] or width < self.size[1]:
            raise DataError(
                f"The image has {height} x {width} pixels (height x width), and a tile has {self.size[0]} x"
                f" {self.size[1]}. Set `tile_size` to {min(height, width)} or less, or to null for whole images."
            )
        return [
            Box(top, left, *self.size)
            for top in _starts(height, self.size[0], self.overlap)
            for left in _starts(width, self.size[1], self.overlap)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"size": list(self.size), "overlap": self.overlap, "top_k": self.top_k}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tiling:
        """Rebuild from `to_dict`.

        Example:
            >>> Tiling.from_dict(Tiling((8, 6), 2).to_dict())
            Tiling(size=(8, 6), overlap=2, top_k=1)
        """
        height, width = values["size"]
        return cls((int(height), int(width)), int(values["overlap"]), values["top_k"])


def cut_record(record: Record, tiling: Tiling, height: int, width: int) -> list[Record]:
    """Return the tiles of an image as records with its label; the input of each is a `Tile`.

    Args:
        record: With an image as input.
        tiling: How to cut it.
        height: Of the upright image.
        width: Of the upright image.

    Raises:
        DataError: If the image is smaller than a tile; names the record.
    """
    try:
        boxes = tiling.boxes(height, width)
    except DataError as error:
        raise DataError(f"`{record.id}`: {error}") from error
    return [
        replace(record, id=f"{record.id}#{number}", input=Tile(record.input, box)) for number, box in enumerate(boxes)
    ]


def label_tiles(tiles: Sequence[Record], mask: npt.NDArray[np.bool_], negative_class: str) -> list[Record]:
    """Return the tiles of an image of a defect with labels of their own: where the mask is zero, the negative class.

    One pixel of the defect makes a tile defective.

    Args:
        tiles: As `cut_record` returns them.
        mask: ``(H, W)``, of the size of the image.
        negative_class: The class that means "nothing found".
    """
    return [tile if mask[tile.input.box.slices].any() else replace(tile, label=negative_class) for tile in tiles]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where the tiles along one side begin."""
    rest = length - tile
    gaps = math.ceil(rest / (tile - overlap))
    return [rest * place // gaps for place in range(gaps + 1)] if gaps else [0]
