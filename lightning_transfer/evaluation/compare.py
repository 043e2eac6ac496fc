"""Compare tested runs: each beside the first, on the same draws where they were tested on the same records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError, listing
from lightning_transfer.evaluation.judges import Judge, intervals, judge
from lightning_transfer.evaluation.terminal import align, signed
from lightning_transfer.evaluation.tested_runs import TestedRun, read_tested_run
from lightning_transfer.metrics import Interval, Resamples
from lightning_transfer.metrics.bootstrap import Float

__all__ = ["ComparedRun", "RunComparison", "compare_runs", "format_comparison", "run_names"]

COMPARED: tuple[str, ...] = (
    *("macro_f1", "accuracy", "balanced_accuracy", "auroc", "average_precision", "brier"),
    *("recall_at_threshold", "false_reject_rate"),
)
"""What is compared. ``log_loss`` and ``ece`` need more digits, or have no interval."""

_FACTS = {
    "fit_seconds": "fit, s",
    "latency_p50_ms": "latency, ms",
    "size_mb": "size, MB",
    "num_parameters": "parameters",
}


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs.

    Attributes:
        name: Of its folder; the whole path where two have the same.
        folder: Of the test that was read.
        n: Labelled records.
        num_groups: Groups among them.
        metrics: Name -> value with interval.
        difference: Name -> this run minus the first, with interval; empty for the first.
        paired: Whether that difference was taken on the same records; None for the first.
        facts: Seconds of the fit, latency, size: those that were measured.
    """

    name: str
    folder: str
    n: int
    num_groups: int
    metrics: Mapping[str, Interval]
    difference: Mapping[str, Interval] = field(default_factory=dict)
    paired: bool | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, free of NaN."""
        return {
            "name": self.name,
            "folder": self.folder,
            "n": self.n,
            "num_groups": self.num_groups,
            "metrics": {name: item.to_dict() for name, item in self.metrics.items()},
            "difference": {name: item.to_dict() for name, item in self.difference.items()},
            "paired": self.paired,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True)
class RunComparison:
    """Several runs, the first of which the others are compared with.

    Attributes:
        runs: In the order in which they were given.
        headline: The metric to look at first.
        notes: What limits the comparison, in sentences.
        confidence: Of the intervals.
    """

    runs: tuple[ComparedRun, ...]
    headline: str = "macro_f1"
    notes: tuple[str, ...] = ()
    confidence: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts, numbers and strings, free of NaN."""
        return {
            "headline": self.headline,
            "reference": self.runs[0].name,
            "runs": [run.to_dict() for run in self.runs],
            "notes": list(self.notes),
            "confidence": self.confidence,
        }


def compare_runs(
    folders: Sequence[str | Path], *, n_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> RunComparison:
    """Compare what ``test`` wrote in several run folders; no model is loaded and nothing is predicted again.

    Runs that were tested on the same records are compared pair by pair: both are evaluated on the same draws of groups,
    so that what is hard for both cancels out. Else the draws are independent, the interval is wider, and a note says
    so. Runs that transcribe are compared on the utterances that all of them judged. Each further run is one more chance
    to look better by luck; a note says that too.

    Args:
        folders: Run folders whose ``test`` is read, or folders of single tests; at least two.
        n_resamples: Draws of the bootstrap over groups.
        confidence: Of the intervals.
        seed: Of the draws.

    Raises:
        TransferError: If there are fewer than two, one was not tested, or they do not have the same classes.

    Example:
        >>> compare_runs(["runs/one"])
        Traceback (most recent call last):
        ...
        lightning_transfer.errors.TransferError: A comparison needs two runs or more, got 1. ...
    """
    if len(folders) < 2:
        raise TransferError(f"A comparison needs two runs or more, got {len(folders)}. Give their folders.")
    from lightning_transfer.evaluation.compare_transcripts import compare_transcripts, transcripts_folder

    spoken = [place for place in map(transcripts_folder, folders) if place is not None]
    if len(spoken) == len(folders):
        options = {"n_resamples": n_resamples, "seed": seed}
        return compare_transcripts(spoken, folders, confidence=confidence, **options)
    tested = [read_tested_run(folder) for folder in folders]
    names = run_names(folders)
    for name, run in zip(names, tested, strict=True):
        _check_alike(names[0], tested[0], name, run)
    notes = _about_groups(names, tested)
    runs: list[ComparedRun] = []
    reference: Resamples | None = None
    for place, (name, run) in enumerate(zip(names, tested, strict=True)):
        paired = place > 0 and _same_records(tested[0], run)
        ordered = _in_order_of(tested[0], run) if paired else run
        found = judge(ordered.logits, ordered.target, run.schema, ordered.calibration)
        # Other records are drawn independently, so from another seed.
        draws_of = seed if place == 0 or paired else seed + place
        groups = tested[0].groups if paired else run.groups
        drawn = _draw(found, groups or range(len(run.ids)), n_resamples, draws_of)
        difference: dict[str, Interval] = {}
        if reference is not None:
            difference = _difference(drawn, reference, found, paired, confidence)
            if not paired:
                notes.append(_unpaired(names[0], tested[0], name, run))
        table = intervals(drawn, found, confidence)
        runs.append(
            ComparedRun(
                name=name,
                folder=str(run.folder),
                n=len(run.ids),
                num_groups=int(drawn.codes.max()) + 1,
                metrics=table,
                difference=difference,
                paired=paired if place else None,
                facts=run.facts,
            )
        )
        reference = reference or drawn
    if len(runs) > 2:
        notes.append(
            f"{len(runs) - 1} runs are compared with `{names[0]}`: of several, the best looks better than it is. "
            "Choose on validation, and test the one that you chose."
        )
    headline = "auroc" if tested[0].schema.task == "binary" else "macro_f1"
    return RunComparison(tuple(runs), headline, tuple(notes), confidence)


def format_comparison(comparison: RunComparison) -> str:
    """Return the comparison as aligned plain text: scores, differences to the first run, what each took, notes."""
    runs, first = comparison.runs, comparison.runs[0]
    names = [comparison.headline, *(name for name in first.metrics if name != comparison.headline)]
    rows: list[tuple[str, ...]] = [("", *(run.name for run in runs))]
    rows += [(name, *(str(run.metrics[name]) if name in run.metrics else "" for run in runs)) for name in names]
    lines = align(rows)
    minus: list[tuple[str, ...]] = [(f"minus {first.name}", *(run.name for run in runs[1:]))]
    for name in names:
        minus.append((name, *(signed(run.difference[name]) if name in run.difference else "" for run in runs[1:])))
    lines += ["", *align(minus)]
    took: list[tuple[str, ...]] = [("", *(run.name for run in runs))]
    for name, text in _FACTS.items():
        if any(name in run.facts for run in runs):
            took.append((text, *(_amount(run.facts.get(name)) for run in runs)))
    lines += ["", *align(took)] if len(took) > 1 else []
    return "\n".join([*lines, *(f"Note: {note}" for note in comparison.notes)])


def _amount(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def run_names(folders: Sequence[str | Path]) -> list[str]:
    """Return the names of the folders, or their paths where names repeat."""
    paths = [Path(folder) for folder in folders]
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _check_alike(first: str, reference: TestedRun, name: str, run: TestedRun) -> None:
    ours, theirs = reference.schema, run.schema
    if (ours.task, ours.classes) != (theirs.task, theirs.classes):
        raise TransferError(
            f"`{name}` tells {listing(theirs.classes, 10)} apart ({theirs.task}), and `{first}` tells "
            f"{listing(ours.classes, 10)} ({ours.task}). Only runs of the same classes can be compared."
        )
    if ours.negative_class != theirs.negative_class:
        raise TransferError(
            f"The negative class of `{name}` is `{theirs.negative_class}`, and that of `{first}` is "
            f"`{ours.negative_class}`. Their decision scores mean different things."
        )


def _same_records(reference: TestedRun, run: TestedRun) -> bool:
    if len(set(run.ids)) != len(run.ids) or set(run.ids) != set(reference.ids):
        return False
    return np.array_equal(_in_order_of(reference, run).target, reference.target, equal_nan=True)


def _in_order_of(reference: TestedRun, run: TestedRun) -> TestedRun:
    where = {key: place for place, key in enumerate(run.ids)}
    order = [where[key] for key in reference.ids]
    return replace(run, ids=reference.ids, target=run.target[order], logits=run.logits[order])


def _draw(found: Judge, groups: Sequence[Any], n_resamples: int, seed: int) -> Resamples:
    def statistic(weights: Float) -> dict[str, Float]:
        return {name: value for name, value in found.statistic(weights).items() if name in COMPARED}

    return metrics.resample(statistic, groups, n_resamples=n_resamples, seed=seed)


def _difference(
    drawn: Resamples, reference: Resamples, found: Judge, paired: bool, confidence: float
) -> dict[str, Interval]:
    names = [name for name in COMPARED if name in drawn.point and name in reference.point]
    if not paired:
        # The draws of the other records, taken as if they were of these: they are independent.
        reference = Resamples(reference.point, reference.values, drawn.codes, drawn.seed)
    both = drawn.minus(reference, names)
    return {
        name: both.interval(name, mask=found.masks.get(name), confidence=confidence, reason=found.reasons.get(name, ""))
        for name in names
    }


def _unpaired(first: str, reference: TestedRun, name: str, run: TestedRun) -> str:
    common = len(set(run.ids) & set(reference.ids))
    what = "have other labels" if common == len(run.ids) == len(reference.ids) else "are not the same"
    return (
        f"`{name}` and `{first}` are compared unpaired: their {len(run.ids)} and {len(reference.ids)} records {what} "
        f"({common} ids in common). A difference then is one of the data too. Test both on the same records."
    )


def _about_groups(names: Sequence[str], tested: Sequence[TestedRun]) -> list[str]:
    notes = [
        f"`{run.folder}/predictions.csv` names no groups, so its records count as independent and the interval is too "
        f"narrow. Run `test` again with `{name}`."
        for name, run in zip(names, tested, strict=True)
        if run.groups is None
    ]
    notes += [
        f"{run.num_left_out} rows of `{name}` have no label or no prediction, and are left out."
        for name, run in zip(names, tested, strict=True)
        if run.num_left_out
    ]
    return notes
