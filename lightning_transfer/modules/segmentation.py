"""Segmentation on any backbone with maps of the image: a class for each pixel, by a U-Net decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_transfer.backbones.feature_maps import read_maps
from lightning_transfer.backbones.pyramid import find_pyramid, unreached_parameters
from lightning_transfer.errors import listing
from lightning_transfer.metrics.segmentation import SegmentationDice
from lightning_transfer.modules.segmentation_loss import segmentation_loss
from lightning_transfer.modules.transfer import TransferModule
from lightning_transfer.modules.unet import unet_of_size
from lightning_transfer.modules.unet_decoder import UNetDecoder
from lightning_transfer.types import Activations, Batch, Schema

__all__ = ["PixelOutput", "PlainUNetModule", "SegmentationModule"]


class PixelOutput(NamedTuple):
    """What ``predict_step`` of a segmentation returns for a batch.

    Attributes:
        logits: ``(N, C, H, W)`` at the network's size, before softmax; empty where they went elsewhere.
        index: Position of each record in its split, ``(N,)``.
    """

    logits: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple's own `index` is of no use here


class SegmentationModule(TransferModule):
    """Give each pixel a class: maps of a pretrained backbone, and a U-Net's way back to the size of the image.

    The backbone is any that keeps maps of the image: convolutional networks and hierarchical transformers give one for
    each resolution, plain vision transformers four of their blocks, resampled as in DPT. The decoder is the head: it
    trains from the start, a freezing schedule does not count it, and `DiscriminativeLR` gives it the head's rate.
    Weights of the backbone that no map depends on are frozen.

    Logged: ``train_loss``, ``val_loss``, and ``val_dice``, the mean over classes but the background at the network's
    size. Numbers with intervals, at the images' own size, come from `lightning_transfer.evaluation`.

    Args:
        backbone: See `TransferModule`.
        dice_share: Of the Dice loss beside the cross-entropy, in [0, 1].
        class_weights: One factor a class, background first, for the cross-entropy; None weighs all pixels alike.
        layers: Names of the backbone's layers to read, from fine to coarse; None finds the last of each resolution.
        decoder_widths: Channels of the decoder's blocks, from coarse to fine; None halves from the coarsest map's.
        head_dropout: Share of channels dropped before the last layer.
        **kwargs: Every further argument of `TransferModule`.

    Example:
        >>> from lightning_transfer.types import Schema
        >>> module = SegmentationModule("timm/test_resnet", weights="random")
        >>> module.use_schema(Schema(task="segmentation", classes=("good", "defect")))
        >>> module.configure_model()
        >>> module(torch.zeros(2, 3, 64, 96)).shape
        torch.Size([2, 2, 64, 96])
    """

    monitor: str | None = "val_dice"
    monitor_mode = "max"
    learns_from = "masks"

    def __init__(
        self,
        backbone: str,
        dice_share: float = 0.5,
        class_weights: list[float] | None = None,
        layers: list[str] | None = None,
        decoder_widths: list[int] | None = None,
        head_dropout: float = 0.0,
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        if not 0.0 <= dice_share <= 1.0:
            raise ValueError(f"Expected `dice_share` in [0, 1], got {dice_share}. 0.5 mixes both losses alike.")
        if class_weights is not None and min(class_weights, default=-1.0) < 0:
            raise ValueError(f"Expected `class_weights` of at least 0, one a class, got {class_weights}.")
        if layers is not None and not layers:
            raise ValueError("Expected names in `layers`, got an empty list. Leave it out to have them found.")
        if decoder_widths is not None and min(decoder_widths, default=1) < 1:
            raise ValueError(f"Expected `decoder_widths` of at least 1, got {decoder_widths}.")
        super().__init__(backbone, head_norm="none", head_dropout=head_dropout, **kwargs)
        self.dice_share = dice_share
        self.class_weights = class_weights
        self.layers: tuple[str, ...] = tuple(layers or ())
        self.decoder_widths = decoder_widths
        self.val_dice: SegmentationDice | None = None
        self.test_outputs: list[PixelOutput] = []
        self.sink: Callable[[PixelOutput], object] | None = None
        """Takes the outputs of test and predict as they come, on the CPU: those of a whole split fill the memory."""

    def configure_model(self) -> None:
        """Find the maps, build the decoder and the validation metric from the schema, once."""
        if self.head is not None:
            return
        super().configure_model()
        schema = self.schema
        if schema is None:
            return
        self.val_dice = SegmentationDice(schema.num_classes)
        weight = None if self.class_weights is None else torch.tensor(self.class_weights)
        if weight is not None and len(weight) != schema.num_classes:
            raise MisconfigurationException(
                f"`class_weights` has {len(weight)} numbers, and there are {schema.num_classes} classes: "
                f"{list(schema.classes)}."
            )
        self.register_buffer("_weight", weight, persistent=False)

    def build_head(self, schema: Schema) -> nn.Module:
        """Return the decoder, and remember which layers it reads.

        Raises:
            MisconfigurationException: If the data have no masks to learn from.
            BackboneError: If the backbone keeps no map of the image.
        """
        self._check_task(schema)
        size = self._input_size(schema)
        found = find_pyramid(self.backbone, size, self.layers or None)
        self.layers = found.layers
        unreached = set(unreached_parameters(self.backbone, found.layers, size))
        for name, parameter in self.backbone.named_parameters():
            if name in unreached:
                parameter.requires_grad_(False)
        return UNetDecoder(
            found.channels,
            [max(stride) for stride in found.strides],
            schema.num_logits,
            size[0],
            is_flat=found.is_flat,
            widths=self.decoder_widths,
            dropout=self.head_dropout,
        )

    def _check_task(self, schema: Schema) -> None:
        if schema.task != "segmentation":
            raise MisconfigurationException(
                f"`{type(self).__name__}` draws masks, and the data are {schema.task} with the classes "
                f"{listing(schema.classes, 10)}. Use data with masks (`data.task: segmentation`); in plain code pass "
                '`Schema(task="segmentation", classes=(BACKGROUND, OTHER))`.'
            )

    def _input_size(self, schema: Schema) -> tuple[int, int, int]:
        """Return channels, height and width of the images: those of the data, or of the card."""
        channels, height, width = self.card.input_size or (3, 224, 224)
        size = schema.preprocessing.get("size") or (height, width)
        return channels, int(size[0]), int(size[1])

    def kept_input(self, input: Any) -> dict[str, Tensor]:  # noqa: ANN401 - as the parent's
        """Return the images: the decoder's last step reads them."""
        return {"": input}

    @property
    def read_layers(self) -> Sequence[str]:
        """Names of the layers whose maps the decoder reads."""
        return self.layers

    def forward(self, input: Tensor | Mapping[str, Tensor] | Activations) -> Tensor:
        """Return logits ``(N, C, H, W)`` of images ``(N, channels, H, W)``."""
        images = input.given[""] if isinstance(input, Activations) else input
        if self.head is None or not isinstance(images, Tensor):
            raise MisconfigurationException(
                f"`{type(self).__name__}` has no decoder yet: call `use_schema` and `configure_model` first."
                if self.head is None
                else f"`{type(self).__name__}` takes a tensor of images, got {type(images).__name__}."
            )
        _, maps = read_maps(self.backbone, self.layers, images, run=lambda: self.encode(input))
        logits: Tensor = self.head(maps, images)
        return logits

    def loss(self, preds: Tensor, target: Tensor) -> Tensor:
        """Return the training loss of logits ``(N, C, H, W)`` for classes ``(N, H, W)``, as a scalar."""
        return segmentation_loss(preds, target, dice_share=self.dice_share, weight=self._buffers.get("_weight"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log it as ``train_loss``."""
        loss = self.loss(self(batch.input), _masks(batch))
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.index))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val_loss``, and count for ``val_dice``."""
        target, preds = _masks(batch), self(batch.input)
        self.log("val_loss", self.loss(preds, target), prog_bar=True, batch_size=len(batch.index), sync_dist=True)
        if self.val_dice is not None:
            self.val_dice.update(preds, target)
            self.log("val_dice", self.val_dice, prog_bar=True, batch_size=len(batch.index))

    def predict_step(self, batch: Batch, batch_idx: int) -> PixelOutput:  # type: ignore[override]
        """Return the logits of a batch; with a `sink` they go there, and only the records' places are returned."""
        output = PixelOutput(self(batch.input).detach().float().cpu(), batch.index.cpu())
        if self.sink is None:
            return output
        self.sink(output)
        return PixelOutput(torch.empty(0), output.index)

    def on_test_epoch_start(self) -> None:
        """Forget the outputs of an earlier test."""
        self.test_outputs = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the outputs, or hand them to the `sink`."""
        self.test_outputs.append(self.predict_step(batch, batch_idx))

    def rebuild_arguments(self) -> dict[str, Any]:
        """Add what shapes the decoder, and the loss, so that a restored module reports the same ``val_loss``."""
        arguments = super().rebuild_arguments()
        del arguments["head_norm"]
        return {
            **arguments,
            "dice_share": self.dice_share,
            "class_weights": self.class_weights,
            "layers": list(self.layers) or None,
            "decoder_widths": self.decoder_widths,
        }


class PlainUNetModule(SegmentationModule):
    """A plain U-Net from random weights, of as many parameters as another network: the baseline of a segmentation.

    Args:
        backbone: Says which images are read, by its card; nothing else of it is used.
        num_parameters: Of the whole U-Net; None takes the paper's width of 64.
        **kwargs: Every further argument of `SegmentationModule`.
    """

    def __init__(self, backbone: str, num_parameters: int | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(backbone, **{**kwargs, "weights": "random"})
        self.backbone = nn.Identity()
        self.num_parameters = num_parameters

    def build_head(self, schema: Schema) -> nn.Module:
        """Return the U-Net."""
        self._check_task(schema)
        channels, _, _ = self._input_size(schema)
        return unet_of_size(channels, schema.num_logits, self.num_parameters or 31_000_000)

    @property
    def cache_refusal(self) -> str:
        """There is no pretrained backbone."""
        return "a plain U-Net has no frozen layers"

    def forward(self, input: Tensor | Mapping[str, Tensor] | Activations) -> Tensor:
        """Return logits ``(N, C, H, W)`` of images ``(N, channels, H, W)``."""
        if self.head is None:
            raise MisconfigurationException(f"`{type(self).__name__}` has no network yet: call `configure_model`.")
        logits: Tensor = self.head(input)
        return logits

    def rebuild_arguments(self) -> dict[str, Any]:
        """Add the size."""
        return {**super().rebuild_arguments(), "num_parameters": self.num_parameters}


def _masks(batch: Batch) -> Tensor:
    if batch.target is None:
        raise MisconfigurationException(
            "This batch has no masks, so there is nothing to learn from or to compare with. Give masks, or use "
            "`predict`."
        )
    return batch.target
