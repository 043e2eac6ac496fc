"""What a fit will do, as plain data, found from its trainer and module before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_transfer.callbacks import BackboneFreezeUnfreeze
from lightning_transfer.callbacks.freeze_plan import end_of_run, is_late
from lightning_transfer.depth import DepthMap, resolve_depth
from lightning_transfer.errors import TransferError
from lightning_transfer.metrics import trainable_memory
from lightning_transfer.types import Schema

__all__ = ["backbone_facts", "mark_unreached", "optimizer_states", "rates", "recommendation_facts", "stages_and_groups"]


def backbone_facts(module: nn.Module) -> dict[str, Any]:
    """Return what a user should know of the backbone's origin; empty for a module without a card."""
    card = getattr(module, "card", None)
    if card is None:
        return {}
    names = ("name", "licence", "pretraining", "source", "num_parameters", "num_features", "batchnorm", "padding")
    return {name: getattr(card, name) for name in names}


def stages_and_groups(trainer: Trainer, module: LightningModule, *, memory: bool = False) -> dict[str, Any]:
    """Return the groups and what opens when, before any callback has frozen anything.

    Args:
        trainer: Its callbacks decide the stages; without a `BackboneFreezeUnfreeze` there is one.
        module: With its head.
        memory: Whether to run two samples through the module for each stage, to estimate its memory.
    """
    callbacks: list[Any] = list(trainer.callbacks)  # type: ignore[attr-defined]
    freezers = [item for item in callbacks if isinstance(item, BackboneFreezeUnfreeze)]
    try:
        depth_map = _depth(module, freezers[0] if freezers else None)
    except (TransferError, ValueError) as error:
        return {"groups": [], "stages": [], "reason": str(error)}
    named = [*depth_map.groups, depth_map.head]
    groups = [
        {
            "name": layer.name,
            "depth": layer.depth,
            "parameters": sum(parameter.numel() for _, parameter in depth_map.named_parameters(module, layer)),
        }
        for layer in named
    ]
    stages = _stages(trainer, module, freezers, depth_map)
    mark_unreached(trainer, module, stages)
    if memory:
        _add_memory(trainer, module, depth_map, stages)
    return {"evidence": depth_map.evidence, "warnings": list(depth_map.warnings), "groups": groups, "stages": stages}


def recommendation_facts(trainer: Trainer, module: LightningModule, schema: Schema | None) -> dict[str, Any]:
    """Return what the numbers at hand recommend, and what the config does; empty where nothing is to be recommended.

    Args:
        trainer: Set up; its device's memory and its callbacks count.
        module: With its head, before any callback has frozen anything.
        schema: Of the data.
    """
    # Late: the evaluation imports scikit-learn's and numpy's parts, and a fit that trains does not ask for this.
    from lightning_transfer.cli.recommendation import configured_strategy, data_facts, device_memory
    from lightning_transfer.evaluation import recommend

    facts = data_facts(module, schema, memory_available=device_memory(trainer.strategy.root_device))
    if facts is None:
        return {}
    found = recommend(replace(facts, memory_full=_memory_of_all(trainer, module)))
    return {"recommendation": found.to_dict(), "configured": configured_strategy(trainer, module)}


def mark_unreached(trainer: Trainer, module: LightningModule, stages: list[dict[str, Any]]) -> None:
    """Mark the stages that begin at a step after the end of the run, as far as its length is known by now."""
    for stage in stages:
        if stage["step"] is not None:
            stage["reached"] = not is_late(stage["step"], end_of_run(trainer, module, "step"))


def rates(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the learning rate of each of the optimizers' groups at the first step, split groups with their names."""
    found = []
    for number, optimizer in enumerate(trainer.optimizers):
        for place, group in enumerate(optimizer.param_groups):
            found.append(
                {
                    "optimizer": type(optimizer).__name__ if len(trainer.optimizers) == 1 else f"{number}",
                    "name": str(group.get("name", f"group {place}")),
                    "lr": float(group["lr"]),
                    "weight_decay": float(group.get("weight_decay", 0.0)),
                    "parameters": sum(parameter.numel() for parameter in group["params"]),
                }
            )
    return found


def optimizer_states(optimizer: Optimizer) -> float:
    """Return how many numbers an optimizer keeps for each trained parameter.

    Example:
        >>> import torch
        >>> optimizer_states(torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9))
        1.0
    """
    name = type(optimizer).__name__.lower()
    if "adagrad" in name or "lion" in name:
        return 1.0
    if name == "sgd":
        return 1.0 if any(group.get("momentum", 0.0) for group in optimizer.param_groups) else 0.0
    return 2.0


def _depth(module: LightningModule, freezer: BackboneFreezeUnfreeze | None) -> DepthMap:
    if freezer is not None:
        return resolve_depth(module, backbone=freezer.backbone, head=freezer.head, layer_groups=freezer.layer_groups)
    head = getattr(module, "head", None)
    # Whisper writes with what was pretrained: nothing outside the backbone is new, and that must be said.
    empty = isinstance(head, nn.Module) and not any(True for _ in head.parameters())
    backbone = "backbone" if hasattr(module, "backbone") else None
    return resolve_depth(module, backbone=backbone, head="head" if empty else None)


def _stages(
    trainer: Trainer, module: LightningModule, freezers: list[BackboneFreezeUnfreeze], depth_map: DepthMap
) -> list[dict[str, Any]]:
    if not freezers:
        counts = [(item.numel(), item.requires_grad) for item in module.parameters()]
        trainable = sum(number for number, trains in counts if trains)
        if not trainable:
            return []
        return [
            {
                "epoch": 0,
                "step": None,
                "opened": [layer.name for layer in depth_map.groups],
                "open_groups": [layer.name for layer in depth_map.groups],
                "trainable_parameters": trainable,
                "share": trainable / max(1, sum(number for number, _ in counts)),
                "reached": True,
            }
        ]
    return [
        {
            "epoch": stage.epoch,
            "step": stage.step,
            "opened": list(stage.opened),
            "open_groups": list(stage.open_groups),
            "trainable_parameters": stage.trainable_parameters,
            "share": stage.share,
            "reached": stage.reached,
        }
        for freezer in freezers
        for stage in freezer.plan(module, trainer.max_epochs)
    ]


def _add_memory(trainer: Trainer, module: LightningModule, depth_map: DepthMap, stages: list[dict[str, Any]]) -> None:
    """Estimate each stage's memory with exactly its groups open; leaves the module as it was."""
    example, batch_size = _example(trainer, module)
    states = max((optimizer_states(item) for item in trainer.optimizers), default=2.0)
    before = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        for stage in stages:
            for layer in depth_map.groups:
                for _, parameter in depth_map.named_parameters(module, layer):
                    parameter.requires_grad_(before[parameter] and layer.name in stage["open_groups"])
            try:
                found = trainable_memory(module, example, batch_size=batch_size, optimizer_states=states)
            except RuntimeError as error:
                # A module whose forward does not take a batch's input: said, not hidden.
                stage["memory"], stage["memory_reason"] = None, str(error).splitlines()[0]
                continue
            stage["memory"] = {
                "total": found.total,
                "parameters": found.parameters,
                "gradients": found.gradients,
                "optimizer_state": found.optimizer_state,
                "activations": found.activations,
            }
    finally:
        for parameter, trains in before.items():
            parameter.requires_grad_(trains)


def _memory_of_all(trainer: Trainer, module: LightningModule) -> int | None:
    """Return the bytes that training every layer would take; None where the module cannot be tried."""
    example, batch_size = _example(trainer, module)
    states = max((optimizer_states(item) for item in trainer.optimizers), default=2.0)
    try:
        return trainable_memory(module, example, batch_size=batch_size, optimizer_states=states).total
    except RuntimeError:
        return None


def _example(trainer: Trainer, module: LightningModule) -> tuple[Any, int]:
    """Return two training samples on the module's device, and the size of a whole batch."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    batch = next(iter(data.ordered_dataloader("train")))
    try_with = getattr(module, "trial_input", None)
    return _first_two(batch.input if try_with is None else try_with(batch), module), len(batch.index)


def _first_two(value: Any, module: LightningModule) -> Any:  # noqa: ANN401 - tensor or dict of tensors
    # Two, not one: BatchNorm cannot train on a single sample.
    if isinstance(value, Tensor):
        return value[:2].to(module.device)
    if isinstance(value, Mapping):
        return {key: _first_two(item, module) for key, item in value.items()}
    return value
