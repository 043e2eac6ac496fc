"""Judge masks: overlap, distance of borders and ranking of pixels, with intervals over groups, beside baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.judges import open_end
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.segmentation_judge import JudgedMask
from lightning_transfer.evaluation.segmentation_parts import evaluation_notes, mask_terms, volumes_of, worst_masks
from lightning_transfer.evaluation.segmentation_result import KindScore, SegmentationResult
from lightning_transfer.evaluation.slices import slice_records
from lightning_transfer.metrics import Interval, OverlapCounts, PixelCounts, Resamples
from lightning_transfer.types import Record, Schema

__all__ = ["COMPARED", "MaskRow", "evaluate_segmentation"]

_Float = NDArray[np.float64]
_Mask = NDArray[np.bool_]

COMPARED = ("dice", "iou", "image_dice", "hd95", "pixel_auroc", "pro", "image_auroc", "missed_rate", "false_alarm_rate")
"""Metrics whose paired difference to each baseline is reported, with those of each class and kind."""

_SHARES = ("missed_rate", "false_alarm_rate")
_MAX_FPR = 0.3


@dataclass(frozen=True)
class MaskRow:
    """Another model's row beside the one that is judged, or why there is none.

    Attributes:
        judged: Its masks of the same records; None where it cannot be run.
        description: What it is, and what was chosen for it; or why it cannot be run.
        seconds: That it took; None if nothing was measured.
    """

    judged: Sequence[JudgedMask] | None
    description: str
    seconds: float | None = None


class _Counted:
    """One model's counts of all pictures, and the metrics of weightings of them."""

    def __init__(self, judged: Sequence[JudgedMask], classes: Sequence[str], kinds: Mapping[str, _Mask]) -> None:
        self.classes, self.kinds = classes, kinds
        self.overlap = OverlapCounts.join([item.overlap for item in judged])
        self.pixels = PixelCounts.join([item.pixels for item in judged])
        self.distance = np.stack([item.distance for item in judged])
        self.score = np.array([item.score for item in judged])
        self.shows = np.array([item.shows for item in judged])
        self.draws = np.array([item.draws for item in judged])
        self.hits = np.array([bool(item.overlap.both[0, 1:].any()) for item in judged])
        self.each = metrics.image_dice(self.overlap)
        # Of the same volume, for masks of slices.
        self.volumes: tuple[_Float, OverlapCounts] | None = None

    def use_volumes(self, volumes: Sequence[int]) -> None:
        """Take slices of one volume together, for `volume_dice`."""
        codes = np.asarray(volumes)
        belongs = (codes[:, None] == np.arange(codes.max() + 1)).astype(np.float64)
        first = np.zeros_like(belongs)
        first[[int(np.argmax(codes == code)) for code in range(belongs.shape[1])], np.arange(belongs.shape[1])] = 1.0
        self.volumes = first, OverlapCounts(*(belongs.T @ part for part in self.overlap))

    def statistic(self, weights: _Float) -> dict[str, _Float]:
        """Return the metrics of weights ``(B, N)``, the headline first."""
        by_class = {
            "dice": metrics.dice(weights, self.overlap)[:, 1:],
            "iou": metrics.iou(weights, self.overlap)[:, 1:],
            "image_dice": _defined_mean(weights, self.each)[:, 1:],
            "hd95": _defined_mean(weights, self.distance)[:, 1:],
        }
        if self.volumes is not None:
            first, counts = self.volumes
            by_class["volume_dice"] = _defined_mean(weights @ first, metrics.image_dice(counts))[:, 1:]
        found = {name: metrics.mean_defined(columns) for name, columns in by_class.items()}
        found |= self._pixels(weights, "")
        found["image_auroc"] = metrics.auroc(weights, self.score, self.shows)
        found["missed_rate"] = metrics.weighted_mean(weights * self.shows, (~self.hits).astype(np.float64))
        found["false_alarm_rate"] = metrics.weighted_mean(weights * ~self.shows, self.draws.astype(np.float64))
        if len(self.classes) > 2:
            for name, columns in by_class.items():
                found |= {f"{name}_{own}": columns[:, place] for place, own in enumerate(self.classes[1:])}
        for kind, mask in self.kinds.items():
            chosen = weights * mask
            both, mass = (chosen @ part for part in _sums(self.overlap))
            found[f"dice_on_{kind}"] = np.divide(2.0 * both, mass, out=np.full(len(mass), np.nan), where=mass > 0)
            # The pixels of the kind against those of all pictures that show nothing, and its own.
            found |= self._pixels(weights * (mask | ~self.shows), f"_on_{kind}")
            found[f"missed_rate_on_{kind}"] = metrics.weighted_mean(chosen * self.shows, (~self.hits).astype(float))
        return found

    def _pixels(self, weights: _Float, ending: str) -> dict[str, _Float]:
        return {
            f"pixel_auroc{ending}": metrics.pixel_auroc(weights, self.pixels),
            f"pro{ending}": metrics.region_overlap(weights, self.pixels, _MAX_FPR),
        }

    def about(self, name: str) -> _Mask:
        """Return the pictures ``(N,)`` that a metric is about."""
        base, _, kind = name.partition("_on_")
        if kind in self.kinds:
            return self.kinds[kind] & self.shows if base == "missed_rate" else self.kinds[kind]
        for start, table in (("image_dice", self.each), ("hd95", self.distance)):
            if name == start:
                return np.asarray(np.isfinite(table[:, 1:]).any(axis=1))
            if name.startswith(f"{start}_"):
                return np.isfinite(table[:, list(self.classes).index(name.removeprefix(f"{start}_"))])
        if name == "missed_rate":
            return self.shows
        return ~self.shows if name == "false_alarm_rate" else np.ones(len(self.shows), dtype=bool)


def evaluate_segmentation(
    judged: Sequence[JudgedMask],
    records: Sequence[Record],
    schema: Schema,
    *,
    baselines: Mapping[str, MaskRow] | None = None,
    slices: Sequence[str] | Literal["all"] = "all",
    num_unknown: int = 0,
    masks: Mapping[int, str] | None = None,
    seconds: Mapping[str, float] | None = None,
    most_worst: int = 12,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> SegmentationResult:
    """Return all that is said of a model's masks on one split, with intervals by bootstrap over groups.

    ``dice`` and ``iou`` count the pixels of all pictures together, so what is drawn on pictures that show nothing
    counts against them; with several classes they are the mean over these. ``image_dice`` is the mean over the pictures
    that show the class, ``volume_dice`` that over volumes, for slices of such. ``hd95`` is the mean 95 % Hausdorff
    distance over pictures in which a class is both shown and drawn; it has no value for what was missed, so read it
    beside ``missed_rate``, the share of the pictures that show something of which no pixel was met.
    ``false_alarm_rate`` is the share of the other pictures on which something was drawn. ``pixel_auroc`` and ``pro``
    rank all pixels by the probability of anything but the background, ``image_auroc`` the pictures by their highest
    one. With labels of whole pictures, ``..._on_KIND`` are of one kind, its pixels against those that show nothing.

    Args:
        judged: What was drawn, of the records with a known truth.
        records: All records of the split: ``JudgedMask.place`` points into them.
        schema: Of the model.
        baselines: Other models on the same records.
        slices: Columns to cut the records by; ``all`` takes every column.
        num_unknown: Records that were run and have no truth.
        masks: Place -> file of the drawn mask, to name it.
        seconds: What else took how long, to be kept with the result.
        most_worst: Pictures to name as the worst.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
        show_progress: Whether to show a bar.

    Raises:
        TransferError: If no record has a truth, or a baseline was run on other records.
    """
    if not judged:
        raise TransferError(f"None of the {num_unknown} records has a mask to compare with, so nothing can be judged.")
    chosen = [records[item.place] for item in judged]
    first = schema.classes[0]
    labels = [record.label if isinstance(record.label, str) else None for record in chosen]
    names = sorted({label for label in labels if label is not None} - {first})
    kinds = {name: np.array([label == name for label in labels]) for name in names}
    volumes = volumes_of(chosen)

    def count(items: Sequence[JudgedMask]) -> _Counted:
        found = _Counted(items, schema.classes, kinds)
        if volumes is not None:
            found.use_volumes(volumes)
        return found

    rows = {"": count(judged)}
    given = baselines or {}
    for name, row in given.items():
        if row.judged is not None:
            if [item.place for item in row.judged] != [item.place for item in judged]:
                raise TransferError(f"The baseline `{name}` was run on other records than the model. Use the same.")
            rows[name] = count(row.judged)
    # Slices of a volume of an unknown patient belong together all the same.
    groups = [
        record.group if record.group is not None or volumes is None else f"volume {volumes[place]}"
        for place, record in enumerate(chosen)
    ]
    drawn: dict[str, Resamples] = {}
    with progress("Bootstrap", len(rows) * n_resamples, show_progress) as bar:
        for name, found in rows.items():
            drawn[name] = metrics.resample(
                found.statistic, groups, n_resamples=n_resamples, seed=seed, on_chunk=bar.update
            )
    tables = {name: _intervals(drawn[name], rows[name], confidence) for name in rows}
    table = tables.pop("")
    # Distances are means over what each model met: pictures that one of them missed would not be paired.
    compared = [name for name in drawn[""].point if not name.startswith("hd95")]
    terms = mask_terms(judged, schema.classes)
    return SegmentationResult(
        metrics=table,
        n=len(judged),
        num_groups=int(drawn[""].codes.max()) + 1,
        classes=tuple(schema.classes),
        unit=judged[0].unit,
        num_shown=int(rows[""].shows.sum()),
        num_unknown=num_unknown,
        baselines={name: tables.get(name, _undefined(table, row)) for name, row in given.items()},
        differences={
            name: {key: drawn[""].minus(drawn[name], compared).interval(key, confidence=confidence) for key in compared}
            for name in given
            if name in drawn
        },
        descriptions={name: row.description for name, row in given.items()},
        kinds=tuple(_kind(name, mask, table) for name, mask in kinds.items()),
        slices=slice_records(
            chosen,
            terms,
            schema,
            columns=slices,
            n_resamples=n_resamples,
            confidence=confidence,
            seed=seed,
            show_progress=show_progress,
        ),
        worst=worst_masks(judged, records, most_worst, masks or {}),
        notes=evaluation_notes(judged, chosen, drawn[""]),
        n_resamples=n_resamples,
        confidence=confidence,
        seconds=dict(seconds or {}),
    )


def _intervals(drawn: Resamples, found: _Counted, confidence: float) -> dict[str, Interval]:
    table = {}
    for name in drawn.point:
        mask = found.about(name)
        item = drawn.interval(name, mask=mask, confidence=confidence, reason=_reason(name, found))
        if name.partition("_on_")[0] in _SHARES:
            item = open_end(item, confidence)
        if name.startswith("hd95") and item.value is not None:
            missing = int(found.shows.sum()) - int((mask & found.shows).sum()) if name == "hd95" else 0
            note = f"without {missing} pictures in which one of the two masks is empty" if missing else ""
            item = replace(item, reason=item.reason or note)
        table[name] = item
    return table


def _reason(name: str, found: _Counted) -> str:
    """Say why a metric may be undefined."""
    if not found.shows.any():
        return "no picture shows anything but the background"
    if name.startswith("hd95"):
        return "no picture both shows and draws it"
    if name in ("image_auroc", "false_alarm_rate"):
        return "every picture shows something"
    return "no pixel lies outside" if name.startswith(("pixel_auroc", "pro")) else "it is neither shown nor drawn"


def _undefined(table: Mapping[str, Interval], row: MaskRow) -> dict[str, Interval]:
    return {
        name: Interval(None, None, None, table[name].n, reason=row.description) for name in COMPARED if name in table
    }


def _kind(name: str, mask: _Mask, table: Mapping[str, Interval]) -> KindScore:
    found = {base: table[f"{base}_on_{name}"] for base in ("dice", "pixel_auroc", "pro", "missed_rate")}
    return KindScore(name, int(mask.sum()), found)


def _sums(overlap: OverlapCounts) -> tuple[_Float, _Float]:
    """Return the right pixels of all classes but the background, and those of both masks, of each picture."""
    return overlap.both[:, 1:].sum(1), (overlap.predicted + overlap.true)[:, 1:].sum(1)


def _defined_mean(weights: _Float, values: _Float) -> _Float:
    """Return the weighted mean ``(B, C)`` of values ``(N, C)`` that are not NaN; NaN where there is none."""
    defined = np.isfinite(values)
    below = weights @ defined.astype(np.float64)
    above = weights @ np.where(defined, values, 0.0)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))
