"""Collect the numbers behind a recommendation from a trainer, a module and its data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_transfer.callbacks import BackboneFreezeUnfreeze
from lightning_transfer.evaluation import DataFacts
from lightning_transfer.types import BackboneCard, Schema

__all__ = ["configured_strategy", "data_facts", "device_memory"]


def data_facts(module: nn.Module, schema: Schema | None, **known: Any) -> DataFacts | None:  # noqa: ANN401 - fields of DataFacts
    """Return what a recommendation may rest on, as far as it is cheap to know.

    Args:
        module: With its card.
        schema: Of its data.
        **known: Further fields of `DataFacts`: the probe, errors, memory.

    Returns:
        None where nothing is to be recommended: there are no labelled training records, no card, a head that learns
        from good parts or descriptions alone, for which no layer of the backbone trains in any case, or no classes, on
        whose numbers of records the rules rest.
    """
    card: BackboneCard | None = getattr(module, "card", None)
    counts = {} if schema is None else schema.counts.get("train", {})
    if card is None or schema is None or not any(counts.values()):
        return None
    if schema.task == "transcription" or getattr(module, "learns_from", "all") != "all":
        return None
    backbone = getattr(module, "backbone", module)
    return DataFacts(
        counts=dict(counts),
        num_parameters=card.num_parameters,
        pretrained=card.pretraining != "none",
        transformer=any("attention" in type(part).__name__.lower() for part in backbone.modules()),
        num_groups=schema.num_groups.get("train"),
        **known,
    )


def configured_strategy(trainer: Trainer, module: nn.Module) -> str:
    """Return what a config chooses: a schedule's name, ``peft``, ``a schedule of its own``, or ``full``."""
    if any(hasattr(part, "peft_config") for part in module.modules()):
        return "peft"
    callbacks: list[Any] = list(trainer.callbacks)  # type: ignore[attr-defined]
    kinds = [item.schedule.kind for item in callbacks if isinstance(item, BackboneFreezeUnfreeze)]
    if not kinds:
        return "full"
    return "a schedule of its own" if isinstance(kinds[0], Mapping) else kinds[0]


def device_memory(device: torch.device) -> int | None:
    """Return the bytes that a device has in all; None where that cannot be asked."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if device.type == "cpu" else None
    except (AttributeError, ValueError, OSError):  # Windows, and systems that do not say
        return None
