"""The option ``cache_features`` of a recipe: what the frozen layers give is kept, unless the config says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from lightning_transfer.callbacks import FeatureCache
from lightning_transfer.cli.errors import UsageError

__all__ = ["CacheFeatures", "add_cache", "add_cache_option", "cache_notes"]

CacheFeatures = Literal["auto", "always", "never"]


def add_cache_option(parser: LightningArgumentParser) -> None:
    """Add ``cache_features``, beside ``check_data``: it is no part of the model, nor of the data."""
    parser.add_argument(
        "--cache_features",
        type=CacheFeatures,
        default="auto",
        help="Run frozen layers once and train on what they gave: auto, where it pays; always, or stop; never. Further "
        "options: list lightning_transfer.FeatureCache among the callbacks.",
    )


def add_cache(callbacks: list[Any], when: CacheFeatures) -> None:
    """Append a `FeatureCache` as the option says, unless the config has one.

    Raises:
        UsageError: If both say something.

    Example:
        >>> found = []
        >>> add_cache(found, "auto")
        >>> found[0].when
        'auto'
    """
    if any(isinstance(item, FeatureCache) for item in callbacks):
        if when != "auto":
            raise UsageError(
                f"`cache_features: {when}`, and `trainer.callbacks` holds a `FeatureCache`. Give it `when: {when}` "
                "instead, and leave `cache_features` out."
            )
        return
    callbacks.append(FeatureCache(when))


def cache_notes(trainer: Trainer, module: LightningModule) -> list[str]:
    """Return what a plan says of the cache; the loaders of validation are set up as the fit loop does it."""
    callbacks: Sequence[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if trainer.val_dataloaders is None and trainer.limit_val_batches != 0:
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True
    return [text for item in callbacks if isinstance(item, FeatureCache) for text in item.plan(trainer, module)]
