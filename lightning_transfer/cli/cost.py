"""The callback that measures what a fit costs: seconds of each epoch, and memory at its highest."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_transfer.files import write_json

__all__ = ["CostCallback"]


class CostCallback(Callback):
    """Write ``cost.json`` at the end of each epoch, and of the fit.

    An epoch counts from the end of the one before, so that validation, checkpoints and other callbacks are in it, and
    the epochs add up to the time of training. The report adds them up by stage.

    Attributes:
        epochs: ``{"epoch": number, "seconds": ...}`` of each that ended; those before a resume are kept.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the count of the device's memory."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch; its validation is over by now."""
        now = time.perf_counter()
        self.epochs = [item for item in self.epochs if item["epoch"] != trainer.current_epoch]
        self.epochs.append({"epoch": trainer.current_epoch, "seconds": now - self._since})
        self._since = now
        if not trainer.is_global_zero:
            return
        device = pl_module.device
        kind, peak = _peak_memory(device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        values = {"device": name, "epochs": self.epochs, "peak_memory_mb": peak, "peak_memory_kind": kind}
        write_json(Path(trainer.default_root_dir) / "cost.json", values)

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs, for a resume."""
        return {"epochs": [dict(item) for item in self.epochs]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the epochs before a resume."""
        self.epochs = [dict(item) for item in state_dict["epochs"]]


def _peak_memory(device: torch.device) -> tuple[str, float | None]:
    """Return what was measured, and megabytes; None where the system does not say."""
    if device.type == "cuda":
        return "on the device", torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return "", None
    # Kilobytes on Linux, bytes on macOS.
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return "whole process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
