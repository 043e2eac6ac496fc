"""The section ``checkpoint`` of a config. No torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CheckpointOptions"]


@dataclass
class CheckpointOptions:
    """When a fit saves a state to go on from.

    Attributes:
        every_n_train_steps: Optimizer steps between two writings of ``checkpoints/last.ckpt`` within an epoch, so that
            an interruption costs no more than these. None writes it at the end of each epoch and of each validation.
    """

    every_n_train_steps: int | None = None
