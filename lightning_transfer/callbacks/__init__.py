"""Callbacks for any LightningModule: what is frozen, at what rate each layer learns, and what is forgotten.

`FeatureCache` works with a `TransferModule` and datamodules of ours.
"""

from __future__ import annotations

from lightning_transfer.callbacks.backbone_freeze_unfreeze import BackboneFreezeUnfreeze
from lightning_transfer.callbacks.discriminative_lr import DiscriminativeLR
from lightning_transfer.callbacks.exact_resume import ExactResume
from lightning_transfer.callbacks.feature_cache import FeatureCache
from lightning_transfer.callbacks.forgetting_monitor import ForgettingMonitor
from lightning_transfer.callbacks.forgetting_report import ForgettingReport
from lightning_transfer.callbacks.retention_budget import RetentionBudget
from lightning_transfer.callbacks.schedule import Stage

__all__ = [
    "BackboneFreezeUnfreeze",
    "DiscriminativeLR",
    "ExactResume",
    "FeatureCache",
    "ForgettingMonitor",
    "ForgettingReport",
    "RetentionBudget",
    "Stage",
]
