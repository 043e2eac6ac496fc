"""What a module says of a probe, which metrics can be read from that, and how far it is from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_transfer.callbacks.forgetting_findings import Findings, auroc_losses
from lightning_transfer.callbacks.forgetting_probe import Probe
from lightning_transfer.callbacks.forgetting_words import Spoken, word_loss
from lightning_transfer.errors import listing
from lightning_transfer.metrics.bootstrap import Interval, cluster_bootstrap
from lightning_transfer.metrics.cka import cka_statistic
from lightning_transfer.metrics.forgetting import (
    agreement,
    cosine_distance,
    kl_divergence,
    knn_predictions,
    l2_distance,
    predicted_class,
)

__all__ = [
    "FEATURE_METRICS",
    "HEAD_METRICS",
    "LABEL_METRICS",
    "METRICS",
    "Outputs",
    "compare",
    "usable_metrics",
]

METRICS: Final = ("agreement", "kl", "cosine", "cka", "accuracy", "knn", "l2", "wer", "auroc")
FEATURE_METRICS: Final = frozenset(METRICS) - {"wer"}
"""Metrics of the features, or of the source head's scores on them."""
HEAD_METRICS: Final = frozenset({"agreement", "kl", "accuracy", "auroc"})
"""Metrics of the source head's scores."""
LABEL_METRICS: Final = frozenset({"accuracy", "knn"})
"""Metrics that need the probe's labels."""

_LABELS = (
    "The metric {metric!r} needs a probe of source data with labels: integers, second in each batch or under `label`. "
    "None was found in: {lacking}. Leave {metric!r} out, or add labels."
)
_NEEDS: Final = {
    "accuracy": _LABELS,
    "knn": _LABELS,
    "auroc": (
        "The metric {metric!r} needs a probe of source data with labels of 0 and 1 for each finding, as floats of "
        "shape (N,) or (N, C) with NaN for unknown, and found none in: {lacking}. Leave {metric!r} out, or add labels."
    ),
    "wer": (
        "The metric {metric!r} needs a probe of source data with transcripts, and found none in: {lacking}. They come "
        "from the records of a data module of ours, from texts under `text` in each batch, or from "
        "`module.reference_texts(target)`. Pieces of records that are too long for one input have none."
    ),
}
_NUM_NEIGHBOURS = 5
_NUM_RESAMPLES = 300


@dataclass(frozen=True)
class Outputs:
    """What a module says of a probe, on the CPU.

    Attributes:
        features: Pooled features ``(N, F)``; None where no metric asks for them.
        logits: The source head's scores ``(N, C)``; None without a head.
        words: Wrong words, and words that were said, of each input ``(N, 2)``; None without `wer`.
    """

    features: Tensor | None = None
    logits: Tensor | None = None
    words: Tensor | None = None

    def with_first(self, again: Outputs) -> Outputs:
        """Return outputs whose first rows are replaced by those that were measured again."""
        pairs = [(getattr(self, name), getattr(again, name)) for name in ("features", "logits", "words")]
        return Outputs(
            *(None if old is None or new is None else torch.cat([new, old[len(new) :]]) for old, new in pairs)
        )


def usable_metrics(probes: Sequence[Probe], metrics: Sequence[str], has_head: bool) -> dict[str, tuple[str, ...]]:
    """Return for each probe which of the wanted metrics can be read from it; what is left out is said in the log.

    A stand-in for source data has no accuracy: its labels, if any, are of another task.

    Raises:
        MisconfigurationException: If a metric that needs labels finds none, or nothing is left.
    """
    without = [] if has_head else [metric for metric in metrics if metric in HEAD_METRICS]
    if without:
        rank_zero_info(
            f"ForgettingMonitor has no source head (`head=None`): {listing(without)} cannot be measured, only the "
            "representation."
        )
    usable = {}
    for probe in probes:
        barred = set(without)
        if probe.labels is None:
            barred |= LABEL_METRICS
        if probe.spoken is None:
            barred.add("wer")
        if probe.findings is None:
            barred.add("auroc")
        if probe.proxy:
            barred |= {"accuracy", "auroc", "wer"}
        usable[probe.name] = tuple(metric for metric in metrics if metric not in barred)
    for metric in metrics:
        lacking = [probe.name or "the probe" for probe in probes if metric not in usable[probe.name]]
        if metric in _NEEDS and metric not in without and len(lacking) == len(probes):
            raise MisconfigurationException(_NEEDS[metric].format(metric=metric, lacking=listing(lacking)))
        if metric not in without and lacking:
            what = "transcripts" if metric == "wer" else "labels"
            rank_zero_info(f"ForgettingMonitor: no {metric} for {listing(lacking)}, which has no {what} for it.")
    if not any(usable.values()):
        raise MisconfigurationException(
            f"Without a source head nothing is left of `metrics={tuple(metrics)}`. Pass `head=`, or add one of "
            f"{', '.join(metric for metric in METRICS if metric not in HEAD_METRICS)}."
        )
    return usable


def compare(
    reference: Outputs,
    current: Outputs,
    labels: Tensor | None,
    metrics: Sequence[str],
    spoken: Spoken | None = None,
    findings: Findings | None = None,
) -> dict[str, Interval]:
    """Return each metric as a loss against the reference, with the 95% interval of its paired samples.

    Args:
        reference: Outputs before training.
        current: Outputs of the same inputs now.
        labels: Classes of the inputs, for ``accuracy`` and ``knn``.
        metrics: Names among `METRICS`; each is 0 for equal outputs, and positive is worse.
        spoken: What is said in the inputs, for ``wer``.
        findings: What the inputs show, for ``auroc``, which comes with ``auroc_<finding>`` for each of several.

    Returns:
        Metric -> interval; the value is None, with the reason, where outputs are not finite or CKA is undefined.
    """
    readings = {}
    for metric in metrics:
        if metric == "wer" and spoken is not None and reference.words is not None and current.words is not None:
            readings[metric] = word_loss(reference.words, current.words, spoken)
            continue
        used = current.logits if metric in HEAD_METRICS else current.features
        if used is None or not bool(used.isfinite().all()):
            count = 0 if current.features is None else len(current.features)
            readings[metric] = Interval(None, None, None, count, reason="outputs are not finite")
        elif metric == "auroc" and findings is not None and reference.logits is not None:
            readings |= auroc_losses(reference.logits, used, findings)
        elif metric == "cka" and reference.features is not None:
            readings[metric] = _cka_loss(reference.features, used)
        else:
            readings[metric] = _mean_interval(_losses(metric, reference, current, labels))
    return readings


def _losses(metric: str, reference: Outputs, current: Outputs, labels: Tensor | None) -> Tensor:
    """Return the loss of each sample."""
    before, now = reference.features, current.features
    if before is not None and now is not None:
        if metric == "cosine":
            return cosine_distance(before, now)
        if metric == "l2":
            return l2_distance(before, now)
        if metric == "knn" and labels is not None:
            was, found = (knn_predictions(item, labels, _NUM_NEIGHBOURS) for item in (before, now))
            return (was == labels).double() - (found == labels).double()
    if reference.logits is not None and current.logits is not None:
        if metric == "agreement":
            return 1.0 - agreement(reference.logits, current.logits)
        if metric == "kl":
            return kl_divergence(reference.logits, current.logits)
        if metric == "accuracy" and labels is not None:
            was, found = (predicted_class(logits) == labels for logits in (reference.logits, current.logits))
            return was.double() - found.double()
    raise ValueError(f"The metric {metric!r} cannot be read from these outputs. Known: {', '.join(METRICS)}.")


def _mean_interval(losses: Tensor) -> Interval:
    """Return the mean with its interval in closed form: 1.96 standard errors of the paired differences."""
    mean, margin = losses.mean().item(), 1.96 * losses.std().item() / len(losses) ** 0.5
    return Interval(mean, mean - margin, mean + margin, len(losses))


def _cka_loss(reference: Tensor, current: Tensor) -> Interval:
    """Return one minus the unbiased CKA, with a bootstrap interval: it is no mean over samples."""
    statistic = cka_statistic(reference, current)
    return cluster_bootstrap(
        lambda weights: 1.0 - statistic(weights),
        range(len(reference)),
        n_resamples=_NUM_RESAMPLES,
        reason="features do not vary over the probe",
    )
