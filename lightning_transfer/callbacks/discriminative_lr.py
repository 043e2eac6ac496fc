"""Smaller learning rates for deeper layers, under any optimizer and any scheduler."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_transfer.callbacks.ddp import check_strategy
from lightning_transfer.callbacks.split_optimizer import SplitOptimizer
from lightning_transfer.depth import DepthMap, Layer, layer_decay_scales, resolve_depth, set_multipliers

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["DiscriminativeLR"]

# By name and by base class. LBFGS takes one group only; ZeRO keeps groups of its own on every rank.
_REFUSED_OPTIMIZERS = ("LBFGS", "ZeroRedundancyOptimizer")


class DiscriminativeLR(Callback):
    """Gives every layer of the backbone its own learning rate: small at the stem, the user's own at the head.

    The optimizer's groups are split by layer when the fit starts, each keeping the options of the group it came
    from. The schedulers go on driving the user's own groups; after each of their steps every real group gets the
    user's rate times its factor, so any scheduler gives its curve times the factor, floors included. Checkpoints
    hold the optimizer in the user's form and load with other factors, or without this callback, too. When the fit
    ends or fails, the optimizer gets its own groups back. Nothing is done in ``validate``, ``test`` and ``predict``.

    Strategies: one device, DDP, and FSDP2 (``ModelParallelStrategy``); others are refused. Under FSDP2 torch itself
    restores the state only of parameters that take gradients when the checkpoint is read.

    While the fit runs, ``optimizer.param_groups`` holds the split groups, so code that picks a group by its index
    finds another one. Lightning's `LearningRateFinder` runs before the groups are split: its rate is the head's.
    ULMFiT, https://arxiv.org/abs/1801.06146; layer-wise decay, https://arxiv.org/abs/2003.10555.

    Args:
        layer_decay: Factor from one layer to the next lower one, in ``(0, 1]``; the head is layer number one.
        total_ratio: Instead of it: rate of the stem over rate of the head, whatever the depth. 0.1 if neither is given
            and there are no ``multipliers``.
        multipliers: Factors by name, exactly as given, for the layers that they name: ``{"stem": 0.01, "head": 2.0}``.
            Names are those of the coarse groups (all layers in one), of the fine layers (stronger than their group),
            and ``head``. The other layers follow ``layer_decay`` or ``total_ratio`` if one is given, else they keep
            the user's rate. 0 is refused: such a layer would still be computed backwards, and its BatchNorm would
            move; freeze it instead.
        backbone: Dotted name or names inside the module; None finds it.
        head: Dotted name or names; None finds it, also inside the backbone. As in `BackboneFreezeUnfreeze`.
        layer_groups: Regexes from stem to top on names relative to the backbone; None asks `depth`.
        head_lr_multiplier: Further factor for the head.
        no_decay_norm_and_bias: Switches weight decay off for biases and normalisation weights.
        rewarm_steps: Optimizer steps over which the rate of a layer that opens during the fit rises, linearly from
            ``1 / rewarm_steps`` of its rate to all of it. Counted from when its parameters first take gradients,
            whoever opens them; what is open at the first step has its full rate. 0, the default, leaves the curve as
            the user wrote it.

    Raises:
        ValueError: If both ``layer_decay`` and ``total_ratio`` are given, the head has two numbers, or a number is
            out of range; in ``factors`` and when the fit starts, if a name in ``multipliers`` is no layer's.

    Example:
        >>> from torch import nn
        >>> net = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head": nn.Linear(2, 1)})
        >>> list(DiscriminativeLR(layer_decay=0.5, backbone="backbone").factors(net).values())
        [0.25, 0.5, 1.0]
    """

    def __init__(
        self,
        *,
        layer_decay: float | None = None,
        total_ratio: float | None = None,
        multipliers: Mapping[str, float] | None = None,
        backbone: str | Sequence[str] | None = None,
        head: str | Sequence[str] | None = None,
        layer_groups: Sequence[str] | None = None,
        head_lr_multiplier: float = 1.0,
        no_decay_norm_and_bias: bool = False,
        rewarm_steps: int = 0,
    ) -> None:
        super().__init__()
        _check_multipliers(multipliers or {}, head_lr_multiplier)
        if rewarm_steps < 0 or rewarm_steps != int(rewarm_steps):
            raise ValueError(f"Expected `rewarm_steps` to be a whole number of at least 0, got {rewarm_steps}.")
        self.layer_decay = layer_decay
        self.total_ratio = total_ratio
        if layer_decay is None and total_ratio is None:
            self.total_ratio = 1.0 if multipliers else 0.1
        self.multipliers = dict(multipliers or {})
        self.backbone = backbone
        self.head = head
        self.layer_groups = layer_groups
        self.head_lr_multiplier = head_lr_multiplier
        self.no_decay_norm_and_bias = no_decay_norm_and_bias
        self.rewarm_steps = int(rewarm_steps)
        # Fails now rather than after the data are loaded; the empty map makes it a check of the numbers alone.
        self._ladder(DepthMap((), (), Layer("head", 0), (), ""))
        self._splits: list[SplitOptimizer] = []
        self._undo: list[Callable[[], None]] = []
        # Of each optimizer: the ramps of layers that opened.
        self._ramps: list[dict[str, Any]] = []
        self._factors: dict[str, float] = {}
        self._restored: dict[str, float] | None = None
        self._warned = False

    def factors(self, module: nn.Module) -> dict[str, float]:
        """Return what each layer's rate is multiplied by, from stem to head, before any training.

        Args:
            module: The LightningModule, or a bare model.
        """
        depth_map = self._resolve(module)
        scales = self._scales(depth_map)
        layers = [layer for layer in (*depth_map.layers, depth_map.head) if layer.parameters]
        return {layer.name: scales[layer.parameters[0]] for layer in layers}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what an earlier fit left."""
        if stage == "fit":
            self._restore()
            self._ramps = []
            self._restored = None
            self._warned = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Split the groups and take over the schedulers: both exist by now, and their state is not yet restored."""
        check_strategy(trainer, self, "ModelParallelStrategy")
        depth_map = self._resolve(pl_module)
        for text in depth_map.warnings:
            rank_zero_warn(text)
        for optimizer in trainer.optimizers:
            name = type(optimizer).__name__
            if any(cls.__name__ in _REFUSED_OPTIMIZERS for cls in type(optimizer).__mro__):
                raise MisconfigurationException(
                    f"`DiscriminativeLR` cannot split the groups of `{name}`: it does not support one rate per group. "
                    "Use another optimizer, such as `torch.optim.AdamW`, or leave the callback out."
                )
        scales = self._scales(depth_map)
        self._splits = [
            SplitOptimizer(
                optimizer,
                pl_module,
                depth_map,
                scales,
                no_decay_norm_and_bias=self.no_decay_norm_and_bias,
                rewarm_steps=self.rewarm_steps,
            )
            for optimizer in trainer.optimizers
        ]
        self._load_ramps()
        for config in trainer.lr_scheduler_configs:
            self._drive(config.scheduler)
        if trainer.strategy.restore_checkpoint_after_setup:
            self._unsplit_checkpoints(trainer.strategy)
        self._factors = self.factors(pl_module)
        text = ", ".join(f"{layer} {factor:.3g}" for layer, factor in self._factors.items())
        rank_zero_info(f"DiscriminativeLR: learning rate times {text}.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say aloud if the checkpoint has other factors: whatever the strategy, it has been loaded by now."""
        self._compare()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say aloud if a scheduler was made after the groups were split, since it drives the split groups."""
        known = [scheduler for split in self._splits for scheduler in split.schedulers]
        late = [
            config.scheduler
            for config in trainer.lr_scheduler_configs
            if not any(config.scheduler is scheduler for scheduler in known)
        ]
        if late and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"The scheduler `{type(late[0]).__name__}` was made after `DiscriminativeLR` split the groups. It sets "
                "the rate of each layer itself; the factors no longer apply. Return it from `configure_optimizers`."
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the optimizers their own groups back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the optimizers their own groups back after a failed fit, too."""
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the optimizers their own groups back where no other hook could."""
        self._restore()

    def state_dict(self) -> dict[str, Any]:
        """Save the factors, so that a resumed run can say if it has others, and the ramps, so that it goes on."""
        return {"factors": dict(self._factors), "ramps": self._save_ramps()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the factors of the checkpoint for the comparison in `on_train_start`, and take up the ramps."""
        self._restored = dict(state_dict["factors"])
        self._ramps = list(state_dict.get("ramps", []))
        # Searches for a rate or a batch size load a checkpoint while the groups are split.
        self._load_ramps()

    def _resolve(self, module: nn.Module) -> DepthMap:
        return resolve_depth(module, backbone=self.backbone, head=self.head, layer_groups=self.layer_groups)

    def _scales(self, depth_map: DepthMap) -> Mapping[str, float]:
        return set_multipliers(depth_map, self._ladder(depth_map), self.multipliers)

    def _ladder(self, depth_map: DepthMap) -> Mapping[str, float]:
        return layer_decay_scales(
            depth_map,
            layer_decay=self.layer_decay,
            total_ratio=self.total_ratio,
            head_lr_multiplier=self.head_lr_multiplier,
        )

    def _drive(self, scheduler: Any) -> None:  # noqa: ANN401 - any scheduler, torch's or the user's own
        for split in self._splits:
            if split.optimizer is scheduler.optimizer:
                split.drive(scheduler)

    def _compare(self) -> None:
        if self._restored and self._restored != self._factors:
            rank_zero_warn(
                f"The checkpoint was trained with the learning rate factors {self._restored}, this run has "
                f"{self._factors}. The run goes on with its own."
            )
        self._restored = None

    def _unsplit_checkpoints(self, strategy: Any) -> None:  # noqa: ANN401 - ModelParallelStrategy of either Lightning
        """Show the user's groups while FSDP2 saves and loads: it goes by ``param_groups``, not by ``state_dict``."""

        def unsplit(method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the strategy's own signature
                with ExitStack() as stack:
                    for split in self._splits:
                        stack.enter_context(split.unsplit())
                    return method(*args, **kwargs)

            return run

        for name in ("optimizer_state", "load_checkpoint"):
            setattr(strategy, name, unsplit(getattr(strategy, name)))
            self._undo.append(functools.partial(delattr, strategy, name))

    def _save_ramps(self) -> list[dict[str, Any]]:
        return [split.rewarm_state() for split in self._splits] if self._splits else self._ramps

    def _load_ramps(self) -> None:
        for split, ramps in zip(self._splits, self._ramps, strict=False):
            split.load_rewarm_state(ramps)

    def _restore(self) -> None:
        # A checkpoint may still be saved after the fit.
        self._ramps = self._save_ramps()
        for undo in self._undo:
            undo()
        self._undo = []
        for split in self._splits:
            split.restore()
        self._splits = []


def _check_multipliers(multipliers: Mapping[str, float], head_lr_multiplier: float) -> None:
    """Refuse numbers that are no factors, before there is a module that could say whether the names are right."""
    for name, value in multipliers.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(
                f"Expected a number above 0 for {name!r} in `multipliers`, got {value}. To keep a layer as it is, "
                "freeze it with `BackboneFreezeUnfreeze`, or set `requires_grad=False` on it before the fit."
            )
    if "head" in multipliers and head_lr_multiplier != 1.0:
        raise ValueError(
            f"The head has two factors: multipliers['head']={multipliers['head']} and "
            f"head_lr_multiplier={head_lr_multiplier}. Give one of them."
        )
