"""Which layer groups of a run are frozen, and for how long: read from its schedule, or from the module as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_transfer.callbacks.backbone_freeze_unfreeze import BackboneFreezeUnfreeze
from lightning_transfer.callbacks.cache_conditions import CacheRefusedError
from lightning_transfer.depth import DepthMap, resolve_depth

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["RunGroups"]


@dataclass(frozen=True)
class RunGroups:
    """The layer groups of a run, and what its schedule says of them.

    Attributes:
        depth_map: Of the module; None where nothing says which layer is how deep: the backbone is one group then.
        total: Number of groups.
        open_at: Most groups that are open at some time of an epoch, counted from the head side.
        end: Epoch after the last; infinity where there is none.
    """

    depth_map: DepthMap | None
    total: int
    open_at: Callable[[int], int]
    end: float

    @classmethod
    def of(cls, trainer: Trainer, module: LightningModule) -> RunGroups:
        """Read them from the run's `BackboneFreezeUnfreeze`, or, without one, from what takes gradients now.

        Raises:
            CacheRefusedError: If there are two schedules.
        """
        callbacks: list[Any] = list(trainer.callbacks)  # type: ignore[attr-defined]
        freezers = [item for item in callbacks if isinstance(item, BackboneFreezeUnfreeze)]
        if len(freezers) > 1:
            raise CacheRefusedError(f"{len(freezers)} `BackboneFreezeUnfreeze` freeze parts of one module")
        end = _end(trainer)
        if freezers:
            freezer = freezers[0]
            given: dict[str, Any] = {"backbone": freezer.backbone, "head": freezer.head}
            given["layer_groups"] = freezer.layer_groups
            try:
                found = freezer.depth_map or resolve_depth(module, **given)
            except ValueError as error:
                raise CacheRefusedError(str(error).rstrip(".")) from error
            total = len(found.groups)
            return cls(found, total, lambda epoch: freezer.most_open(trainer, epoch, total), end)
        depth_map = _resolve(module)
        if depth_map is None:
            trains = any(value.requires_grad for value in _backbone(module).parameters())
            return cls(None, 1, lambda _: int(trains), end)
        frozen = 0
        for group in depth_map.groups:
            if any(value.requires_grad for _, value in depth_map.named_parameters(module, group)):
                break
            frozen += 1
        total = len(depth_map.groups)
        return cls(depth_map, total, lambda _: total - frozen, end)

    def trains(self, module: LightningModule, frozen: int) -> set[int]:
        """Return the identities of the backbone's parameters above the first groups: they train, or will."""
        if self.depth_map is None:
            return set()
        return {
            id(value)
            for group in self.depth_map.groups[frozen:]
            for _, value in self.depth_map.named_parameters(module, group)
        }

    def opened(self, frozen: int, epoch: int) -> str:
        """Return the name of a group that opens among the first ones; empty if none does."""
        closed = self.total - self.open_at(epoch)
        if closed >= frozen:
            return ""
        return "the backbone" if self.depth_map is None else f"`{self.depth_map.groups[frozen - 1].name}`"

    def describe_none(self, min_epochs: float, epoch: int) -> str:
        """Compose why no group is worth it."""
        if self.open_at(epoch) >= self.total:
            return f"all {self.total} layer groups train"
        left = self.end - epoch
        if left < min_epochs:
            said = "1 epoch is" if left == 1 else f"{left:g} epochs are"
            return f"{said} left, and running the frozen layers once for all pays from {min_epochs:g} on"
        return f"no layer group stays frozen for {min_epochs:g} epochs more"


def _resolve(module: LightningModule) -> DepthMap | None:
    head = getattr(module, "head", None)
    # Whisper writes with what was pretrained: nothing outside the backbone is new, and that must be said.
    empty = isinstance(head, nn.Module) and not any(True for _ in head.parameters())
    try:
        return resolve_depth(module, backbone="backbone", head="head" if empty else None)
    except ValueError:
        return None


def _end(trainer: Trainer) -> float:
    end = math.inf if trainer.max_epochs is None or trainer.max_epochs < 0 else float(trainer.max_epochs)
    if trainer.max_steps < 0:
        return end
    steps = max(1, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
    return min(end, trainer.current_epoch + math.ceil((trainer.max_steps - trainer.global_step) / steps))


def _backbone(module: Any) -> nn.Module:  # noqa: ANN401 - a TransferModule
    found: nn.Module = module.backbone
    return found
