"""What a schedule means for one module: the stages as data, and whether the optimizers can follow them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from lightning_transfer.callbacks.schedule import Stage, Unit
from lightning_transfer.depth import DepthMap, Layer, is_norm
from lightning_transfer.errors import listing

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = [
    "bn_mode",
    "build_plan",
    "check_optimizers",
    "describe_change",
    "describe_differences",
    "describe_unreached",
    "end_of_run",
    "is_late",
]


def build_plan(
    module: nn.Module,
    depth_map: DepthMap,
    changes: Sequence[tuple[int | None, int]],
    *,
    unit: Unit = "epoch",
    train_bn: bool = False,
    end: int | None = None,
) -> list[Stage]:
    """Turn the numbers of open groups into stages.

    Args:
        module: As it is before a fit; what is frozen now counts as frozen for good.
        depth_map: Of the module; its coarse groups are opened.
        changes: ``(epoch or step, number of open groups)``; None and a number for a stage that a metric begins.
        unit: What the first numbers of ``changes`` count.
        train_bn: Normalisation of closed groups trains.
        end: Epoch or step at which the run ends: stages from there on are marked as not reached. None or -1: no limit.
    """
    names = [group.name for group in depth_map.groups]
    total = len(names)
    sizes = [_trainable_size(module, depth_map, group, train_bn) for group in depth_map.groups]
    everything = sum(value.numel() for value in module.parameters())
    trainable = sum(value.numel() for value in module.parameters() if value.requires_grad)
    stages, before = [], 0
    for begin, count in changes:
        amount = trainable - sum(sizes[: total - count])
        stages.append(
            Stage(
                epoch=begin if unit == "epoch" else None,
                step=begin if unit == "step" else None,
                opened=tuple(reversed(names[total - count : total - before])),
                open_groups=tuple(names[total - count :]),
                trainable_parameters=amount,
                share=amount / everything if everything else 0.0,
                reached=not is_late(begin, end),
            )
        )
        before = count
    return stages


def check_optimizers(
    optimizers: Iterable[Optimizer], module: nn.Module, depth_map: DepthMap, stages: Iterable[Stage]
) -> None:
    """Refuse optimizers that leave out a parameter which a stage opens: it would never be trained.

    Raises:
        MisconfigurationException: If a parameter that takes gradients, of a group that opens, is in no optimizer.
    """
    optimizers = list(optimizers)
    if any(type(optimizer).__name__ == "_MockOptimizer" for optimizer in optimizers):
        # `configure_optimizers` returned None, which Lightning warns of; nothing is trained at all.
        return
    held = {id(value) for optimizer in optimizers for group in optimizer.param_groups for value in group["params"]}
    groups = {group.name: group for group in depth_map.groups}
    for stage in stages:
        for group in (groups[name] for name in stage.opened if stage.reached):
            missing = [
                name
                for name, value in depth_map.named_parameters(module, group)
                if value.requires_grad and id(value) not in held
            ]
            if missing:
                raise MisconfigurationException(
                    f"The optimizer leaves out {len(missing)} parameters of `{group.name}`, which the schedule opens "
                    f"{stage.begins}: {listing(missing, 3)}. Give the optimizer every parameter, such as "
                    "`torch.optim.AdamW(self.parameters())`; while frozen they cost no step and no state. "
                    "To keep a layer frozen for good, set `requires_grad=False` on it before the fit."
                )


def describe_change(module: nn.Module, names: Sequence[str], before: int, now: int) -> str:
    """Compose the line about a new stage.

    Args:
        module: In the new stage.
        names: All groups, from stem to top.
        before: Groups that were open, counted from the head side.
        now: Groups that are open.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        >>> describe_change(net, ["stem", "top"], before=0, now=1)
        'opened top; 4 of 4 parameters train (100.0%).'
    """
    total = len(names)
    everything = sum(value.numel() for value in module.parameters())
    trainable = sum(value.numel() for value in module.parameters() if value.requires_grad)
    if now > before:
        what = f"opened {', '.join(reversed(names[total - now : total - before]))}"
    elif now < before:
        what = f"closed {', '.join(names[total - before : total - now])}"
    else:
        what = "the head alone trains" if now == 0 else f"{now} of {total} groups are open"
    return f"{what}; {trainable:,} of {everything:,} parameters train ({trainable / max(1, everything):.1%})."


def describe_unreached(stages: Sequence[Stage], end: int | None) -> str:
    """Compose the warning about stages that begin after the end; empty if there are none.

    Args:
        stages: Of `build_plan`.
        end: Epoch or step at which the run ends; None or -1: no limit.
    """
    begins = [stage.epoch if stage.step is None else stage.step for stage in stages]
    late = [stage for stage, begin in zip(stages, begins, strict=True) if is_late(begin, end)]
    if not late:
        return ""
    what = f"opening {', '.join(f'`{name}`' for name in late[0].opened)}" if late[0].opened else "the next stage"
    if late[0].step is None:
        limit, remedy = f"`max_epochs` is {end}", f"Train for more than {late[-1].epoch} epochs"
        earlier = "open groups earlier (`unfreeze_at_epoch`, `epochs_per_group`)"
    else:
        limit, remedy = f"the run ends after {end} optimizer steps", f"Train for more than {late[-1].step} steps"
        earlier = "open groups at earlier steps (`schedule`)"
    return (
        f"{len(late)} of {len(stages)} stages are never reached: {what} is due {late[0].begins}, but {limit}. "
        f"{remedy}, or {earlier}."
    )


def describe_differences(state: Mapping[str, Any] | None, groups: Sequence[str], schedule: str) -> list[str]:
    """Compose the warnings about a checkpoint of another schedule or of other groups.

    Args:
        state: What `BackboneFreezeUnfreeze` had saved; None without a checkpoint.
        groups: Of this run, from stem to top.
        schedule: Of this run, as it describes itself.
    """
    if state is None or not state["groups"]:
        # Without groups it is what Lightning's finders put back: they run before the callback begins.
        return []
    found = []
    if list(state["groups"]) != list(groups):
        found.append(
            f"The checkpoint was trained with the layer groups {', '.join(state['groups'])}; this run has "
            f"{', '.join(groups)}. The run goes on with its own: other layers may be open than before."
        )
    if state["schedule"] != schedule:
        found.append(
            f"The checkpoint was trained with the schedule {state['schedule']}, this run has {schedule}. "
            "The run goes on with its own."
        )
    return found


def bn_mode(module: nn.Module, wanted: Literal["train", "eval"], *, train_bn: bool) -> Literal["train", "eval"]:
    """Keep folded BatchNorm in eval mode: its statistics are the identity, and batch statistics are not.

    Args:
        module: Its ``card``, if it has one, says whether BatchNorm is folded.
        wanted: What opened BatchNorm does where it is not folded.
        train_bn: Normalisation of closed groups trains.

    Raises:
        MisconfigurationException: If ``train_bn`` asks for what folded BatchNorm cannot do.
    """
    if getattr(getattr(module, "card", None), "batchnorm", "live") != "folded":
        return wanted
    if train_bn:
        raise MisconfigurationException(
            "`train_bn=True` cannot be used with this backbone: its card says that BatchNorm is folded into the "
            "convolutions. Use `train_bn=False`."
        )
    if wanted == "train":
        rank_zero_info(
            "BackboneFreezeUnfreeze: the backbone's BatchNorm is folded, so it stays in eval mode when opened."
        )
    return "eval"


def is_late(begin: int | None, end: int | None) -> bool:
    """Say whether a stage begins when the run is over.

    Args:
        begin: Epoch or step; None for a stage that a metric begins.
        end: Epoch or step; None or -1: no limit.
    """
    return begin is not None and end is not None and 0 <= end <= begin


def end_of_run(trainer: Trainer, module: LightningModule, unit: Unit) -> int | None:
    """Count the epochs, or the optimizer steps, after which a fit ends; None or -1 where that is not known.

    Steps follow from ``max_epochs`` once the data are loaded, which is before ``on_train_start``. They are not loaded
    for it: Lightning would not restore the position of a loader that is there before the checkpoint. The steps of
    manual optimization are the module's own affair, so only ``max_steps`` ends them.
    """
    if unit == "epoch":
        return trainer.max_epochs
    if not module.automatic_optimization or trainer.train_dataloader is None:
        return trainer.max_steps
    steps = trainer.estimated_stepping_batches
    return int(steps) if steps < math.inf else None


def _trainable_size(module: nn.Module, depth_map: DepthMap, group: Layer, train_bn: bool) -> int:
    """Count what freezing a group takes away: not what was frozen before, nor norms that go on training."""
    spared: set[int] = set()
    if train_bn:
        for _, child in depth_map.named_modules(module, group):
            if is_norm(child):
                spared.update(id(value) for value in child.parameters(recurse=False))
    values = {id(value): value for _, value in depth_map.named_parameters(module, group)}
    return sum(value.numel() for key, value in values.items() if value.requires_grad and key not in spared)
