"""Where a model is weak: its metrics on slices of the records, each beside the rest, worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.evaluation.judges import open_end
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import labels_of, negative_index
from lightning_transfer.evaluation.slice_auroc import FindingSliceAuroc, SliceAuroc
from lightning_transfer.evaluation.slice_columns import MISSING, cut_column, find_columns
from lightning_transfer.evaluation.slice_gaps import SliceGap, SliceValues, find_gaps
from lightning_transfer.evaluation.slice_terms import SliceTerms, slice_terms
from lightning_transfer.metrics import Interval, Resamples
from lightning_transfer.types import Calibration, Record, Schema

__all__ = ["MIN_GROUPS", "MIN_RECORDS", "Slice", "SliceTable", "evaluate_slices", "slice_records"]

_Float = NDArray[np.float64]

MIN_RECORDS = 20
MIN_GROUPS = 5
"""Slices with fewer records or groups are small: resamples of so few groups repeat each other, and the percentile
interval is too narrow to be one of 95%."""


@dataclass(frozen=True)
class Slice:
    """The records that share a value of a column.

    Attributes:
        column: Name of the column.
        value: What they share: a value, or a band of numbers.
        n: Labelled records.
        num_groups: Groups among them.
        num_classes: Classes among their labels, over which macro-F1 averages.
        small: Whether they are too few for the interval to be trusted.
        metrics: Name -> value with interval, the headline first.
        difference: The headline here minus that of all other records, on the same draws; macro-F1 there over the
            classes that are here.
        stands_out: Whether that difference is larger than the largest of all slices' is by chance in 95% of the draws.
    """

    column: str
    value: str
    n: int
    num_groups: int
    num_classes: int
    small: bool
    metrics: Mapping[str, Interval]
    difference: Interval
    stands_out: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, free of NaN."""
        return {
            "column": self.column,
            "value": self.value,
            "n": self.n,
            "num_groups": self.num_groups,
            "num_classes": self.num_classes,
            "small": self.small,
            "metrics": {name: item.to_dict() for name, item in self.metrics.items()},
            "difference": self.difference.to_dict(),
            "stands_out": self.stands_out,
        }


@dataclass(frozen=True)
class SliceTable:
    """All slices of an evaluation.

    Attributes:
        headline: The metric that orders them.
        slices: Column by column, the worst first within each.
        left_out: Column -> why it made no slices.
        note: How to read the table.
        higher_is_worse: Whether the headline counts errors.
        gaps: Between which two slices of a column the headline differs most, the largest first, and then the largest
            gap of each finding; empty where the headline is no AUROC.
    """

    headline: str
    slices: tuple[Slice, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    higher_is_worse: bool = False
    gaps: tuple[SliceGap, ...] = ()

    @property
    def worst(self) -> tuple[Slice, ...]:
        """The slices that are not small and have the headline, the worst of all columns first."""
        judged = [item for item in self.slices if not item.small and item.metrics[self.headline].value is not None]
        return tuple(sorted(judged, key=self._badness))

    def _badness(self, item: Slice) -> tuple[bool, float]:
        value = item.metrics[self.headline].value
        return value is None, 0.0 if value is None else (-value if self.higher_is_worse else value)


def evaluate_slices(
    outputs: Outputs,
    records: Sequence[Record],
    schema: Schema,
    calibration: Calibration,
    *,
    columns: Sequence[str] | Literal["all"] = "all",
    headline: str = "macro_f1",
    max_slices: int = 50,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> SliceTable:
    """Return the headline, accuracy, recall at the threshold and false-reject rate of each slice of the records.

    Slices come from the columns of ``Record.meta``, by value, by quarter of a year or by quarter of a number, and from
    the size of images and the length of texts. Every draw of the bootstrap is one of all groups, of which a slice gets
    those that it has: so the difference between a slice and the rest is right whether groups lie in one slice or in
    several, and the slices are comparable with each other.

    The worst of many slices looks bad by chance. A slice stands out only if its difference to the rest, in units of its
    own standard error, exceeds the 95% quantile of the largest such deviation of all slices over the draws (the single
    step max-T of Westfall and Young 1993). Small slices take no part in that: they are shown and marked. In simulations
    without a weak slice 7 to 9% of the tables had one that stands out, and each interval excluded 0 in 6 to 7%.

    Args:
        outputs: What the model said, of one split.
        records: All records of that split; ``outputs.index`` points into them.
        schema: Of the model.
        calibration: Of the checkpoint.
        columns: Names; ``all`` takes every column, none takes none.
        headline: ``macro_f1`` or ``auroc``; the latter needs a negative class, or several labels a record: then it is
            the mean over those that are defined in the slice.
        max_slices: Columns past this total are left out.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
        show_progress: Whether to show a bar.

    Raises:
        ValueError: If the headline is another.
        TransferError: If labels are missing.
    """
    has_auroc = schema.task == "multilabel" or negative_index(schema) is not None
    if headline not in ("macro_f1", "auroc") or (headline == "auroc" and not has_auroc):
        raise ValueError(f"Expected `headline` macro_f1, or auroc with a negative class, got `{headline}`.")
    target = labels_of(outputs, schema)
    known = ~np.isnan(target).all(axis=1) if schema.task == "multilabel" else target >= 0
    places = outputs.index.numpy()[known]
    labelled = [records[place] for place in places.tolist()]
    if not labelled or not columns:
        return SliceTable(headline)
    terms = slice_terms(outputs.logits.double().numpy()[known], target[known], schema, calibration, headline)
    return slice_records(
        labelled,
        terms,
        schema,
        columns=columns,
        n_resamples=n_resamples,
        confidence=confidence,
        seed=seed,
        max_slices=max_slices,
        show_progress=show_progress,
    )


def slice_records(
    records: Sequence[Record],
    terms: SliceTerms,
    schema: Schema,
    *,
    columns: Sequence[str] | Literal["all"] = "all",
    max_slices: int = 50,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> SliceTable:
    """Return what metrics of any kind say of each slice of the records; see `evaluate_slices`.

    Args:
        records: All of them are judged.
        terms: What each of them adds to the metrics.
        schema: Tells images from texts.
        columns: As `evaluate_slices`.
        max_slices: As `evaluate_slices`.
        n_resamples: As `evaluate_slices`.
        confidence: As `evaluate_slices`.
        seed: As `evaluate_slices`.
        show_progress: As `evaluate_slices`.
    """
    headline, worse = terms.names[0], terms.higher_is_worse
    if not columns:
        return SliceTable(headline, higher_is_worse=worse)
    found, left_out = find_columns(records, schema, None if columns == "all" else columns)
    masks = _masks(found, left_out, max_slices)
    if not masks:
        return SliceTable(headline, (), left_out, higher_is_worse=worse)
    codes = metrics.group_codes([record.group for record in records])
    parts = [_Part.of(terms, codes, mask) for mask in masks.values()]
    whole = _Part.of(terms, codes, np.ones(len(records), dtype=bool))

    ranked = SliceAuroc(*terms.ranking, list(masks.values())) if headline == "auroc" and terms.ranking else None
    several = FindingSliceAuroc(terms.findings, list(masks.values())) if terms.findings else None

    def statistic(counts: _Float) -> dict[str, _Float]:
        """Return the metrics of each slice, and the headline of its rest, of draws of groups ``(B, G)``."""
        total = counts @ whole.sums
        aurocs = None if ranked is None else ranked(counts, codes)
        by_finding = None if several is None else several(counts, codes)
        result = {}
        for place, part in enumerate(parts):
            sums = counts[:, part.groups] @ part.sums
            found = terms.read(sums)
            if aurocs is not None:
                found[headline], rest = (both[:, place] for both in aurocs)
            elif by_finding is not None:
                found[headline], shared, rest = (part[:, place] for part in by_finding[:3])
                found["difference"] = shared - rest
                for number, values in enumerate(by_finding[3][:, place].T):
                    found[f"of {number}"] = values
            else:
                rest = terms.among(total - sums, terms.classes_of(part.mask))
            found.setdefault("difference", found[headline] - rest)
            result.update({f"{place} {name}": value for name, value in found.items()})
        return result

    with progress("Slices", n_resamples, show_progress) as bar:
        # The groups are what is drawn, and all that the sums need to know of the records.
        drawn = metrics.resample(
            statistic, range(int(codes.max()) + 1), n_resamples=n_resamples, seed=seed, on_chunk=bar.update
        )
    slices = [
        _slice(place, key, part, drawn, terms, codes, confidence)
        for place, (key, part) in enumerate(zip(masks, parts, strict=True))
    ]
    chosen = _standing_out(drawn, slices)
    marked = tuple(replace(item, stands_out=out) for item, out in zip(slices, chosen, strict=True))
    gaps = _gaps(drawn, slices, terms, confidence) if headline == "auroc" else ()
    table = SliceTable(headline, marked, higher_is_worse=worse, gaps=gaps)
    order = list(found)
    ordered = sorted(table.slices, key=lambda item: (order.index(item.column), table._badness(item)))
    return replace(table, slices=tuple(ordered), left_out=left_out, note=_note(ordered, headline))


@dataclass(frozen=True)
class _Part:
    """A slice: its records ``(N,)``, its groups ``(G',)``, and what its records add up to in each, ``(G', K)``."""

    mask: NDArray[np.bool_]
    groups: NDArray[np.int64]
    sums: _Float

    @classmethod
    def of(cls, terms: SliceTerms, codes: NDArray[np.int64], mask: NDArray[np.bool_]) -> _Part:
        order = np.flatnonzero(mask)
        order = order[np.argsort(codes[order], kind="stable")]
        groups, first = np.unique(codes[order], return_index=True)
        return cls(mask, groups, np.add.reduceat(terms.values[order], first, axis=0))


def _masks(
    found: Mapping[str, list[Any]], left_out: dict[str, str], max_slices: int
) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Return the records of each column's values; adds to ``left_out`` why a column has none."""
    masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for column, values in found.items():
        names, reason = cut_column(values, column)
        distinct = list(dict.fromkeys(names))
        if not reason and len(masks) + len(distinct) > max_slices:
            reason = f"its {len(distinct)} slices beside the {len(masks)} before are more than {max_slices}"
        if reason:
            left_out[column] = reason
            continue
        cells = np.array(names, dtype=object)
        masks.update({(column, name): np.asarray(cells == name, dtype=bool) for name in distinct})
    return masks


def _slice(
    place: int,
    key: tuple[str, str],
    part: _Part,
    drawn: Resamples,
    terms: SliceTerms,
    codes: NDArray[np.int64],
    confidence: float,
) -> Slice:
    def interval(name: str, about: NDArray[np.bool_], reason: str) -> Interval:
        groups = np.isin(drawn.codes, codes[about])
        item = drawn.interval(f"{place} {name}", mask=groups, confidence=confidence, reason=reason)
        return replace(item, n=int(about.sum()))

    table = {}
    for name in terms.names:
        about = part.mask & terms.about[name] if name in terms.about else part.mask
        item = interval(name, about, terms.reasons.get(name, ""))
        table[name] = open_end(item, confidence) if name in terms.shares else item
    n, num_groups = int(part.mask.sum()), len(part.groups)
    return Slice(
        column=key[0],
        value=key[1],
        n=n,
        num_groups=num_groups,
        num_classes=int(terms.classes_of(part.mask).sum()),
        small=n < MIN_RECORDS or num_groups < MIN_GROUPS,
        metrics=table,
        difference=interval("difference", part.mask, "undefined here or in the rest"),
    )


def _gaps(drawn: Resamples, slices: Sequence[Slice], terms: SliceTerms, confidence: float) -> tuple[SliceGap, ...]:
    """Return the largest gaps between slices that are large enough; a missing value is no group of people."""
    names = [f"of {number}" for number in range(len(terms.findings))] or [terms.names[0]]
    values = [
        SliceValues(
            item.column,
            item.value,
            np.array([drawn.point[f"{place} {name}"] for name in names]),
            np.stack([drawn.values[f"{place} {name}"] for name in names]),
            item.n,
            item.num_groups,
        )
        for place, item in enumerate(slices)
        if not item.small and item.value != MISSING
    ]
    return find_gaps(values, [name for name, _, _ in terms.findings], confidence)


def _standing_out(drawn: Resamples, slices: Sequence[Slice]) -> list[bool]:
    """Tell which differences are larger than the largest of all is by chance, in units of their standard errors."""
    places = [place for place, item in enumerate(slices) if not item.small and item.difference.low is not None]
    if not places:
        return [False] * len(slices)
    values = np.stack([drawn.values[f"{place} difference"] for place in places])
    points = np.array([drawn.point[f"{place} difference"] for place in places])
    errors = np.nanstd(values, axis=1)
    scale = np.where(errors > 0, errors, np.inf)
    largest = np.nanmax(np.abs(values - points[:, None]) / scale[:, None], axis=0, initial=0.0)
    out = np.abs(points) / scale > np.quantile(largest, 0.95)
    chosen = dict(zip(places, out.tolist(), strict=True))
    return [chosen.get(place, False) for place in range(len(slices))]


def _note(slices: Sequence[Slice], headline: str) -> str:
    small = sum(item.small for item in slices)
    if small == len(slices):
        return (
            f"All {small} slices have fewer than {MIN_RECORDS} records or {MIN_GROUPS} groups: their intervals are too "
            "narrow, and none of them can be said to stand out."
        )
    text = (
        f"Of {len(slices)} slices the worst looks bad by chance too. Those that stand out differ from the rest by more "
        f"in {headline} than the largest of {len(slices) - small} differences does by chance in 95% of the draws."
    )
    if small:
        text += (
            f" {small} have fewer than {MIN_RECORDS} records or {MIN_GROUPS} groups: their intervals are too narrow."
        )
    return text
