"""The section ``checkpoint`` of a config. No torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CheckpointOptions"]


@dataclass
class CheckpointOptions:
    """When a fit saves a state to go on from, and which weights it keeps.

    Attributes:
        every_n_train_steps: Optimizer steps between two writings of ``checkpoints/last.ckpt`` within an epoch, so that
            an interruption costs no more than these. None writes it at the end of each epoch and of each validation.
        max_degradation: What the old task's error may rise by, as a difference (0.02: two more wrong words in a
            hundred). Keeps the epoch that is best by ``val_retention_score`` within it: the gain on the new task times
            what is left of this budget. Needs a `ForgettingMonitor` with the same metric, such as ``wer``, and
            ``max_overhead: null``. None keeps the best epoch on the new task, whatever it forgot.
    """

    every_n_train_steps: int | None = None
    max_degradation: float | None = None
