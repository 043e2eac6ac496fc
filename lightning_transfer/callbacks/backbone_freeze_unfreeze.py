"""Freeze a pretrained backbone and open it again, layer group by layer group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_transfer.callbacks.ddp import check_strategy, reset_compiled_code, rewrap_ddp
from lightning_transfer.callbacks.freeze_plan import (
    bn_mode,
    build_plan,
    check_optimizers,
    describe_change,
    describe_differences,
    describe_unreached,
    end_of_run,
)
from lightning_transfer.callbacks.metric_stages import MetricStages
from lightning_transfer.callbacks.schedule import Schedule, Stage, Unit
from lightning_transfer.callbacks.sharding import groups_with_state, load_again, refresh_shards, reshard
from lightning_transfer.depth import DepthMap, Freezer, resolve_depth

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["BackboneFreezeUnfreeze"]


class BackboneFreezeUnfreeze(Callback):
    """Trains the head first and opens the backbone's layer groups from the top down: by epoch, step or stalled metric.

    Freezes after ``configure_optimizers``, so the optimizer holds every parameter from the start and no group is
    ever added later: schedulers and checkpoints stay as they are. What is open is a pure function of the epoch or step
    (with ``monitor``, of a counter that the checkpoint holds), so a resumed run continues where it was. Frozen
    modules are in eval mode whatever calls ``.train()``. Parameters that were frozen before the fit stay frozen.
    Under DDP the module is wrapped anew when the trainable set changes, under FSDP2 (``ModelParallelStrategy``) the
    shards are frozen and opened, and compiled code is compiled again. When the fit ends or fails, ``requires_grad``
    and modes are put back. ``validate``, ``test`` and ``predict`` are left alone, and so are Lightning's finders of
    batch size and learning rate: they run before, with everything open. Linear probing first, then fine-tuning:
    https://arxiv.org/abs/2202.10054.

    Args:
        schedule: ``feature_extraction`` (head only), ``lp_ft`` (head first, then all), ``partial`` (the top
            ``num_open_groups`` from the start), ``gradual`` (one group after the other), ``full``; or
            ``{epoch: number of open groups}``, counted from the head side, or ``"all"``. The head is always open.
        unit: What the keys of a mapping count: epochs, or optimizer steps (``trainer.global_step``), such as
            ``{0: 0, 200: 1, 400: "all"}``. Batches that accumulate make one step; two optimizers make two in a batch.
        backbone: Dotted name or names inside the module, such as ``model.encoder``; None finds it.
        head: Dotted name or names; None finds it, also inside the backbone.
        layer_groups: Regexes from stem to top on names relative to the backbone; None asks `depth`.
        unfreeze_at_epoch: First epoch at which ``lp_ft`` and ``gradual`` open anything.
        epochs_per_group: Epochs between two openings of ``gradual``.
        num_open_groups: Groups that ``partial`` leaves open.
        monitor: Logged metric; when it stalls, the next group opens (``lp_ft``: all of them), instead of by epoch.
        mode: ``min`` if a smaller metric is better, else ``max``.
        patience: Checks without improvement that make a stall.
        train_bn: Normalisation of frozen groups trains, statistics and weights.
        bn_when_open: ``eval`` keeps the BatchNorm statistics of opened groups; for small batches. A module whose
            ``card`` says that BatchNorm is folded gets ``eval`` in any case.
        verbose: Logs a line at each opening.

    Raises:
        ValueError: If an argument is out of range, or ``monitor`` or ``unit="step"`` is used with a schedule that it
            cannot drive.

    Example:
        >>> net = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head": nn.Linear(2, 1)})
        >>> callback = BackboneFreezeUnfreeze("gradual", backbone="backbone", epochs_per_group=2)
        >>> [(stage.epoch, stage.trainable_parameters) for stage in callback.plan(net)]
        [(0, 3), (1, 9), (3, 15)]
    """

    def __init__(
        self,
        schedule: str | Mapping[int, int | str] = "gradual",
        *,
        unit: Unit = "epoch",
        backbone: str | Sequence[str] | None = None,
        head: str | Sequence[str] | None = None,
        layer_groups: Sequence[str] | None = None,
        unfreeze_at_epoch: int = 1,
        epochs_per_group: int = 1,
        num_open_groups: int = 2,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        patience: int = 2,
        train_bn: bool = False,
        bn_when_open: Literal["train", "eval"] = "train",
        verbose: bool = True,
    ) -> None:
        super().__init__()
        if bn_when_open not in ("train", "eval"):
            raise ValueError(f"Expected `bn_when_open` to be 'train' or 'eval', got {bn_when_open!r}.")
        if monitor is not None and schedule not in ("gradual", "lp_ft"):
            raise ValueError(
                f"`monitor={monitor!r}` cannot drive the schedule {schedule!r}. Use 'gradual' or 'lp_ft' with it."
            )
        self.schedule = Schedule(schedule, unfreeze_at_epoch, epochs_per_group, num_open_groups, unit)
        self.backbone = backbone
        self.head = head
        self.layer_groups = layer_groups
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.train_bn = train_bn
        self.bn_when_open = bn_when_open
        self.verbose = verbose
        self._metric = MetricStages(monitor, mode, patience)
        self._groups: tuple[str, ...] = ()
        self._stages: list[Stage] = []
        self._limit: int | None = None
        self._restored: dict[str, Any] | None = None
        self._freezer: Freezer | None = None
        # Identities of the backbone parameters that DDP reduces.
        self._reduced: frozenset[int] = frozenset()
        # Groups open: as far as gradients and modes go, and as far as the run has been told.
        self._open = 0
        self._applied: int | None = None
        self._modes: dict[nn.Module, bool] = {}
        self._last_step = -1

    @property
    def state_key(self) -> str:
        """Tell two of these callbacks apart that look after different backbones of one module."""
        return self._generate_state_key(backbone=self.backbone)

    @property
    def open_groups(self) -> tuple[str, ...]:
        """Names of the groups that are open, from stem to top, less what `limit_open_groups` closes; only in a fit."""
        count = self._open if self._limit is None else min(self._open, self._limit)
        return self._groups[len(self._groups) - count :] if self._freezer is not None else ()

    def plan(self, module: nn.Module, max_epochs: int | None = None, *, max_steps: int | None = None) -> list[Stage]:
        """Return the stages as data, before training.

        Args:
            module: The LightningModule, or a bare model, as it is before a fit.
            max_epochs: Of the Trainer; stages that begin later are marked as not reached. None or -1: no limit.
            max_steps: The same for a schedule in steps; the Trainer's ``estimated_stepping_batches`` fits.
        """
        end = max_epochs if self.schedule.unit == "epoch" else max_steps
        return self._plan(module, self._resolve(module), end)

    @property
    def depth_map(self) -> DepthMap | None:
        """What is frozen and opened, from stem to top; only in a fit."""
        return None if self._freezer is None else self._freezer.depth_map

    def most_open(self, trainer: Trainer, epoch: int, total: int) -> int:
        """Count the groups that may be open at some time of an epoch, the present one or a later, as is known now."""
        if self.monitor is not None:
            checks = math.ceil(trainer.num_training_batches / trainer.val_check_batch) if trainer.val_check_batch else 1
            sure = epoch < trainer.current_epoch + self._metric.checks_to_come // max(1, checks)
            count = self._target(trainer) if sure and self._freezer is not None else 0 if sure else total
        elif self.schedule.unit == "epoch":
            count = self.schedule.open_at(epoch, total)
        else:
            steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
            begin = trainer.global_step + (epoch - trainer.current_epoch) * steps
            moments = [begin, *(moment for moment in self.schedule.changes(total) if begin < moment < begin + steps)]
            count = max(self.schedule.open_at(moment, total) for moment in moments)
        return count if self._limit is None else min(count, self._limit)

    def limit_open_groups(self, count: int | None) -> None:
        """Keep at most this many groups open from the next optimizer step on, whatever the schedule says.

        For code that closes layers again, deepest first, when too much is forgotten. Saved in the checkpoint.

        Args:
            count: Groups counted from the head side; None lifts the limit.
        """
        if count is not None and count < 0:
            raise ValueError(f"Expected `count` of at least 0 or None, got {count}.")
        self._limit = count

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start each fit clean; a checkpoint's state comes after this hook."""
        if stage == "fit":
            self._restore()
            self._forget()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the groups, check the optimizers, and freeze: the optimizers exist, their state is not yet restored."""
        check_strategy(trainer, self, "ModelParallelStrategy")
        depth_map = self._resolve(pl_module)
        for text in depth_map.warnings:
            rank_zero_warn(text)
        self._stages = self._plan(pl_module, depth_map, end_of_run(trainer, pl_module, self.schedule.unit))
        check_optimizers(trainer.optimizers, pl_module, depth_map, self._stages)
        bn_when_open = bn_mode(pl_module, self.bn_when_open, train_bn=self.train_bn)
        self._freezer = Freezer(pl_module, depth_map, train_bn=self.train_bn, bn_when_open=bn_when_open)
        # DDP, if any, was built for these.
        self._reduced = _trainable(pl_module, depth_map)
        self._modes = {module: module.training for module in pl_module.modules()}
        # A strategy that restores later reads the optimizers' states for what trains then: the head's are in any file.
        self._open = 0 if trainer.strategy.restore_checkpoint_after_setup else self._target(trainer)
        self._freezer.apply(self._open)
        # Lightning warns of modules in eval mode just before `on_train_start`, which is where modes come into force.
        for module, mode in self._modes.items():
            module.training = mode

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the stage: the epoch and step of a resumed run, and its checkpoint, are known from here on."""
        state, self._restored = self._restored, None
        for text in describe_differences(state, self._groups, self._describe()):
            rank_zero_warn(text)
        if late := describe_unreached(self._stages, end_of_run(trainer, pl_module, self.schedule.unit)):
            rank_zero_warn(late)
        self._last_step = -1
        self._apply(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the stage of the epoch."""
        self._last_step = -1
        self._apply(trainer, pl_module)
        if self._freezer is not None:
            self._freezer.enforce()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Apply the stage of the step, but never between two halves of an accumulated step."""
        if pl_module.automatic_optimization:
            between_steps = batch_idx % trainer.accumulate_grad_batches == 0
        else:
            between_steps = trainer.global_step != self._last_step
        self._last_step = trainer.global_step
        if between_steps:
            self._apply(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:  # noqa: ANN401
        """Keep the step from what other code opened, such as PEFT's ``disable_adapter`` at its end."""
        if self._freezer is not None:
            self._freezer.enforce_gradients()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide only: Lightning puts the modes back after this hook."""
        self._metric.after_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide by a metric that is logged in training."""
        self._metric.after_epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put gradients and modes back, before the strategy converts modules back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put gradients and modes back after a failed fit, too."""
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put gradients and modes back where no training took place."""
        self._restore()

    def state_dict(self) -> dict[str, Any]:
        """Save what is not a function of epoch and step, and what a resumed run is compared with."""
        return {
            "schedule": self._describe(),
            "groups": list(self._groups),
            "limit": self._limit,
            **self._metric.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the counter of metric-driven stages."""
        self._metric.load_state_dict(state_dict)
        self._limit = state_dict["limit"]
        self._restored = state_dict

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up the optimizers' states under FSDP2; say aloud if the stage of a metric-driven schedule is missing."""
        if self._freezer is not None and trainer.strategy.restore_checkpoint_after_setup:
            self._freezer.apply(groups_with_state(trainer, checkpoint, self._freezer.depth_map))
            load_again(trainer)
        if self.monitor is not None and trainer.state.fn == "fit" and self.state_key not in checkpoint["callbacks"]:
            rank_zero_warn(
                f"The checkpoint holds no state of `{self.state_key}`: its metric-driven stages start from the first."
            )

    def _forget(self) -> None:
        """Set the state of a fit that has not begun."""
        self._metric = MetricStages(self.monitor, self.mode, self.patience)
        self._groups = ()
        self._stages = []
        self._limit = None
        self._restored = None
        self._freezer = None
        self._reduced = frozenset()
        self._open = 0
        self._applied = None
        self._modes = {}
        self._last_step = -1

    def _resolve(self, module: nn.Module) -> DepthMap:
        depth_map = resolve_depth(module, backbone=self.backbone, head=self.head, layer_groups=self.layer_groups)
        self._groups = tuple(group.name for group in depth_map.groups)
        self.schedule.check_total(self._groups)
        return depth_map

    def _position(self, trainer: Trainer) -> int:
        return trainer.current_epoch if self.schedule.unit == "epoch" else trainer.global_step

    def _target(self, trainer: Trainer) -> int:
        """Count the groups that should be open now."""
        total = len(self._groups)
        if self.monitor is None:
            count = self.schedule.open_at(self._position(trainer), total)
        elif self.schedule.kind == "lp_ft":
            count = total if self._metric.stage else 0
        else:
            count = min(self._metric.stage, total)
        return count if self._limit is None else min(count, self._limit)

    def _apply(self, trainer: Trainer, module: LightningModule) -> None:
        """Bring gradients, modes, DDP and compiled code to the present stage; cheap where nothing changes."""
        target = self._target(trainer)
        if self._freezer is None or target == self._applied:
            return
        before, self._applied = self._applied or 0, target
        reshard(module)
        self._freezer.apply(target)
        # What was frozen through a validation remembers its eval mode, so the mode at the start of the fit counts.
        self._give_modes(len(self._groups) - target, len(self._groups) - self._open)
        self._freezer.enforce()
        self._open = target
        trainable = _trainable(module, self._freezer.depth_map)
        if trainable != self._reduced:
            for parameter in module.parameters():
                if not parameter.requires_grad and id(parameter) in self._reduced:
                    # A gradient left over would be stepped with.
                    parameter.grad = None
            self._reduced = trainable
            rewrap_ddp(trainer, module)
            refresh_shards(module)
            reset_compiled_code()
        when = f"{self.schedule.unit} {self._position(trainer)}"
        if module.automatic_optimization and not any(value.requires_grad for value in module.parameters()):
            raise MisconfigurationException(
                f"Nothing is trainable at {when}: {target} of {len(self._groups)} groups are "
                "open and the module has no head that trains. Add a head, or open a group: `schedule={0: 1}`."
            )
        if self.verbose:
            text = describe_change(module, self._groups, before, target)
            rank_zero_info(f"BackboneFreezeUnfreeze: {when}: {text}")

    def _give_modes(self, first: int, last: int) -> None:
        """Give the modules of a range of groups the mode that they had when the fit began."""
        if self._freezer is None:
            return
        depth_map = self._freezer.depth_map
        for group in depth_map.groups[first:last]:
            for _, module in depth_map.named_modules(self._freezer.root, group):
                module.training = self._modes.get(module, module.training)

    def _restore(self) -> None:
        if self._freezer is not None:
            reshard(self._freezer.root)
            self._freezer.restore()
            self._give_modes(0, len(self._groups))
            self._freezer = None
            self._applied = None
            self._modes = {}
            reset_compiled_code()

    def _plan(self, module: nn.Module, depth_map: DepthMap, end: int | None) -> list[Stage]:
        schedule, total = self.schedule, len(depth_map.groups)
        changes: list[tuple[int | None, int]]
        if self.monitor is None:
            changes = [(position, schedule.open_at(position, total)) for position in schedule.changes(total)]
        elif schedule.kind == "lp_ft":
            changes = [(0, 0), (None, total)]
        else:
            changes = [(0, 0), *((None, count) for count in range(1, total + 1))]
        return build_plan(module, depth_map, changes, unit=schedule.unit, train_bn=self.train_bn, end=end)

    def _describe(self) -> str:
        if self.monitor is None:
            return self.schedule.describe()
        return f"{self.schedule.kind}(monitor={self.monitor!r}, mode={self.mode!r}, patience={self.patience})"


def _trainable(module: nn.Module, depth_map: DepthMap) -> frozenset[int]:
    """Collect the identities of the backbone's parameters that take gradients."""
    return frozenset(
        id(parameter)
        for group in depth_map.groups
        for _, parameter in depth_map.named_parameters(module, group)
        if parameter.requires_grad
    )
