"""LightningModules that the recipes, and other projects, build on."""

from lightning_transfer.modules.classification import ClassificationModule
from lightning_transfer.modules.few_shot import FewShotModule
from lightning_transfer.modules.normal_only import NormalOnlyModule
from lightning_transfer.modules.transfer import TransferModule, read_checkpoint
from lightning_transfer.modules.zero_shot import ZeroShotModule

__all__ = [
    "ClassificationModule",
    "FewShotModule",
    "NormalOnlyModule",
    "TransferModule",
    "ZeroShotModule",
    "read_checkpoint",
]
