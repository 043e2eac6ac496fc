"""What a column alone tells of a label: the site, the view, the scanner that a model may learn instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.split_problems import MAX_EXAMPLES, group_key
from lightning_transfer.errors import listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

__all__ = ["MIN_AUROC", "association_findings", "column_auroc"]

MIN_AUROC = 0.65
"""From here on a column is said to tell the label."""

_STRONG = 0.8
_FEW = 10  # positives, or negatives, below which nothing is said
_MAX_VALUES = 200  # a column with more is no kind of thing

_Bool = npt.NDArray[np.bool_]


def association_findings(
    records: Sequence[Record],
    columns: Mapping[str, Sequence[str]],
    labels: Sequence[str],
) -> list[Finding]:
    """Find columns that tell a label without any look at the image.

    Each image is given the share of positives among the images of the same value *of other patients*; the AUROC of
    these shares is what the column knows. Where it is high, a model that recognises the site by its scanner's grey
    values has the same score without having seen the finding.

    Args:
        records: With labels and patients as groups.
        columns: Name -> value for each record; an empty text is a value of its own.
        labels: Names of the findings; of exclusive classes each against the others.

    Returns:
        ``column-tells-label``, a warning for each column, with the labels that it tells.

    Example:
        >>> rows = [Record(str(i), None, "ab"[i % 2], "train", group=str(i)) for i in range(40)]
        >>> sites = [("north", "south")[i % 2] for i in range(40)]
        >>> [found.code for found in association_findings(rows, {"site": sites}, ["a", "b"])]
        ['column-tells-label']
    """
    groups = [group_key(record) for record in records]
    findings = []
    for name, values in columns.items():
        if not 2 <= len(set(values)) <= _MAX_VALUES:
            continue
        told = []
        for label, known, positive in _labels(records, labels):
            if min(int(positive[known].sum()), int((~positive[known]).sum())) < _FEW:
                continue
            chosen = np.flatnonzero(known).tolist()
            auroc = column_auroc([values[i] for i in chosen], positive[chosen], [groups[i] for i in chosen])
            if auroc is not None and auroc >= MIN_AUROC:
                told.append((auroc, label, _shares(values, known, positive)))
        if told:
            told.sort(reverse=True)
            findings.append(_finding(name, told))
    return findings


def column_auroc(values: Sequence[str], positive: Sequence[bool] | _Bool, groups: Sequence[str]) -> float | None:
    """Return the AUROC of "the share of positives among other patients with the same value".

    A value of one patient only says nothing of others, and counts as the share of all other patients' images.

    Args:
        values: Of the column.
        positive: Whether each record is.
        groups: Its patient.

    Returns:
        None where all are positive, or none is.

    Example:
        >>> column_auroc(["n", "n", "s", "s"], [True, True, False, False], ["1", "2", "3", "4"])
        1.0
        >>> column_auroc(["n", "s", "n", "s"], [True, True, False, False], ["1", "2", "3", "4"])
        0.0
    """
    truth = np.asarray(positive, dtype=bool)
    _, value = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    _, group = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    pairs, pair = np.unique(np.stack([value, group]), axis=1, return_inverse=True)
    pair = pair.ravel()
    own = np.bincount(pair, truth, minlength=pairs.shape[1])[pair]
    own_count = np.bincount(pair, minlength=pairs.shape[1])[pair]
    total = np.bincount(value, truth)[value] - own
    count = np.bincount(value)[value] - own_count
    # The prior, of other patients as well: half a record of it keeps a value of two patients from being sure.
    mine, mine_count = np.bincount(group, truth)[group], np.bincount(group)[group]
    rest = len(truth) - mine_count
    prior = np.divide(truth.sum() - mine, rest, out=np.full(len(truth), 0.5), where=rest > 0)
    return _auroc((total + 0.5 * prior) / (count + 0.5), truth)


def _auroc(scores: npt.NDArray[np.float64], truth: _Bool) -> float | None:
    """Return the probability that a positive's score is above a negative's, ties counted by half."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    levels, place = np.unique(np.round(scores, 12), return_inverse=True)
    up = np.bincount(place[truth], minlength=len(levels)).astype(float)
    down = np.bincount(place[~truth], minlength=len(levels)).astype(float)
    below = np.cumsum(down) - down
    return float((up * (below + 0.5 * down)).sum() / (positives * negatives))


def _labels(records: Sequence[Record], names: Sequence[str]) -> Iterator[tuple[str, _Bool, _Bool]]:
    """Yield each label's name, where it is known, and where it is positive."""
    found = [record.label for record in records]
    if any(isinstance(label, tuple) for label in found):
        for place, name in enumerate(names):
            column = [label[place] if isinstance(label, tuple) else None for label in found]
            yield name, np.array([value is not None for value in column]), np.array([value == 1.0 for value in column])
        return
    known = np.array([label is not None for label in found])
    # Of two classes the second says all.
    for name in names[1:] if len(names) == 2 else names:
        yield name, known, np.array([label == name for label in found])


def _shares(values: Sequence[str], known: _Bool, positive: _Bool) -> str:
    """Name the values with the highest and the lowest share of positives, of those with enough records."""
    rows = []
    for value in sorted(set(values)):
        here = known & np.array([other == value for other in values])
        if here.sum() >= _FEW // 2:
            rows.append((float(positive[here].mean()), int(here.sum()), value or "(none)"))
    rows.sort()
    chosen = [rows[-1], rows[0]] if len(rows) > 1 else rows
    return ", ".join(f"{share:.0%} of {count} in `{value}`" for share, count, value in chosen)


def _finding(column: str, told: Sequence[tuple[float, str, str]]) -> Finding:
    shown = [f"{label}: AUROC {auroc:.2f} ({shares})" for auroc, label, shares in told]
    strong = told[0][0] >= _STRONG
    return Finding(
        "column-tells-label",
        "warning",
        f"`{column}` alone{' nearly' if strong else ''} tells {len(told)} label{'s' * (len(told) > 1)}, without any"
        f" image: {listing(shown, 3)}.",
        len(told),
        tuple(shown[:MAX_EXAMPLES]),
        f"A model may learn `{column}` from the pictures instead of the finding. Judge it on other sites"
        " (`data.external_sites`), look at the slices, or balance the sites.",
    )
