"""Which labels are probably wrong: confident learning on the votes of the nearest records, by frozen features."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.evaluation.progress import progress
from lightning_transfer.metrics import group_codes

__all__ = ["Suspect", "SuspectGroup", "find_suspects", "rank_groups"]

_Float = NDArray[np.float64]
_Int = NDArray[np.int64]

# Similarities computed at once: 16 million floats are 64 MB.
_CHUNK = 2**24
# A neighbour whose cosine is 0.1 below that of the nearest one has 1/e of its vote. One that is nearly the same image
# then outweighs nine that are merely alike, and the number of neighbours hardly matters.
_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Suspect:
    """A record beside the label that its neighbours would give it.

    Attributes:
        index: Its row in the features.
        label: The class that it has.
        suggested: The class that its neighbours vote for.
        score: In ``[0, 1]``: 0 where all neighbours have its label, 1 where all have one other.
        likely: Whether confident learning counts it as an error: see `find_suspects`.
    """

    index: int
    label: str
    suggested: str
    score: float
    likely: bool


@dataclass(frozen=True)
class SuspectGroup:
    """A group (part, patient, customer) whose records look wrong together.

    Attributes:
        group: Its name.
        label: The class that most of its records have.
        suggested: The class that the records of other groups suggest for most of them.
        score: Mean of its records' scores.
        likely: Whether more than half of its records are likely errors.
        num_records: Those that were judged.
    """

    group: Hashable
    label: str
    suggested: str
    score: float
    likely: bool
    num_records: int


def find_suspects(
    features: Tensor | NDArray[Any],
    labels: Sequence[int] | NDArray[Any],
    classes: Sequence[str],
    *,
    groups: Sequence[Hashable] | None = None,
    k: int = 10,
    show_progress: bool = False,
) -> list[Suspect]:
    """Rank records by how much their nearest neighbours contradict their label, the most suspicious first.

    Confident learning (Northcutt et al. 2021, arXiv 1911.00068) on out-of-sample probabilities: the shares of the votes
    of the ``k`` nearest other records, by the cosine of standardised features, near ones counting more. A neighbour
    vote is fitted by nothing, so leaving each record out of its own vote is cross-validation with as many folds as
    records, for the price of one pass. Each class has the threshold of its own mean self-confidence (equation 2), so
    that rare and mixed classes are not suspect as such. A record is a *likely* error if another class is the largest
    of those that reach their thresholds: it lies off the diagonal of the confident joint (equation 1). Likely errors
    come first, each part by the normalised margin ``p[label] - max p[other]`` (section 3.2), ties by index.

    Two kinds of error need two passes. **Without** ``groups`` a record is judged by its near-copies, too: a label that
    went wrong on one of six pictures of a part contradicts the other five, and is found nearly always. A part whose six
    pictures all have the wrong label vouches for itself, and is not found. **With** ``groups`` a record is judged by
    other groups alone. That finds such parts, and is much less sure, since it knows no more than a classifier of new
    parts does: pass the result to `rank_groups`.

    Not judged, as no vote could speak for them: records without a label, and those whose class has no other record
    (no other group, with ``groups``). A class of fewer than about ``k`` records is outvoted now and then.

    Args:
        features: Of a frozen backbone, ``(N, F)``. Those of a network fine-tuned on these labels would repeat them.
        labels: Class indices ``(N,)``; -1 is unknown. For multi-label call it for each class, with 0 and 1.
        classes: Names of the classes, in the order of the indices.
        groups: Group of each record ``(N,)``, whose own records have no vote; None is a group of its own.
        k: Neighbours that vote. Recall of planted errors hardly differs between 5 and 30.
        show_progress: Whether to show a bar.

    Returns:
        One entry for each judged record.

    Raises:
        ValueError: If shapes, labels, features or ``k`` cannot be.

    Example:
        >>> points = np.array([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0.2, 1]])
        >>> worst = find_suspects(points, [0, 0, 0, 1, 1, 0], ("crack", "pit"), k=2)[0]
        >>> worst.index, worst.label, worst.suggested, worst.likely
        (5, 'crack', 'pit', True)
    """
    values, given = _check(features, labels, classes, k)
    codes = _codes(groups, len(given))
    rows = _judged(given, codes)
    if len(rows) < 2:
        return []
    target, codes = given[rows], codes[rows]
    num_neighbours = min(k, len(rows) - 1)
    places, weights = _neighbours(values[rows], codes, num_neighbours, show_progress)
    voters = target[places]
    self_confidence = (weights * (voters == target[:, None])).sum(axis=1)
    thresholds = np.full(len(classes), np.inf)
    for place in np.unique(target):
        thresholds[place] = self_confidence[target == place].mean()
    found: list[Suspect] = []
    for part in _chunks(len(rows), len(classes)):
        probs = _shares(voters[part], weights[part], len(classes))
        own, number = target[part], np.arange(len(part))
        # Sums of shares are exact to rounding only, and a class may reach its threshold exactly.
        reached = np.where(probs >= thresholds - 1e-9, probs, 0.0)
        confident = reached.argmax(axis=1)
        likely = (reached.max(axis=1) > 0) & (confident != own)
        others = probs.copy()
        others[number, own] = -1.0
        suggested = np.where(likely, confident, others.argmax(axis=1))
        scores = (1.0 - (probs[number, own] - others.max(axis=1))) / 2.0
        found += [
            Suspect(int(rows[row]), classes[given[rows[row]]], classes[guess], float(min(max(score, 0.0), 1.0)), flag)
            for row, guess, score, flag in zip(part, suggested, scores, likely.tolist(), strict=True)
        ]
    # Rounded: equal margins, summed in another order, would otherwise be ranked by their last bit.
    return sorted(found, key=lambda item: (not item.likely, -round(item.score, 9), item.index))


def rank_groups(suspects: Sequence[Suspect], groups: Sequence[Hashable]) -> list[SuspectGroup]:
    """Rank groups by the mean score of their records, likely ones first.

    Args:
        suspects: Of `find_suspects` with the same ``groups``: without them a group vouches for itself.
        groups: Group of each row of the features; records without one (None) are left out.

    Example:
        >>> rows = [Suspect(0, "free", "crack", 0.9, True), Suspect(1, "free", "crack", 0.7, True)]
        >>> rank_groups(rows, ["tile 1", "tile 1"])[0].score
        0.8
    """
    members: dict[Hashable, list[Suspect]] = {}
    for item in suspects:
        if groups[item.index] is not None:
            members.setdefault(groups[item.index], []).append(item)
    found = [
        SuspectGroup(
            name,
            _most_frequent([item.label for item in items]),
            _most_frequent([item.suggested for item in items]),
            sum(item.score for item in items) / len(items),
            2 * sum(item.likely for item in items) > len(items),
            len(items),
        )
        for name, items in members.items()
    ]
    return sorted(found, key=lambda item: (not item.likely, -round(item.score, 9), str(item.group)))


def _check(
    features: Tensor | NDArray[Any], labels: Sequence[int] | NDArray[Any], classes: Sequence[str], k: int
) -> tuple[NDArray[np.float32], _Int]:
    given = features.detach().cpu().numpy() if isinstance(features, Tensor) else np.asarray(features)
    values, numbers = given.astype(np.float32), np.asarray(labels, dtype=np.int64)
    if values.ndim != 2 or numbers.shape != (len(values),):
        raise ValueError(
            f"Expected features (N, F) and labels (N,), got {tuple(values.shape)} and {tuple(numbers.shape)}."
        )
    if len(numbers) and numbers.max() >= len(classes):
        raise ValueError(f"A label has the number {numbers.max()}, and there are {len(classes)} classes.")
    if k < 1:
        raise ValueError(f"Expected `k` of at least 1, got {k}. 10 suits most data.")
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(wrong):
        raise ValueError(f"The features of {len(wrong)} records are NaN or infinite, first at row {wrong[0]}.")
    return values, numbers


def _codes(groups: Sequence[Hashable] | None, length: int) -> _Int:
    codes = group_codes(range(length) if groups is None else groups)
    if len(codes) != length:
        raise ValueError(f"Expected one group for each of {length} records, got {len(codes)}.")
    return codes


def _judged(labels: _Int, codes: _Int) -> _Int:
    """Return the rows with a label that some other group has, too."""
    shared = [place for place in np.unique(labels) if place >= 0 and len(np.unique(codes[labels == place])) > 1]
    return np.flatnonzero(np.isin(labels, shared))


def _neighbours(features: NDArray[np.float32], codes: _Int, k: int, show_progress: bool) -> tuple[_Int, _Float]:
    """Return the nearest records of other groups, ``(N, k)``, and the shares of the vote that they have."""
    # A constant feature has no direction; the others count alike, whatever their scale.
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    directions = torch.from_numpy((scaled / np.where(length > 0, length, 1.0)).astype(np.float32))
    group = torch.from_numpy(codes)
    places, weights = [], []
    with progress("Neighbours", len(codes), show_progress) as bar:
        for part in _chunks(len(codes), len(codes)):
            rows = torch.from_numpy(part)
            alike = directions[rows] @ directions.T
            alike[group[rows, None] == group[None]] = -torch.inf
            nearest = alike.topk(k, dim=1)
            votes = torch.exp((nearest.values.double() - nearest.values[:, :1].double()) / _TEMPERATURE)
            places.append(nearest.indices.numpy())
            weights.append((votes / votes.sum(dim=1, keepdim=True)).numpy())
            bar.update(len(part))
    return np.concatenate(places), np.concatenate(weights)


def _shares(voters: _Int, weights: _Float, num_classes: int) -> _Float:
    """Return each class's share of the vote, ``(N, C)``."""
    cells = np.arange(len(voters))[:, None] * num_classes + voters
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(voters) * num_classes)
    return np.asarray(votes.reshape(len(voters), num_classes))


def _chunks(length: int, width: int) -> Iterator[_Int]:
    """Yield consecutive rows, so many at once as a table of that width may have."""
    size = max(1, _CHUNK // max(1, width))
    for start in range(0, length, size):
        yield np.arange(start, min(start + size, length))


def _most_frequent(names: Sequence[str]) -> str:
    """Return the most frequent name; the first in the alphabet of several."""
    return min(set(names), key=lambda name: (-names.count(name), name))
