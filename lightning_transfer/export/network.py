"""What is exported of a module: the way from input to logits, without what only training needs."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from lightning_transfer.backbones.feature_maps import read_maps
from lightning_transfer.backbones.frames import Frames, step_seconds
from lightning_transfer.backbones.lora import merged
from lightning_transfer.export.packages import ExportError
from lightning_transfer.modules import NormalOnlyModule, TransferModule
from lightning_transfer.modules.normal_only_bank import MemoryBank
from lightning_transfer.modules.normal_only_patches import patch_features

__all__ = ["exported_network", "quantised_operations", "speech_network_facts"]


def exported_network(module: TransferModule) -> nn.Module:
    """Return a network of images ``(N, C, H, W)`` to logits ``(N, L)`` before temperature, in eval mode.

    Of texts it takes ``input_ids`` and ``attention_mask``, each ``(N, T)``, and returns logits and features ``(N, F)``:
    pooling is inside. Of speech it takes ``input_values`` ``(N, T)`` or ``input_features`` ``(N, T, F)`` and
    ``attention_mask`` ``(N, T)``, and returns logits ``(N, frames, L)`` and how many frames each has. Backbone and head
    alone: no source head, losses or metrics of the module go along; low-rank
    adapters are added to the weights. The module is not changed.

    Args:
        module: Restored from a checkpoint; of a `NormalOnlyModule` the memory of normal patches is the head.

    Raises:
        ExportError: If it has no head, or an empty memory, or averages over views.

    Example:
        >>> import torch
        >>> from lightning_transfer.types import Schema
        >>> module = TransferModule("timm/test_resnet", weights="random")
        >>> module.use_schema(Schema(task="multiclass", classes=("good", "bad")))
        >>> module.configure_model()
        >>> exported_network(module)(torch.zeros(3, 3, 64, 64)).shape
        torch.Size([3, 2])
    """
    if module.head is None:
        raise ExportError(
            f"This `{type(module).__name__}` has no head yet: export a module restored from a checkpoint."
        )
    views = getattr(module, "test_time_views", ())
    if views:
        raise ExportError(
            f"This model averages over views of each picture (`test_time_views: {list(views)}`), and its thresholds "
            "are those of the average; a graph of one view would decide otherwise. Fit without them, and export that."
        )
    network: nn.Module
    if isinstance(module, NormalOnlyModule):
        if not len(module.bank):
            raise ExportError(
                "The memory of normal patches is empty: the fit did not finish, so there is nothing to export."
            )
        network = _Patches(module.backbone, module.layers, module.bank)
    elif module.form == "frames":
        kind = _Features if speech_input(module) == "input_features" else _Samples
        network = kind(merged(module.backbone), module.head)
    elif module.card.modality == "text":
        network = _TextClassifier(merged(module.backbone), module.head)
    else:
        network = _Classifier(module.backbone, module.head)
    # A copy: tracing needs its own modes and flags. On the CPU, in float32: what it is compared with.
    copied = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    _forget_lengths(copied)
    return copied


def quantised_operations(module: TransferModule) -> list[str] | None:
    """Return what of the network may be computed in 8 bits; None is all.

    Distances to remembered patches stay float: a difference of two like patches is smaller than a step of 8 bits.
    """
    return ["Conv"] if isinstance(module, NormalOnlyModule) else None


def speech_input(module: TransferModule) -> str:
    """Return the name of what the backbone takes: ``input_values`` or ``input_features``."""
    return str(module.backbone.model.main_input_name)  # type: ignore[union-attr] # a SpeechEncoder


def speech_network_facts(module: TransferModule) -> dict[str, Any]:
    """Return what a script must know of the network: whether padding can be hidden from it, and how its time passes."""
    backbone: Any = module.backbone
    step = step_seconds(module.card)
    return {
        "sees_mask": bool(backbone.sees_mask),
        "step_seconds": step,
        "frame_seconds": step * int(backbone.steps_per_frame),
    }


def _forget_lengths(network: nn.Module) -> None:
    """Drop what parts keep of the last input's length: a trace of the same length would take it for a constant."""
    for part in network.modules():
        for name in ("cached_sequence_length", "cached_rotary_positional_embedding"):
            if hasattr(part, name):
                setattr(part, name, None)


class _Classifier(nn.Module):
    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


class _TextClassifier(nn.Module):
    """Features come out too: the distance to training texts is measured on them."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.backbone({"input_ids": input_ids, "attention_mask": attention_mask})
        return self.head(features), features


class _Recogniser(nn.Module):
    """The classes below differ in the name of their input, which becomes the graph's."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def write(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        frames: Frames = self.backbone(inputs)
        return self.head(frames.features), frames.lengths


class _Samples(_Recogniser):
    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.write({"input_values": input_values, "attention_mask": attention_mask})


class _Features(_Recogniser):
    def forward(self, input_features: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.write({"input_features": input_features, "attention_mask": attention_mask})


class _Patches(nn.Module):
    """The whole of PatchCore: nearest neighbours in a stored memory are a product and a minimum, which ONNX has."""

    def __init__(self, backbone: nn.Module, layers: tuple[str, ...], bank: MemoryBank) -> None:
        super().__init__()
        self.backbone = backbone
        self.layers = layers
        self.bank = copy.deepcopy(bank)
        self.bank.in_blocks = False

    def forward(self, images: Tensor) -> Tensor:
        _, maps = read_maps(self.backbone, self.layers, images)
        scores, _ = self.bank(patch_features(maps))
        return self.bank.logits(scores)
