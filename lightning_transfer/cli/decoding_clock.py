"""The callback that measures how long a test decodes, for the real-time factor."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["DecodingClock"]


class DecodingClock(Callback):
    """Add up the seconds of all test steps; reading and preparing the sound is not in them.

    On a device that works by itself each step is waited for, or only its start would be measured.

    Attributes:
        seconds: Of all batches so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.seconds = 0.0

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:  # noqa: ANN401
        """Start the clock; the batch is on the device by now."""
        _wait_for(pl_module)
        self._since = time.perf_counter()

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:  # noqa: ANN401
        """Stop it."""
        _wait_for(pl_module)
        self.seconds += time.perf_counter() - self._since


def _wait_for(module: LightningModule) -> None:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
