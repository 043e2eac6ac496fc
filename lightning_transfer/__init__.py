"""Adapt pretrained models to small data with PyTorch Lightning, without the silent failures.

The public names load on first use (PEP 562), so that ``import lightning_transfer`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "BackboneCard": "types",
    "BackboneFreezeUnfreeze": "callbacks",
    "ClassificationModule": "modules",
    "DiscriminativeLR": "callbacks",
    "FeatureCache": "callbacks",
    "ForgettingMonitor": "callbacks",
    "Record": "types",
    "RetentionBudget": "callbacks",
    "Schema": "types",
    "TransferModule": "modules",
    "load": "evaluation",
    "load_backbone": "backbones",
}

__all__ = [
    "BackboneCard",
    "BackboneFreezeUnfreeze",
    "ClassificationModule",
    "DiscriminativeLR",
    "FeatureCache",
    "ForgettingMonitor",
    "Record",
    "RetentionBudget",
    "Schema",
    "TransferModule",
    "__version__",
    "load",
    "load_backbone",
]

if TYPE_CHECKING:
    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.callbacks import (
        BackboneFreezeUnfreeze,
        DiscriminativeLR,
        FeatureCache,
        ForgettingMonitor,
        RetentionBudget,
    )
    from lightning_transfer.evaluation import load
    from lightning_transfer.modules import ClassificationModule, TransferModule
    from lightning_transfer.types import BackboneCard, Record, Schema


def __getattr__(name: str) -> object:
    """Import a public name from its package on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`. Public names: {', '.join(__all__)}.")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
