"""What the shared command line needs to know of this recipe; imports nothing heavy."""

from lightning_transfer.cli import Recipe

__all__ = ["RECIPE"]

RECIPE = Recipe(
    name="medical",
    package="recipes.medical",
    module="lightning_transfer.modules:ClassificationModule",
    data="recipes.medical.data:MedicalDataModule",
    clinical=True,
    heads={
        "findings": "lightning_transfer.modules:FindingsModule",
        "segmentation": "lightning_transfer.modules:SegmentationModule",
    },
    head_kinds={"segmentation": "segmentation"},
    description="Medical imaging: adapt a pretrained network to your images, by patient, and see what it learnt.",
)
