"""Write what was drawn: a PNG for each picture, and a table with a row for each input, unreadable ones too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_transfer.data import Skipped, write_table
from lightning_transfer.data.predictions import insert_skipped
from lightning_transfer.evaluation.segmentation_judge import DrawnMask, JudgedMask
from lightning_transfer.evaluation.segmentation_maps import present_classes, write_mask
from lightning_transfer.types import Record

__all__ = ["DrawnRow", "MaskWriter", "mask_columns", "write_masks_table"]


class DrawnRow(NamedTuple):
    """What the table says of a mask.

    Attributes:
        file: Relative to the table's folder; empty if it was not written.
        present: Classes but the background that it shows.
        score: Highest probability of anything but the background.
        shares: Of the picture's pixels, for each class.
    """

    file: str
    present: tuple[str, ...]
    score: float
    shares: tuple[float, ...]


def mask_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns.

    Example:
        >>> mask_columns(["good", "pit"])[4:]
        ['predicted', 'mask', 'score', 'share_good', 'share_pit', 'dice', 'reason']
    """
    shares = (f"share_{name}" for name in classes)
    return ["id", "path", "label", "group", "predicted", "mask", "score", *shares, "dice", "reason"]


class MaskWriter:
    """Write each mask as it is drawn, and keep its row.

    Args:
        folder: Of the table; masks lie in ``masks`` below it.
        records: Of the split.
        classes: Of pixels.
        save: Whether to write files.

    Attributes:
        rows: Place of the record -> what the table says.
    """

    def __init__(self, folder: Path, records: Sequence[Record], classes: Sequence[str], *, save: bool = True) -> None:
        self.folder = folder
        self.records = records
        self.classes = tuple(classes)
        self.save = save
        self.rows: dict[int, DrawnRow] = {}

    def __call__(self, drawn: DrawnMask) -> None:
        """Write one mask."""
        file = ""
        if self.save:
            file = f"masks/{mask_name(drawn.place, self.records[drawn.place].id)}"
            write_mask(self.folder / file, drawn.labels, len(self.classes))
        shares = tuple((drawn.area / drawn.area.sum()).tolist())
        self.rows[drawn.place] = DrawnRow(file, present_classes(drawn.labels, self.classes), drawn.score, shares)


def mask_name(place: int, key: str) -> str:
    """Return the file name of a mask: one that no other record has, and that every file system takes.

    Example:
        >>> mask_name(3, "pit/a.png"), mask_name(4, "head.nii.gz#12")
        ('00003_pit_a.png', '00004_head.nii_12.png')
    """
    stem, part = re.fullmatch(r"(.*?)(?:#(\d+))?", key, flags=re.DOTALL).groups()  # type: ignore[union-attr] # matches all
    name = Path(stem).with_suffix("").as_posix() + (f"_{part}" if part else "")
    return f"{place:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[-80:]}.png"


def write_masks_table(
    path: str | Path,
    records: Sequence[Record],
    rows: Mapping[int, DrawnRow],
    classes: Sequence[str],
    judged: Mapping[int, JudgedMask] | None = None,
    skipped: Sequence[Skipped] = (),
) -> Path:
    """Write ``predictions.csv``; the file appears whole or not at all.

    ``dice`` is that of all classes but the background together, empty where the truth is unknown or shows nothing.
    ``reason`` says why an input could not be read.

    Args:
        path: Of the file.
        records: Of the split.
        rows: Place of a record -> what was drawn on it.
        classes: Of pixels.
        judged: Place -> how it compares with the truth.
        skipped: Inputs that could not be read; they get their rows at their places.

    Raises:
        DataError: If the file exists.
    """
    cells: list[list[Any]] = []
    for place in sorted(rows):
        row, own = rows[place], (judged or {}).get(place)
        dice = own.dice if own is not None and own.shows else None
        cells.append(
            [
                *_describe(records[place]),
                "|".join(row.present) or classes[0],
                row.file or None,
                round(row.score, 6),
                *(round(share, 6) for share in row.shares),
                None if dice is None else round(dice, 6),
                None,
            ]
        )
    nothing = [None] * (len(classes) + 4)
    insert_skipped(cells, skipped, lambda skip: [*_describe(skip.record), *nothing, skip.reason])
    return write_table(path, cells, mask_columns(classes))


def _describe(record: Record) -> list[Any]:
    """Return id, path, label and group as text."""
    label = record.label if isinstance(record.label, str) else None
    return [record.id, None if isinstance(record.input, np.ndarray) else str(record.input), label, record.group]
