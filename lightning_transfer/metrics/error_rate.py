"""Error rates of recognised speech that grow batch by batch, over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_transfer.metrics.word_errors import character_errors, word_errors

__all__ = ["ErrorRate"]


class ErrorRate(Metric):  # type: ignore[misc]  # torchmetrics is not followed
    """All errors over all words (or characters) of the references: long utterances count as much as they are long.

    It may be above 1, with many insertions. Without any word in the references it is NaN.

    Args:
        units: ``words`` or ``characters``.
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> rate = ErrorRate("words")
        >>> rate.update(["call me back", ""], ["call my", "hello"])
        >>> rate.compute()
        tensor(1.)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    errors: Tensor
    length: Tensor

    def __init__(self, units: Literal["words", "characters"] = "words", **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        if units not in ("words", "characters"):
            raise ValueError(f"Expected `units` to be 'words' or 'characters', got {units!r}.")
        self.units = units
        self.add_state("errors", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("length", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, references: Sequence[str], hypotheses: Sequence[str]) -> None:
        """Add utterances; both sides are compared as they are, so normalise them alike first."""
        count = word_errors if self.units == "words" else character_errors
        for counts in count(references, hypotheses):
            self.errors += counts.errors
            self.length += counts.length

    def compute(self) -> Tensor:
        """Return the rate as a scalar."""
        return torch.where(self.length > 0, self.errors / self.length, torch.nan)
