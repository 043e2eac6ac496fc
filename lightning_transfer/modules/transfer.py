"""The base of all modules: a backbone with its card, a head from the data's schema, a self-contained checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal
from zipfile import BadZipFile

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_transfer.backbones import (
    LoraOptions,
    add_lora,
    licence_notice,
    load_backbone,
    load_seq2seq,
    load_source_head,
)
from lightning_transfer.data.schema import check_preprocessing
from lightning_transfer.errors import CheckpointError, listing
from lightning_transfer.modules.cached_backbone import CachedBackbone
from lightning_transfer.modules.expanded_head import ExpandedHead
from lightning_transfer.modules.unit_norm import UnitNorm
from lightning_transfer.types import Activations, BackboneCard, Batch, Calibration, ModelOutput, Schema

__all__ = ["CHECKPOINT_FORMAT", "CHECKPOINT_KEY", "TransferModule", "read_checkpoint"]

CHECKPOINT_KEY = "lightning_transfer"
CHECKPOINT_FORMAT = 1


class TransferModule(CachedBackbone, pl.LightningModule):
    """Hold a pretrained backbone and a new head; know nothing of a domain.

    The constructor loads the backbone and its card. The head is built in `configure_model`, from the `Schema` of
    the datamodule, because only then the classes are known. Every checkpoint carries the card, the schema, the
    preprocessing and the calibration as plain values: `from_checkpoint` needs no pretrained weights, no hub and no
    data. Subclasses override `build_head`, `training_step` and `validation_step`.

    Args:
        backbone: ``timm/NAME``, ``torchvision/NAME``, ``hf/NAME``, ``embedded/NAME``, ``offline/NAME``, or a local
            folder or file.
        weights: None for the pretrained weights of that library, a safetensors or ``weights_only`` file, or
            ``random`` for none at all (the from-scratch baseline).
        card: A ``card.yaml``, or its values; None takes the library's, or the file beside the weights.
        head_norm: ``batchnorm`` standardises the features before the linear layer, without affine parameters, as
            linear probes do (He et al. 2022, arXiv 2111.06377, appendix A): features of pretrained networks differ
            in scale by orders of magnitude, and a probe then depends less on its learning rate. ``unit`` gives every
            feature vector the length ``sqrt(F)``: for sentence encoders, whose cosine is what was pretrained.
        head_dropout: Share of features dropped before the linear layer.
        keep_source_head: Keep the pretrained classifier, frozen, as ``source_head``, so that a ForgettingMonitor
            can measure the old task.
        lora: Low-rank adapters on a transformers backbone, whose own weights are then frozen; None for none.
        in_channels: Channels of the pictures, where they are others than in pretraining, such as 1 for grey ones. The
            first convolution is adapted, and the card says so. None takes the card's.
        optimizer: Called with the parameters that require a gradient.
        scheduler: Called with the optimizer.
        scheduler_interval: ``step`` for schedules counted in optimizer steps (OneCycle, warm-ups).
        scheduler_monitor: The logged metric that a plateau scheduler reads.

    Example:
        >>> from lightning_transfer.types import Schema
        >>> module = TransferModule("timm/test_resnet", weights="random")
        >>> module.use_schema(Schema(task="multiclass", classes=("good", "scratch", "pit")))
        >>> module.configure_model()
        >>> module(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 3])
    """

    monitor: str | None = "val_loss"
    monitor_mode: Literal["min", "max"] = "min"
    learns_from: Literal["all", "negative", "descriptions", "masks"] = "all"
    """``negative``: the negative class alone is enough to train; the data then take all other classes together.
    ``descriptions``: those of the classes are, and no record trains. ``masks``: the data are then of the task
    ``segmentation``."""
    form: Literal["pooled", "frames", "seq2seq"] = "pooled"
    """What the backbone returns: a vector an item; of sound features in time, or the logits of a text's tokens."""
    examples_per_class: int | None = None
    """How many examples of one class a training batch holds together, with several classes in it; None: no rule."""

    def __init__(
        self,
        backbone: str,
        weights: str | None = None,
        card: str | dict[str, Any] | None = None,
        head_norm: Literal["none", "batchnorm", "unit"] = "none",
        head_dropout: float = 0.0,
        keep_source_head: bool = False,
        lora: LoraOptions | None = None,
        in_channels: int | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.01),
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_monitor: str = "val_loss",
    ) -> None:
        super().__init__()
        if not 0.0 <= head_dropout < 1.0:
            raise ValueError(f"Expected `head_dropout` in [0, 1), got {head_dropout}. Use 0.0 for no dropout.")
        given = BackboneCard.from_dict(card) if isinstance(card, Mapping) else card
        if self.form == "seq2seq":
            if in_channels is not None:
                raise ValueError(f"`in_channels: {in_channels}` is for pictures, and this model reads sound.")
            self.backbone, self.card = load_seq2seq(backbone, weights=weights, card=given)
        else:
            frames = self.form == "frames"
            self.backbone, self.card = load_backbone(
                backbone, weights=weights, card=given, frames=frames, in_channels=in_channels
            )
        self.lora = LoraOptions.of(lora)  # a checkpoint holds plain values
        if self.lora is not None:
            add_lora(self.backbone, self.lora)
        self.source_head: nn.Module | None = None
        if keep_source_head:
            if self.card.modality == "audio" and self.form != "frames":
                raise MisconfigurationException(
                    f"`keep_source_head`: the head of `{self.card.name}` maps frames, and `{type(self).__name__}` sees "
                    "their mean alone. Measure forgetting by representation, without it, or recognise speech: "
                    "`CTCModule`."
                )
            self.source_head = load_source_head(backbone, weights=weights, card=given)
            # In train mode, in which a linear layer does the same: Lightning warns of modules that are not.
            self.source_head.requires_grad_(False).train()
        self.head: nn.Module | None = None
        self.schema: Schema | None = None
        self.calibration = Calibration()
        self.run_config: dict[str, Any] = {}
        self.head_norm = head_norm
        self.head_dropout = head_dropout
        # Logits of each part of an `ExpandedHead`; empty for a head that was never expanded.
        self.head_sizes: tuple[int, ...] = ()
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._scheduler_interval = scheduler_interval
        self._scheduler_monitor = scheduler_monitor

    def use_schema(self, schema: Schema) -> None:
        """Say what the data look like where no datamodule of ours does: in plain Lightning code, or before a restore.

        Raises:
            MisconfigurationException: If a head for other classes is there already.
        """
        if self.head is not None and self.schema is not None and self.schema.classes != schema.classes:
            raise MisconfigurationException(
                f"The head was built for the classes {list(self.schema.classes)}, and now the classes are "
                f"{list(schema.classes)}. Make a new module."
            )
        self.schema = schema

    def configure_model(self) -> None:
        """Build the head from the schema, once; later calls do nothing (WeightAveraging and restores call it too)."""
        if self.head is not None:
            return
        if self.schema is None:
            trainer = self._trainer
            if trainer is None:
                return  # load_from_checkpoint: the schema comes in on_load_checkpoint
            self.schema = getattr(getattr(trainer, "datamodule", None), "schema", None)
        if self.schema is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` does not know its classes: the datamodule has no `schema`. Pass a datamodule "
                "of lightning_transfer, or call `module.use_schema(Schema(task=..., classes=...))` before `fit`."
            )
        self.head = self.build_head(self.schema)

    def build_head(self, schema: Schema) -> nn.Module:
        """Return the module that maps features ``(N, F)`` to logits ``(N, schema.num_logits)``."""
        width = self.card.num_features
        first, *further = self.head_sizes or (schema.num_logits,)
        layers: list[nn.Module] = []
        if self.head_norm == "unit":
            layers.append(UnitNorm())
        if self.head_norm == "batchnorm":
            layers.append(nn.BatchNorm1d(width, affine=False))
        if self.head_dropout:
            layers.append(nn.Dropout(self.head_dropout))
        layers.append(nn.Linear(width, first))
        head: nn.Module = nn.Sequential(*layers)
        for size in further:
            head = ExpandedHead(head, nn.Linear(width, size))
        return head

    def features(self, input: Tensor | Mapping[str, Tensor] | Activations) -> Tensor:
        """Return pooled backbone features ``(N, F)``."""
        result: Tensor = self.encode(input)
        return result

    def forward(self, input: Tensor | Mapping[str, Tensor] | Activations) -> Tensor:
        """Return logits ``(N, num_logits)``, before any temperature."""
        return self._classify(self.features(input))

    def _classify(self, features: Tensor) -> Tensor:
        if self.head is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` has no head yet: call `use_schema` and `configure_model` first."
            )
        logits: Tensor = self.head(features)
        return logits

    def predict_step(self, batch: Batch, batch_idx: int) -> ModelOutput:
        """Return logits and features, with what the batch says of its rows."""
        features = self.features(batch.input)
        return ModelOutput(self._classify(features), features, batch.target, batch.index)

    def on_fit_start(self) -> None:
        """Say where the licence of the backbone needs a second look."""
        notice = licence_notice(self.card)
        if notice:
            rank_zero_info(notice)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Give the optimizer every parameter that may ever train: freezing works by gradients, not by lists."""
        optimizer = self._optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        if self._scheduler is None:
            return optimizer
        scheduler = self._scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": self._scheduler_interval,
                "monitor": self._scheduler_monitor,
            },
        }

    def rebuild_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments that shape the network and its decision, as plain values.

        Subclasses add their own. Optimizer and scheduler are not among them: a restored model predicts, and a run
        that goes on takes them from its config.
        """
        return {
            "backbone": self.card.name,
            "head_norm": self.head_norm,
            "head_dropout": self.head_dropout,
            "lora": None if self.lora is None else self.lora.to_dict(),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds this module alone, as plain values, under ``lightning_transfer``."""
        from lightning_transfer import __version__

        if self.schema is None:
            raise MisconfigurationException("A module without a schema cannot be saved: call `use_schema` first.")
        checkpoint[CHECKPOINT_KEY] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "module": _library_class(type(self)).__name__,
            "arguments": self.rebuild_arguments(),
            "source_head": None if self.source_head is None else _linear_shape(self.source_head),
            "head_sizes": list(self.head_sizes),
            "card": self.card.to_dict(),
            "schema": self.schema.to_dict(),
            "calibration": self.calibration.to_dict(),
            "config": self.run_config,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint has this module's classes and preprocessing, and take over its calibration.

        Raises:
            CheckpointError: If it is not one of ours, or was trained on other classes or other preprocessing.
        """
        payload = _payload(checkpoint, "the checkpoint")
        saved = Schema.from_dict(payload["schema"])
        sizes = tuple(payload.get("head_sizes") or ())
        if self.schema is None:
            self.head_sizes = sizes
            self.use_schema(saved)
            self.configure_model()
        elif self.schema.classes != saved.classes or self.schema.task != saved.task:
            raise CheckpointError(
                f"The checkpoint was trained for {saved.task} with the classes {listing(saved.classes, 20)}; the data "
                f"have {self.schema.task} with {listing(self.schema.classes, 20)}. Use the data that belong to the "
                "checkpoint, or train anew."
            )
        elif self.schema.preprocessing and saved.preprocessing:
            check_preprocessing(self.schema.preprocessing, saved.preprocessing)
        if sizes != self.head_sizes:
            # Built before the checkpoint was read; what is loaded next has the layers of an expanded head, or one.
            self.head_sizes = sizes
            self.head = self.build_head(self.schema or saved)
        self.calibration = Calibration.from_dict(payload["calibration"])

    @classmethod
    def from_checkpoint(cls, path: str | Path, **overrides: Any) -> TransferModule:  # noqa: ANN401
        """Rebuild a module from its checkpoint alone, in eval mode, on the CPU.

        No pretrained weights, hub, cache or data are read. Called on `TransferModule` it makes the class that the
        checkpoint names; called on a subclass it makes that subclass.

        Args:
            path: A checkpoint written by a run, such as ``RUN/model.ckpt``.
            overrides: Constructor arguments that replace the stored ones, such as ``optimizer``.

        Raises:
            CheckpointError: If the file is missing, unreadable, or not one of ours.
        """
        return cls.restore(read_checkpoint(path), path, **overrides)

    @classmethod
    def restore(
        cls,
        checkpoint: dict[str, Any],
        path: str | Path,
        **overrides: Any,  # noqa: ANN401 - as `from_checkpoint`
    ) -> TransferModule:
        """Rebuild a module from what `read_checkpoint` returned; ``path`` names it in errors. See `from_checkpoint`."""
        from lightning_transfer import modules

        payload = checkpoint[CHECKPOINT_KEY]
        named = {name: getattr(modules, name) for name in modules.__all__}
        known = {
            name: item for name, item in named.items() if isinstance(item, type) and issubclass(item, TransferModule)
        }
        if payload["module"] not in known:
            raise CheckpointError(
                f"`{path}` holds a `{payload['module']}`, which this version does not know. Known: {listing(known)}. "
                f"It was written by version {payload['version']}: install that or a later one."
            )
        chosen = known[payload["module"]] if cls is TransferModule else cls
        arguments = {**payload["arguments"], "weights": "random", "card": payload["card"], **overrides}
        module: TransferModule = chosen(**arguments)
        if payload["source_head"] is not None:
            module.source_head = nn.Linear(*payload["source_head"]).requires_grad_(False)
        module.head_sizes = tuple(payload.get("head_sizes") or ())
        module.use_schema(Schema.from_dict(payload["schema"]))
        module.configure_model()
        module.on_load_checkpoint(checkpoint)
        module.run_config = payload["config"]
        module.load_state_dict(checkpoint["state_dict"])
        return module.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours without unpickling code.

    Raises:
        CheckpointError: If the file is missing, truncated, holds more than plain values, or is not one of ours.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(
            f"No checkpoint at `{file}`. A finished run has `model.ckpt` and `checkpoints/last.ckpt`."
        )
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, BadZipFile, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"`{file}` ({file.stat().st_size} bytes) cannot be read as a checkpoint of plain values: {reason} "
            "It is truncated, or not written by lightning-transfer."
        ) from error
    return {**checkpoint, CHECKPOINT_KEY: _payload(checkpoint, f"`{file}`")}


def _payload(checkpoint: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - whatever a foreign file holds
    payload = checkpoint.get(CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(payload, dict) or "state_dict" not in checkpoint:
        found = listing(checkpoint) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise CheckpointError(
            f"{where} is no checkpoint of a lightning-transfer run: it lacks `{CHECKPOINT_KEY}`. Found: {found}. "
            "For plain weights use `--model.weights`."
        )
    if payload["format"] > CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{where} has format {payload['format']}, this version reads up to {CHECKPOINT_FORMAT}. "
            f"It was written by version {payload['version']}: install that or a later one."
        )
    return payload


def _library_class(cls: type) -> type:
    """Return the nearest ancestor that this package defines: a checkpoint must load without the recipe's code."""
    return next(base for base in cls.__mro__ if base.__module__.startswith("lightning_transfer."))


def _linear_shape(module: nn.Module) -> list[int]:
    """Return ``[in, out]`` of a source head, enough to rebuild it."""
    weight = next(module.parameters())
    return [weight.shape[1], weight.shape[0]]
