"""What a change of the trainable set means for FSDP2, where the user calls ``fully_shard`` in ``configure_model``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_transfer.depth import DepthMap
from lightning_transfer.depth.layers import plain_name

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["groups_with_state", "load_again", "refresh_shards", "reshard"]


def reshard(module: nn.Module) -> None:
    """Register the shards, which the optimizer holds, as the module's parameters; nothing where nothing is sharded.

    After a validation the root of FSDP2 keeps the gathered parameters in their place, and a flag set on those
    would never reach the shards. Call it before ``requires_grad`` changes, between two optimizer steps.
    """
    for child in _sharded_modules(module):
        child.reshard()


def refresh_shards(module: nn.Module) -> None:
    """Make FSDP2 look at ``requires_grad`` again, after it has changed. All ranks must call this together.

    FSDP2 takes a unit's reduction dtype from the parameters that train when it is first gathered: one that was all
    frozen then would be reduced, and get its gradients, in the dtype of a mixed-precision policy.
    """
    for child in _sharded_modules(module):
        child.unshard()
        child.reshard()


def groups_with_state(trainer: Trainer, checkpoint: Mapping[str, Any], depth_map: DepthMap) -> int:
    """Count the groups, from the head side, down to the deepest that has an optimizer's state in the checkpoint.

    Args:
        trainer: That has loaded the checkpoint.
        checkpoint: As the hook ``on_load_checkpoint`` gets it.
        depth_map: Of the Trainer's module; its coarse groups are counted.
    """
    module = trainer.lightning_module
    if "optimizer_states" in checkpoint:
        # One file, with the parameters' numbers for keys.
        names = [plain_name(name) for name, _ in module.named_parameters()]
        saved = {names[number] for state in checkpoint["optimizer_states"] for number in state["state"]}
    else:
        # A folder, with keys such as `optimizer_0.state.head.weight.exp_avg`.
        from torch.distributed.checkpoint.filesystem import FileSystemReader

        reader = FileSystemReader(str(trainer.ckpt_path))
        keys = [key.split(".", 2) for key in reader.read_metadata().state_dict_metadata]
        saved = {key[2].rpartition(".")[0] for key in keys if key[0].startswith("optimizer_") and key[1] == "state"}
    for place, group in enumerate(depth_map.groups):
        if any(plain_name(name) in saved for name, _ in depth_map.named_parameters(module, group)):
            return len(depth_map.groups) - place
    return 0


def load_again(trainer: Trainer) -> None:
    """Load the checkpoint once more, now that exactly those parameters train which have a state in it.

    A distributed checkpoint is read into the states that there are, and torch makes them for what trains at that
    moment: the state of a group that opened later would be left out without a sign.
    """
    for optimizer in trainer.optimizers:
        # Torch makes no states where there are some.
        optimizer.state.clear()
    if trainer.ckpt_path is not None:
        trainer.strategy.load_checkpoint(trainer.ckpt_path)


def _sharded_modules(module: nn.Module) -> Sequence[Any]:
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ()
    from torch.distributed import fsdp

    # In torch 2.5 it lives elsewhere.
    unit = getattr(fsdp, "FSDPModule", None) or import_module("torch.distributed._composable.fsdp").FSDPModule
    return [child for child in module.modules() if isinstance(child, unit)]
