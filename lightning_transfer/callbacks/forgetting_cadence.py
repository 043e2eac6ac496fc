"""When `ForgettingMonitor` checks: as asked for, or so rarely that it stays within its share of the time."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

__all__ = ["Cadence"]

# Of `max_overhead`: the few steps and the one check that decide take a tenth or two more or less than later ones.
_PLANNED = 0.8


class Cadence:
    """Says whether a check is due.

    Args:
        every_n_epochs: Epochs between checks.
        every_n_steps: Optimizer steps between checks, instead of epochs.
        max_overhead: Share of the training time that checks may take; four fifths of it are planned for. None keeps
            the cadence as it is.

    Attributes:
        stretch: Every how many due checks one is taken; None until it is decided.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, every_n_epochs: int, every_n_steps: int | None, max_overhead: float | None) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if value is not None and value < 1:
                raise ValueError(f"Expected `{name}` of at least 1, got {value}.")
        if max_overhead is not None and not 0 < max_overhead <= 1:
            raise ValueError(f"Expected `max_overhead` in (0, 1] or None, got {max_overhead}. None sets no limit.")
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.max_overhead = max_overhead
        self.stretch: int | None = None if max_overhead is not None else 1
        self._first_step = self._due = self._batches = self._epoch_batches = 0
        self._progress = 0.0

    def start(self, step: int) -> None:
        """Begin to count at an optimizer step: 0, or where a run is resumed."""
        self._first_step, self._batches = step, 0
        self._due = step // (self.every_n_steps or 1)

    def step_is_due(self, step: int, batch_idx: int) -> bool:
        """Count a batch; say whether a multiple of ``every_n_steps`` was reached.

        Two optimizers make two steps in a batch, so a multiple may be stepped over; it counts all the same.
        """
        self._batches += 1
        self._epoch_batches = batch_idx + 1
        if self.every_n_steps is None or step // self.every_n_steps == self._due:
            return False
        self._due = step // self.every_n_steps
        self._progress = (step - self._first_step) / self.every_n_steps
        return True

    def epoch_is_due(self, epoch: int) -> bool:
        """Say whether the end of this epoch, counted from 0, is a multiple of ``every_n_epochs``."""
        if self.every_n_steps is not None or (epoch + 1) % self.every_n_epochs:
            return False
        self._due = (epoch + 1) // self.every_n_epochs
        self._progress = self._batches / max(self._epoch_batches, 1) / self.every_n_epochs
        return True

    def takes(self, trainer: Trainer, cost: float, seconds: float) -> bool:
        """Say whether a due check is taken. The first call decides, on rank 0 and for good, how many are left out.

        Args:
            trainer: Tells the decision to all ranks.
            cost: Seconds that a check takes.
            seconds: Seconds trained since `start`, without checks.
        """
        if self.stretch is None:
            between = seconds / max(self._progress, 1e-9)
            needed = max(1, math.ceil(cost / (_PLANNED * float(self.max_overhead or 1) * max(between, 1e-9))))
            self.stretch = int(trainer.strategy.broadcast(needed))
            if self.stretch > 1:
                steps, epochs = self.every_n_steps, self.every_n_epochs
                asked = f"{steps} steps" if steps is not None else f"{epochs} epoch{'s' * (epochs > 1)}"
                instead, share = (steps or epochs) * self.stretch, 100 * cost / max(between, 1e-9)
                rank_zero_info(
                    f"ForgettingMonitor: a check takes {cost:.2g} s, {share:.0f} % of {asked}."
                    f" Checking every {instead} instead, within max_overhead={self.max_overhead}. A smaller `n_probe` "
                    "makes checks cheaper; max_overhead=None keeps them."
                )
        return self._due % self.stretch == 0
