"""AUROC of the old task's findings, before and now, on the same draws of patients: the metric ``auroc``."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset

from lightning_transfer.callbacks.forgetting_batches import count_inputs, input_of, target_of
from lightning_transfer.metrics.bootstrap import Interval, Statistic, cluster_bootstrap
from lightning_transfer.metrics.classification import auroc, mean_defined

__all__ = ["Findings", "SourceFindings", "auroc_losses", "find_findings", "source_auroc"]

_NUM_RESAMPLES = 300
_Float = NDArray[np.float64]


@dataclass(frozen=True)
class Findings:
    """What is known of a probe's inputs.

    Attributes:
        labels: 1, 0 and NaN for unknown, ``(N, C)``; a soft label is unknown.
        names: Of the findings, fit for logged keys.
        groups: Patient of each input; None is one of its own.
    """

    labels: _Float
    names: tuple[str, ...]
    groups: tuple[Hashable | None, ...]


@dataclass(frozen=True)
class SourceFindings:
    """AUROC of the old task before training, of one finding or in the mean.

    Attributes:
        before: With its interval by patient.
        key: Logged key of the loss against it.
    """

    before: Interval
    key: str

    def at(self, readings: Mapping[str, Interval] | None) -> dict[str, Interval]:
        """Return ``before``, ``after``, their paired ``change``, and ``chance``, which is one half.

        Example:
            >>> source = SourceFindings(Interval(0.75, 0.5, 1.0, n=40), "forgetting_auroc")
            >>> found = source.at({"forgetting_auroc": Interval(0.25, 0.125, 0.5, n=40)})
            >>> found["after"].value, str(found["change"])
            (0.5, '-0.250 [-0.500, -0.125]')
        """
        loss, n = None if readings is None else readings.get(self.key), self.before.n
        missing = Interval(None, None, None, n, reason="not measured with these weights")
        after, change = missing, missing
        if loss is not None and loss.value is not None and self.before.value is not None:
            after = Interval(self.before.value - loss.value, None, None, n, reason="see the paired change")
            low, high = (None if end is None else -end for end in (loss.high, loss.low))
            change = Interval(-loss.value, low, high, n, loss.num_groups, loss.reason)
        chance = Interval(0.5, None, None, n, reason="an AUROC by chance")
        return {"before": self.before, "after": after, "change": change, "chance": chance}


def find_findings(dataset: Any, batches: Sequence[Any], module: Any) -> Findings | None:  # noqa: ANN401 - of any project
    """Return what the batches say of their inputs; None where one of them holds no labels of 0 and 1.

    Args:
        dataset: Of the probe; the records of ours name the patients.
        batches: As they were read from it.
        module: Names the findings by its schema, where that has as many classes.
    """
    parts, groups = [], []
    for batch in batches:
        labels = _labels(batch)
        if labels is None:
            return None
        parts.append(labels)
        groups += _groups(dataset, batch, len(labels))
    if not parts or len({part.shape[1] for part in parts}) > 1:
        return None
    joined = torch.cat(parts).numpy()
    return Findings(joined, _names(module, joined.shape[1]), tuple(groups))


def auroc_losses(reference: Tensor, current: Tensor, findings: Findings) -> dict[str, Interval]:
    """Return the AUROC of the reference minus that of now, in the mean and for each finding; positive is worse.

    The intervals draw patients, the same for both, so that what is hard for both cancels out. A finding without
    positives, or without negatives, in the probe has no value, and no part in the mean.

    Args:
        reference: Scores of the old head before training ``(N, C)``.
        current: Its scores of the same inputs now.
        findings: Of the inputs.

    Example:
        >>> findings = Findings(np.array([[0.0], [1.0], [0.0], [1.0]]), ("edema",), ("a", "b", "c", "d"))
        >>> before, now = torch.tensor([[0.0], [1.0], [0.0], [1.0]]), torch.tensor([[1.0], [0.0], [0.0], [1.0]])
        >>> {name: item.value for name, item in auroc_losses(before, now, findings).items()}
        {'auroc': 0.5}
    """
    was, now = (item.detach().cpu().double().numpy() for item in (reference, current))

    def loss(weights: _Float, place: int) -> _Float:
        return _column(weights, was, findings, place) - _column(weights, now, findings, place)

    return _readings(findings, loss, was.shape[1])


def source_auroc(logits: Tensor, findings: Findings) -> dict[str, Interval]:
    """Return the AUROC of the reference, in the mean and for each finding, as `auroc_losses` names them."""
    scores = logits.detach().cpu().double().numpy()

    def value(weights: _Float, place: int) -> _Float:
        return _column(weights, scores, findings, place)

    return _readings(findings, value, scores.shape[1])


def _readings(findings: Findings, value: Callable[[_Float, int], _Float], num_scores: int) -> dict[str, Interval]:
    """Return a value of weights ``(B, N)`` and a finding, in the mean and for each, with intervals by patient."""
    n, columns = len(findings.labels), findings.labels.shape[1]
    if num_scores != columns:
        reason = f"the head has {num_scores} scores, and the probe labels of {columns} findings"
        return {"auroc": Interval(None, None, None, n, reason=reason)}
    both = [np.unique(column[~np.isnan(column)]).size == 2 for column in findings.labels.T]
    defined = [place for place in range(columns) if both[place]]
    reason = "no finding has both positives and negatives in the probe"
    if not defined:
        return {"auroc": Interval(None, None, None, n, reason=reason)}

    def mean(weights: _Float) -> _Float:
        return mean_defined(np.stack([value(weights, place) for place in defined], axis=1))

    statistics: dict[str, Statistic] = {"auroc": mean}
    if columns > 1:
        statistics |= {f"auroc_{findings.names[place]}": _of(value, place) for place in defined}
    return {
        name: cluster_bootstrap(statistic, findings.groups, n_resamples=_NUM_RESAMPLES, reason=reason)
        for name, statistic in statistics.items()
    }


def _of(value: Callable[[_Float, int], _Float], place: int) -> Statistic:
    return lambda weights: value(weights, place)


def _column(weights: _Float, scores: _Float, findings: Findings, place: int) -> _Float:
    known = ~np.isnan(findings.labels[:, place])
    return auroc(weights[:, known], scores[known, place], findings.labels[known, place] == 1.0)


def _labels(batch: Any) -> Tensor | None:  # noqa: ANN401
    """Return the labels of a batch ``(n, C)``; None where they are no numbers from 0 to 1 with NaN."""
    target = target_of(batch)
    if not isinstance(target, Tensor) or not target.is_floating_point() or target.ndim not in (1, 2):
        return None
    if len(target) != count_inputs(input_of(batch)):
        return None
    wide = target.detach().cpu().double().reshape(len(target), -1)
    if bool(((wide < 0) | (wide > 1)).any()):  # NaN is neither
        return None
    return torch.where((wide == 0) | (wide == 1), wide, torch.nan)


def _groups(dataset: Any, batch: Any, count: int) -> list[Hashable | None]:  # noqa: ANN401
    """Return the patient of each input, where records of ours name one."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    records, index = getattr(dataset, "records", None), getattr(batch, "index", None)
    if not isinstance(records, Sequence) or not isinstance(index, Tensor):
        return [None] * count
    owners = getattr(dataset, "owners", range(len(records)))
    first: dict[int, Any] = {}
    for owner, record in zip(owners, records, strict=True):
        first.setdefault(owner, record)
    rows = index.tolist() if index.ndim == 1 else [row[0] for row in index.tolist()]
    return [getattr(first.get(row), "group", None) for row in rows]


def _names(module: Any, count: int) -> tuple[str, ...]:  # noqa: ANN401
    classes = tuple(getattr(getattr(module, "schema", None), "classes", ()) or ())
    names = [re.sub(r"\W+", "_", str(name)) for name in classes]
    return tuple(names) if len(set(names)) == count else tuple(f"finding_{place}" for place in range(count))
