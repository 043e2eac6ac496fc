"""What a schedule means for one module: the stages as data, and whether the optimizers can follow them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer

from lightning_transfer.callbacks.schedule import Stage
from lightning_transfer.depth import DepthMap, Layer, is_norm
from lightning_transfer.errors import listing

__all__ = ["build_plan", "check_optimizers", "describe_change", "describe_unreached"]


def build_plan(
    module: nn.Module,
    depth_map: DepthMap,
    steps: Sequence[tuple[int | None, int]],
    *,
    train_bn: bool = False,
    max_epochs: int | None = None,
) -> list[Stage]:
    """Turn the numbers of open groups into stages.

    Args:
        module: As it is before a fit; what is frozen now counts as frozen for good.
        depth_map: Of the module; its coarse groups are opened.
        steps: ``(epoch, number of open groups)``; the epoch is None for a stage that a metric begins.
        train_bn: Normalisation of closed groups trains.
        max_epochs: Stages that begin at it or later are marked as not reached; None or -1: no limit.
    """
    names = [group.name for group in depth_map.groups]
    total = len(names)
    sizes = [_trainable_size(module, depth_map, group, train_bn) for group in depth_map.groups]
    everything = sum(value.numel() for value in module.parameters())
    trainable = sum(value.numel() for value in module.parameters() if value.requires_grad)
    stages, before = [], 0
    for epoch, count in steps:
        amount = trainable - sum(sizes[: total - count])
        stages.append(
            Stage(
                epoch=epoch,
                opened=tuple(reversed(names[total - count : total - before])),
                open_groups=tuple(names[total - count :]),
                trainable_parameters=amount,
                share=amount / everything if everything else 0.0,
                reached=epoch is None or max_epochs is None or max_epochs < 0 or epoch < max_epochs,
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
                when = "when the metric stalls" if stage.epoch is None else f"at epoch {stage.epoch}"
                raise MisconfigurationException(
                    f"The optimizer leaves out {len(missing)} parameters of `{group.name}`, which the schedule opens "
                    f"{when}: {listing(missing, 3)}. Give the optimizer every parameter, such as "
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


def describe_unreached(stages: Sequence[Stage], max_epochs: int | None) -> str:
    """Compose the warning about stages that begin after the end; empty if there are none."""
    late = [stage for stage in stages if not stage.reached]
    if not late:
        return ""
    what = f"opening {', '.join(f'`{name}`' for name in late[0].opened)}" if late[0].opened else "the next stage"
    return (
        f"{len(late)} of {len(stages)} stages are never reached: {what} is due at epoch {late[0].epoch}, but "
        f"`max_epochs` is {max_epochs}. Train for more than {late[-1].epoch} epochs, or open groups earlier "
        "(`unfreeze_at_epoch`, `epochs_per_group`)."
    )


def _trainable_size(module: nn.Module, depth_map: DepthMap, group: Layer, train_bn: bool) -> int:
    """Count what freezing a group takes away: not what was frozen before, nor norms that go on training."""
    spared: set[int] = set()
    if train_bn:
        for _, child in depth_map.named_modules(module, group):
            if is_norm(child):
                spared.update(id(value) for value in child.parameters(recurse=False))
    values = {id(value): value for _, value in depth_map.named_parameters(module, group)}
    return sum(value.numel() for key, value in values.items() if value.requires_grad and key not in spared)
