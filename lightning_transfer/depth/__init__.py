"""Which layer is how deep: find it, freeze by it, and set learning rates by it."""

from lightning_transfer.depth.freezing import Freezer, is_norm
from lightning_transfer.depth.layers import DepthMap, Layer
from lightning_transfer.depth.optimizer_groups import (
    SplitGroup,
    layer_decay_scales,
    set_multipliers,
    split_param_groups,
)
from lightning_transfer.depth.resolver import resolve_depth

__all__ = [
    "DepthMap",
    "Freezer",
    "Layer",
    "SplitGroup",
    "is_norm",
    "layer_decay_scales",
    "resolve_depth",
    "set_multipliers",
    "split_param_groups",
]
