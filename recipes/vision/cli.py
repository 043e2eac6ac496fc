"""What the shared command line needs to know of this recipe; imports nothing heavy."""

from lightning_transfer.cli import Recipe

__all__ = ["RECIPE"]

RECIPE = Recipe(
    name="vision",
    package="recipes.vision",
    module="recipes.vision.module:VisionModule",
    data="recipes.vision.data:VisionDataModule",
    heads={
        "normal_only": "lightning_transfer.modules:NormalOnlyModule",
        "segmentation": "lightning_transfer.modules:SegmentationModule",
    },
    head_kinds={"segmentation": "segmentation"},
    description="Surface-defect detection: adapt a pretrained image backbone to your parts.",
)
