"""LightningModules that the recipes, and other projects, build on."""

from lightning_transfer.modules.classification import ClassificationModule
from lightning_transfer.modules.normal_only import NormalOnlyModule
from lightning_transfer.modules.transfer import TransferModule, read_checkpoint

__all__ = ["ClassificationModule", "NormalOnlyModule", "TransferModule", "read_checkpoint"]
