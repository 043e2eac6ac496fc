"""When a logged metric stalls, for stages that wait for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.errors import closest, listing

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["MetricStages", "StallCounter"]


@dataclass
class StallCounter:
    """Counts checks in which a metric failed to improve; a stall opens the next stage.

    Attributes:
        mode: ``min`` if smaller is better, else ``max``.
        patience: Checks without improvement that make a stall.
        best: Best value seen so far; None before the first finite one.
        waited: Checks since the best value or since the last stall.
        stage: Stalls so far.

    Example:
        >>> counter = StallCounter(mode="min", patience=2)
        >>> [counter.update(value) for value in (1.0, 0.9, 0.95, 0.91, 0.92)]
        [False, False, False, True, False]
    """

    mode: Literal["min", "max"] = "min"
    patience: int = 2
    best: float | None = None
    waited: int = 0
    stage: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f"Expected `mode` to be 'min' or 'max', got {self.mode!r}.")
        if not isinstance(self.patience, int) or isinstance(self.patience, bool) or self.patience < 1:
            raise ValueError(f"Expected `patience` to be an integer of at least 1, got {self.patience!r}.")

    def update(self, value: float) -> bool:
        """Take in the next value; True when it completes a stall."""
        finite = math.isfinite(value)
        if finite and (self.best is None or (value < self.best if self.mode == "min" else value > self.best)):
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        self.waited = 0
        self.stage += 1
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must remember."""
        return {"best": self.best, "waited": self.waited, "stage": self.stage}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of `state_dict`."""
        self.best, self.waited, self.stage = state["best"], state["waited"], state["stage"]


class MetricStages:
    """Follows a logged metric, from validation or from training, and counts its stalls the same on every rank.

    Rank 0 reads the metric for all: ranks may log other values, or, with ``rank_zero_only``, none.

    Args:
        monitor: Name of the metric; None follows nothing.
        mode: ``min`` if a smaller metric is better, else ``max``.
        patience: Checks without improvement that make a stall.

    Attributes:
        stage: Stalls so far.

    Raises:
        ValueError: If ``mode`` or ``patience`` is out of range.
    """

    def __init__(self, monitor: str | None, mode: Literal["min", "max"], patience: int) -> None:
        self.monitor = monitor
        self._counter = StallCounter(mode, patience)
        # Where the metric was first found: "validation" or "training".
        self._source: str | None = None
        self._missed = False

    @property
    def stage(self) -> int:
        """Stalls so far."""
        return self._counter.stage

    @property
    def checks_to_come(self) -> int:
        """Checks at least before the next stall is complete."""
        counter = self._counter
        return counter.patience - counter.waited + (counter.best is None)

    def after_validation(self, trainer: Trainer) -> None:
        """Take in a metric that validation logs."""
        if self.monitor is None or trainer.sanity_checking or trainer.state.fn != "fit" or self._source == "training":
            return
        value = self._read(trainer)
        if value is not None:
            self._source = "validation"
            self._counter.update(value)

    def after_epoch(self, trainer: Trainer) -> None:
        """Take in a metric that training logs.

        Raises:
            MisconfigurationException: If the metric was logged nowhere in two epochs.
        """
        if self.monitor is None or self._source == "validation":
            return
        value = self._read(trainer)
        if value is not None:
            self._source = "training"
            self._counter.update(value)
        elif self._missed:
            known = sorted(trainer.callback_metrics)
            raise MisconfigurationException(
                f"`BackboneFreezeUnfreeze(monitor={self.monitor!r})` found no such metric."
                f"{closest(self.monitor, known)} Logged: {listing(known, 20) or 'nothing'}. "
                f"Log it with `self.log({self.monitor!r}, ...)`."
            )
        else:
            # What the module logs in its own `on_train_epoch_end` is there one epoch later.
            self._missed = True

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must remember."""
        return {"counter": self._counter.state_dict(), "source": self._source}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of `state_dict`."""
        self._counter.load_state_dict(state["counter"])
        self._source = state["source"]

    def _read(self, trainer: Trainer) -> float | None:
        found = trainer.callback_metrics.get(self.monitor or "")
        value: float | None = trainer.strategy.broadcast(None if found is None else float(found))
        return value
