"""LightningModules that the recipes, and other projects, build on."""

from lightning_transfer.modules.classification import ClassificationModule
from lightning_transfer.modules.ctc import CTCModule
from lightning_transfer.modules.ctc_beam import BeamSearch
from lightning_transfer.modules.expanded_head import ExpandedHead
from lightning_transfer.modules.expansion import expand_head
from lightning_transfer.modules.few_shot import FewShotModule
from lightning_transfer.modules.findings import FindingsModule
from lightning_transfer.modules.normal_only import NormalOnlyModule
from lightning_transfer.modules.segmentation import PlainUNetModule, SegmentationModule
from lightning_transfer.modules.seq2seq import Seq2SeqModule
from lightning_transfer.modules.spec_augment import SpecAugment
from lightning_transfer.modules.transfer import TransferModule, read_checkpoint
from lightning_transfer.modules.zero_shot import ZeroShotModule

__all__ = [
    "BeamSearch",
    "CTCModule",
    "ClassificationModule",
    "ExpandedHead",
    "FewShotModule",
    "FindingsModule",
    "NormalOnlyModule",
    "PlainUNetModule",
    "SegmentationModule",
    "Seq2SeqModule",
    "SpecAugment",
    "TransferModule",
    "ZeroShotModule",
    "expand_head",
    "read_checkpoint",
]
