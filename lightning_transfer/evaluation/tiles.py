"""From tiles to images: what a model says of each piece becomes one row for each record."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from lightning_transfer.types import Schema

__all__ = ["join_logits", "join_tiles"]

_log = logging.getLogger(__name__)


def join_tiles(
    logits: Tensor, features: Tensor, target: Tensor | None, index: Tensor, schema: Schema | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return logits, features, target and index with one row a record.

    Logits are joined by `join_logits`, features by their mean over all tiles. A record of which some tiles were not run
    (``limit_test_batches``) is left out: its decision would be that of a part.

    Args:
        logits: Of tiles ``(T, num_logits)``, or ``(T, 0)``.
        features: Of tiles ``(T, F)``.
        target: The record's label, on each of its tiles; None if unknown.
        index: ``(T, 3)`` as in `Batch`, each row once, sorted.
        schema: Holds the rule. May be None where there are no logits.

    Raises:
        ValueError: If no record is complete, or there are logits and no schema.
    """
    has_logits = logits.shape[1] > 0
    if schema is None and has_logits:
        raise ValueError(f"Tiles with logits of width {logits.shape[1]} cannot be joined without the schema.")
    records, counts = torch.unique_consecutive(index[:, 0], return_counts=True)
    ends = counts.cumsum(0).tolist()
    spans = [slice(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]
    whole = [span for span in spans if span.stop - span.start == int(index[span.start, 2])]
    if len(whole) < len(spans):
        _log.warning(
            "%d of %d records are left out, as not all their tiles were run.", len(spans) - len(whole), len(spans)
        )
    if not whole:
        raise ValueError(f"Of none of the {len(records)} records all tiles were run. Raise `limit_*_batches`.")
    first = torch.tensor([span.start for span in whole])
    joined = logits[first]
    if schema is not None and has_logits:
        joined = torch.stack([join_logits(logits[span], schema) for span in whole])
    means = torch.stack([features[span].mean(dim=0) for span in whole])
    return joined, means, None if target is None else target[first], index[first, 0]


def join_logits(logits: Tensor, schema: Schema) -> Tensor:
    """Return the logits of one record from those of its tiles ``(T, num_logits)``.

    The record's probabilities are the mean of the probabilities of its ``top_k`` tiles with the highest decision score,
    anything but the negative class; so its score is the mean of their scores, and for ``top_k = 1`` the highest. For
    multi-label each class has its own ``top_k``. Without a ``top_k`` all tiles count.

    Args:
        logits: Before temperature, which is fitted on whole records afterwards.
        schema: Its preprocessing holds ``tiling.top_k``.

    Returns:
        ``(num_logits,)`` float32; for multi-class log-probabilities.

    Example:
        >>> schema = Schema("multiclass", ("good", "pit"), negative_class="good",
        ...                 preprocessing={"tiling": {"size": [8, 8], "overlap": 2, "top_k": 1}})
        >>> join_logits(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), schema).softmax(0)
        tensor([0.1192, 0.8808])
    """
    values = logits.double()
    top_k = schema.preprocessing["tiling"]["top_k"]
    count = len(values) if top_k is None else min(top_k, len(values))
    if schema.task != "multiclass":
        best = values.topk(count, dim=0).values
        return (torch.logsumexp(logsigmoid(best), dim=0) - torch.logsumexp(logsigmoid(-best), dim=0)).float()
    log_probs = log_softmax(values, dim=1)
    if count < len(values):
        if schema.negative_class is None:
            raise ValueError(
                f"`tile_top_k` is {top_k}, and without a negative class no tile scores higher than another."
            )
        negative = schema.classes.index(schema.negative_class)
        others = torch.cat([log_probs[:, :negative], log_probs[:, negative + 1 :]], dim=1)
        # Log-odds: they still rank where the probability is rounded to 1.
        score = torch.logsumexp(others, dim=1) - log_probs[:, negative]
        log_probs = log_probs[score.topk(count).indices]
    return torch.logsumexp(log_probs, dim=0).log_softmax(dim=0).float()
