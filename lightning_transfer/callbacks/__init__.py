"""Callbacks for any LightningModule: what is frozen, at what rate each layer learns, and what is forgotten."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "BackboneFreezeUnfreeze": "backbone_freeze_unfreeze",
    "DiscriminativeLR": "discriminative_lr",
    "ForgettingMonitor": "forgetting_monitor",
    "Stage": "schedule",
}

__all__ = ["BackboneFreezeUnfreeze", "DiscriminativeLR", "ForgettingMonitor", "Stage"]

if TYPE_CHECKING:
    from lightning_transfer.callbacks.backbone_freeze_unfreeze import BackboneFreezeUnfreeze
    from lightning_transfer.callbacks.discriminative_lr import DiscriminativeLR
    from lightning_transfer.callbacks.forgetting_monitor import ForgettingMonitor
    from lightning_transfer.callbacks.schedule import Stage


def __getattr__(name: str) -> object:
    """Import a callback on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`. Public names: {', '.join(__all__)}.")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
