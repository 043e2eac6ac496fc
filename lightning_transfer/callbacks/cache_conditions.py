"""Why the output of frozen layers may not be kept: each condition, with what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.utils.data import DataLoader

from lightning_transfer.backbones.cut import Cut
from lightning_transfer.callbacks.ddp import is_one_device_or_ddp
from lightning_transfer.data.record_loader import RecordLoader
from lightning_transfer.data.stored_batches import record_dataset
from lightning_transfer.depth import DepthMap, Layer

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = [
    "CacheRefusedError",
    "check_cut",
    "check_frozen",
    "check_module",
    "check_trainer",
    "check_transforms",
    "loaders_of",
]


class CacheRefusedError(Exception):
    """Why a cache is not used, as a clause that ends without a full stop."""


def check_trainer(trainer: Trainer) -> None:
    """Refuse strategies that divide parameters, and loaders that the trainer replaces.

    Raises:
        CacheRefusedError: If the cache could be wrong.
    """
    if not is_one_device_or_ddp(trainer):
        raise CacheRefusedError(
            f"the strategy `{type(trainer.strategy).__name__}` divides parameters among processes; use one device, "
            "or DDP"
        )
    every = getattr(trainer, "reload_dataloaders_every_n_epochs", 0)  # Lightning sets it elsewhere, unseen by types
    if every:
        raise CacheRefusedError(f"`reload_dataloaders_every_n_epochs={every}` makes other data while the fit runs")


def check_module(module: LightningModule) -> None:
    """Refuse modules that do not say how their input goes through the backbone, or change it on the way.

    Raises:
        CacheRefusedError: If the cache could be wrong.
    """
    name = type(module).__name__
    if not callable(getattr(module, "encode", None)) or not isinstance(getattr(module, "backbone", None), nn.Module):
        raise CacheRefusedError(f"`{name}` is no `TransferModule`, which has a backbone and runs it by `encode`")
    refusal = str(getattr(module, "cache_refusal", ""))
    if refusal:
        raise CacheRefusedError(refusal)
    for hook in ("on_before_batch_transfer", "on_after_batch_transfer"):
        if is_overridden(hook, module):
            raise CacheRefusedError(f"`{name}.{hook}` may change the inputs that the frozen layers see")
    marks = ("_orig_mod", "_compiled_call_impl", "_compiler_ctx")
    if any(getattr(part, mark, None) is not None for part in module.modules() for mark in marks):
        raise CacheRefusedError("the network is compiled, and its layers cannot be taken apart")


def check_frozen(module: LightningModule, depth_map: DepthMap, groups: Sequence[Layer]) -> None:
    """Refuse a prefix of which something trains.

    Raises:
        CacheRefusedError: Names the first parameter that takes a gradient.
    """
    for group in groups:
        for name, value in depth_map.named_parameters(module, group):
            if value.requires_grad:
                raise CacheRefusedError(
                    f"`{name}` of the frozen group `{group.name}` trains (`train_bn`, an adapter, or other code)"
                )


def check_cut(backbone: nn.Module, cut: Cut) -> None:
    """Refuse a first half of which something trains, or is in train mode.

    Raises:
        CacheRefusedError: Names the first such parameter or module.
    """
    modules = dict(backbone.named_modules())
    for name in sorted(cut.ran):
        # Our own wrappers around a network do the same in both modes.
        if modules[name].training and not type(modules[name]).__module__.startswith("lightning_transfer."):
            shown = f"backbone.{name}" if name else "backbone"
            raise CacheRefusedError(
                f"`{shown}` ({type(modules[name]).__name__}) is in train mode; freeze with `BackboneFreezeUnfreeze`, "
                "or call its `eval()` in each epoch"
            )


def check_transforms(loaders: Mapping[str, DataLoader[Any]], views: int | None) -> None:
    """Refuse random transforms, unless views of each input are stored.

    Raises:
        CacheRefusedError: Says which split is changed, and what to do.
    """
    for name, loader in loaders.items():
        dataset, items = record_dataset(loader.dataset)
        if dataset.is_random and name == "train" and views is None:
            raise CacheRefusedError(
                "training inputs are changed at random in each epoch; leave the augmentation out, or store several "
                "views of each: `FeatureCache(views=4)`"
            )
        if not len(dataset):
            continue
        place = 0 if items is None else items[0]
        one, other = dataset[place][0], dataset[place][0]
        if not _same(one, other):
            raise CacheRefusedError(
                f"the {name} data give another input each time that they are asked for the same item; change inputs in "
                "`augment_input`, by its generator"
            )


def loaders_of(trainer: Trainer) -> dict[str, DataLoader[Any]]:
    """Return the loaders of training and validation, by the name of the split.

    Raises:
        CacheRefusedError: If one of them is not made by our datamodules, so that nobody knows what its items are.
    """
    found: dict[str, Any] = {"train": trainer.train_dataloader}
    validation: Any = trainer.val_dataloaders
    several = validation if isinstance(validation, list | tuple) else [] if validation is None else [validation]
    found |= {"val" if len(several) == 1 else f"val {number}": item for number, item in enumerate(several)}
    for name, loader in found.items():
        if not isinstance(loader, RecordLoader) or not hasattr(record_dataset(loader.dataset)[0], "stored"):
            raise CacheRefusedError(
                f"the {name} data come from a `{type(loader).__name__}` of another kind; use a datamodule of "
                "lightning_transfer"
            )
    return found


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - tensor or dict of tensors
    if isinstance(one, Mapping):
        return all(_same(one[name], other[name]) for name in one)
    return bool(one.shape == other.shape and (one == other).all()) or bool(one.isnan().any())
