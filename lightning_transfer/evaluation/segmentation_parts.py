"""Parts of an evaluation of masks: volumes, slices by columns, the worst pictures, and what limits the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.evaluation.segmentation_judge import JudgedMask
from lightning_transfer.evaluation.segmentation_result import WorstMask
from lightning_transfer.evaluation.slice_terms import SliceTerms
from lightning_transfer.evaluation.slices import MIN_GROUPS
from lightning_transfer.metrics import Resamples, mean_defined
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

__all__ = ["evaluation_notes", "mask_terms", "volumes_of", "worst_masks"]

_Float = NDArray[np.float64]


def volumes_of(records: Sequence[Record]) -> list[int] | None:
    """Number the volumes that the records are slices of; None where they are pictures of their own.

    Example:
        >>> volumes_of([Record("a", ImagePart("x.nii", 0)), Record("b", ImagePart("x.nii", 1))])
        [0, 0]
        >>> volumes_of([Record("a", "a.png")]) is None
        True
    """
    if not any(isinstance(record.input, ImagePart) and record.input.index is not None for record in records):
        return None
    numbers: dict[str, int] = {}
    paths = [record.input.path if isinstance(record.input, ImagePart) else record.id for record in records]
    return [numbers.setdefault(path, len(numbers)) for path in paths]


def mask_terms(judged: Sequence[JudgedMask], classes: Sequence[str]) -> SliceTerms:
    """Return what Dice and IoU of any part of the pictures are made from, for `slice_records`."""
    both = np.concatenate([item.overlap.both for item in judged])[:, 1:]
    mass = np.concatenate([item.overlap.predicted + item.overlap.true for item in judged])[:, 1:]
    width = len(classes) - 1

    def read(sums: _Float) -> dict[str, _Float]:
        right, whole = sums[:, :width], sums[:, width:]
        return {
            "dice": mean_defined(_ratio(2.0 * right, whole)),
            "iou": mean_defined(_ratio(right, whole - right)),
        }

    return SliceTerms(
        values=np.concatenate([both, mass], axis=1),
        read=read,
        about={},
        reasons={name: "nothing is shown or drawn" for name in ("dice", "iou")},
        ranking=None,
        classes=np.zeros((len(judged), 0), dtype=bool),
        names=("dice", "iou"),
        shares=frozenset(),
    )


def _ratio(above: _Float, below: _Float) -> _Float:
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))


def worst_masks(
    judged: Sequence[JudgedMask], records: Sequence[Record], most: int, masks: Mapping[int, str]
) -> tuple[WorstMask, ...]:
    """Return the pictures whose masks fit worst: half of them with the lowest Dice, half the largest false alarms.

    Args:
        judged: Of one split.
        records: Of that split.
        most: Pictures to return, of both sorts together; one sort may have more where the other has fewer.
        masks: Place -> file of the drawn mask.
    """
    shown = sorted((item for item in judged if item.shows), key=lambda item: (item.dice, -_shown(item)))
    false = sorted((item for item in judged if item.draws and not item.shows), key=lambda item: -_drawn(item))
    room = max(most - len(false), most // 2)
    chosen = [*shown[:room], *false[: max(0, most - len(shown[:room]))]]
    return tuple(
        WorstMask(
            id=records[item.place].id,
            path=str(records[item.place].input) if not isinstance(records[item.place].input, np.ndarray) else "",
            label=label if isinstance(label := records[item.place].label, str) else None,
            kind="false" if not item.shows else "poor" if item.overlap.both[0, 1:].any() else "missed",
            dice=item.dice if item.shows else None,
            drawn=_drawn(item),
            shown=_shown(item),
            mask=masks.get(item.place, ""),
        )
        for item in chosen
    )


def _drawn(item: JudgedMask) -> int:
    return int(item.overlap.predicted[0, 1:].sum())


def _shown(item: JudgedMask) -> int:
    return int(item.overlap.true[0, 1:].sum())


def evaluation_notes(judged: Sequence[JudgedMask], records: Sequence[Record], drawn: Resamples) -> tuple[str, ...]:
    """Return what must be known to read the numbers."""
    notes = []
    unknown = sum(record.group is None for record in records)
    if unknown:
        notes.append(
            f"{unknown} of {len(records)} pictures have no group and count as one each: if a part or a patient has "
            "several, the intervals are too narrow."
        )
    groups = int(drawn.codes.max()) + 1
    if groups < MIN_GROUPS:
        notes.append(
            f"{groups} group{'s' * (groups != 1)}: with fewer than {MIN_GROUPS} an interval over groups is too narrow, "
            "or there is none."
        )
    missed = sum(item.shows and not item.overlap.both[0, 1:].any() for item in judged)
    if missed:
        notes.append(
            f"Of {missed} pictures no pixel of what they show was met: they have a Dice of 0, and where nothing was "
            "drawn no distance, so `hd95` is of the others alone."
        )
    if len({item.unit for item in judged}) > 1:
        notes.append("Some pictures have no known size of a pixel: `hd95` mixes millimetres and pixels.")
    return tuple(notes)
