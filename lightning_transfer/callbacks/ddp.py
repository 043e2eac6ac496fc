"""What a change of the trainable set means for the strategy: DDP is wrapped again, compiled code is forgotten."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["check_strategy", "is_one_device_or_ddp", "reset_compiled_code", "rewrap_ddp"]

# By name, since `lightning.pytorch` and `pytorch_lightning` each have their own classes.
_ONE_DEVICE_AND_DDP = ("SingleDeviceStrategy", "DDPStrategy")
_REFUSED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy", "XLAStrategy", "SingleDeviceXLAStrategy")


def check_strategy(trainer: Trainer, callback: object, *also: str) -> None:
    """Refuse a strategy under which the callback has not been proven right.

    Args:
        trainer: Its strategy is looked at.
        callback: Named in the error.
        also: Class names of strategies that this callback takes besides one device and DDP.

    Raises:
        MisconfigurationException: If the strategy is neither single-device nor DDP nor one of ``also``.
    """
    names = [cls.__name__ for cls in type(trainer.strategy).__mro__]
    refused = set(_REFUSED) - set(also)
    if any(name in (*_ONE_DEVICE_AND_DDP, *also) for name in names) and refused.isdisjoint(names):
        return
    others = "".join(f", {name}" for name in also)
    raise MisconfigurationException(
        f"`{type(callback).__name__}` does not support the strategy `{names[0]}`: it shards parameters or optimizer "
        "state, so frozen layers and split groups would be wrong without a sign. Use `Trainer(strategy='ddp')`, "
        f"'ddp_spawn'{others} or a single device, or leave the callback out."
    )


def is_one_device_or_ddp(trainer: Trainer) -> bool:
    """Tell whether each process has all parameters, whole."""
    names = [cls.__name__ for cls in type(trainer.strategy).__mro__]
    return any(name in _ONE_DEVICE_AND_DDP for name in names) and not any(name in _REFUSED for name in names)


def rewrap_ddp(trainer: Trainer, module: LightningModule) -> None:
    """Wrap the module in a new DDP, so that exactly the parameters that train now are reduced.

    DDP lists the parameters that require gradients when it is built: what opens later would differ between
    ranks, and what closes would make it wait. All ranks must call this together, between two optimizer steps.
    A module without trainable parameters is left unwrapped, since DDP refuses it. Does nothing outside DDP.
    """
    strategy = trainer.strategy
    if not hasattr(strategy, "configure_ddp") or not torch.distributed.is_initialized():
        return
    wrapped = strategy.model
    if isinstance(wrapped, DistributedDataParallel):
        strategy.model = module
        # The reducer's hooks on the parameters live as long as the reducer: two reducers would reduce twice.
        for name in ("reducer", "logger"):
            if hasattr(wrapped, name):
                delattr(wrapped, name)
        del wrapped
        gc.collect()
    elif wrapped is not module:
        return
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return
    _forget_power_sgd(getattr(strategy, "_ddp_comm_state", None))
    strategy.configure_ddp()
    if hasattr(strategy, "_pl_static_graph_delay_done"):
        # Manual optimisation under a static graph flushes the first backward of each new DDP.
        strategy._pl_static_graph_delay_done = False


def reset_compiled_code() -> None:
    """Make `torch.compile` trace again: traced code does not notice that ``requires_grad`` has changed.

    Reaches the compiled module, its compiled submodules and compiled functions alike. Costs nothing where
    nothing was compiled.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _forget_power_sgd(state: object) -> None:
    """Drop the low-rank memory of PowerSGD: it is kept per bucket, and a new DDP has other buckets."""
    memories = ("error_dict", "p_memory_dict", "q_memory_dict")
    if not all(hasattr(state, name) for name in memories):
        return
    for name in memories:
        getattr(state, name).clear()
    # Buckets are rebuilt after the first step of a new DDP, so the plain all-reduce comes first again.
    state.iter = 0  # type: ignore[attr-defined]
