"""The section ``evaluation`` of a config whose model draws masks. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lightning_transfer.cli.evaluation_options import ScratchOptions

__all__ = ["SegmentationOptions"]

Drawers = list[Literal["majority", "plain", "unet", "scratch"]]


def _cheap() -> Drawers:
    return ["majority", "plain"]


@dataclass
class SegmentationOptions:
    """How a model that draws masks is judged.

    Attributes:
        baselines: Other ways to draw that ``test`` puts beside the model: ``majority`` draws nothing; ``plain`` is a
            classifier of pixels by filters, without any network; ``unet`` trains a plain U-Net of as many parameters
            from random weights, ``scratch`` the same network from random weights: both take as long as training does.
        scratch: How they do that.
        slices: Columns of the data by which ``test`` cuts the pictures into slices; ``all`` takes every column, ``[]``
            none.
        save_masks: Write the mask of each picture that ``test`` or ``predict`` reads as PNG.
    """

    baselines: Drawers = field(default_factory=_cheap)
    scratch: ScratchOptions = field(default_factory=ScratchOptions)
    slices: Literal["all"] | list[str] = "all"
    save_masks: bool = True
