"""Each contestant's callbacks for one and the same wish: the head first, the backbone from an epoch on."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

__all__ = ["BARE", "CONTESTANTS", "Contestant", "Settings", "constant"]


@dataclass(frozen=True)
class Settings:
    """What is asked of every contestant.

    Attributes:
        folder: Where checkpoints and schedules may be written.
        epochs: The Trainer's ``max_epochs``.
        open_at: Epoch at which the whole backbone opens; None: it stays frozen.
        rate: The user's learning rate, which is the head's.
        ratio: Rate of the opened backbone over the head's.
        checkpoint: Write a checkpoint after each epoch.
        own_callbacks: The user has an EarlyStopping and a ModelCheckpoint of their own.
        gradual: The three blocks open one after the other, an epoch apart, from the top. BackboneFinetuning has no
            argument for it.
    """

    folder: Path
    epochs: int
    open_at: int | None
    rate: float = 0.1
    ratio: float = 0.1
    checkpoint: bool = False
    own_callbacks: bool = False
    gradual: bool = False


Spec = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Contestant:
    """A name in the table, and how to make its callbacks.

    Attributes:
        name: In the table and on the command line.
        package: That must be installed.
        override: The documented argument that lets it try what it refuses; empty if it has none.
        options: Further arguments of its main callback.
    """

    name: str
    package: str
    override: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def specs(self, wish: Settings) -> list[Spec]:
        """Return the callbacks as class paths and arguments, for Python and LightningCLI alike."""
        specs = {"BF": _backbone_finetuning, "FTS": _finetuning_scheduler, "ours": _ours}.get(self.name, _nothing)(wish)
        if specs and self.options:
            specs[0] = (specs[0][0], {**specs[0][1], **self.options})
        return specs

    def callbacks(self, wish: Settings) -> list[Callback]:
        """Make the callbacks."""
        return [_load(path)(**arguments) for path, arguments in self.specs(wish)]

    def config(self, wish: Settings) -> list[dict[str, Any]]:
        """Return the callbacks as LightningCLI reads them."""
        return [{"class_path": path, "init_args": _plain(arguments)} for path, arguments in self.specs(wish)]

    def with_options(self, **options: Any) -> Contestant:  # noqa: ANN401 - of any callback
        """Return the same contestant with further arguments for its main callback."""
        return replace(self, options={**self.options, **options})

    def overridden(self) -> Contestant:
        """Return the same contestant, told to try what it refuses."""
        name, _, value = self.override.partition("=")
        return replace(self.with_options(**{name: value == "True"}), override="")


def constant(epoch: int) -> float:
    """Keep the backbone's rate as it is from epoch to epoch."""
    return 1.0


def _backbone_finetuning(wish: Settings) -> list[Spec]:
    never = wish.epochs + 1000
    arguments = {
        "unfreeze_backbone_at_epoch": never if wish.open_at is None else wish.open_at,
        "lambda_func": constant,
        "backbone_initial_ratio_lr": wish.ratio,
        "should_align": False,
        "train_bn": False,
    }
    return [("lightning.pytorch.callbacks.BackboneFinetuning", arguments), *_checkpoint(wish)]


def _finetuning_scheduler(wish: Settings) -> list[Spec]:
    first = {"params": ["head.*"], "max_transition_epoch": wish.epochs if wish.open_at is None else wish.open_at}
    schedule: dict[int, dict[str, Any]] = {0: first}
    if wish.open_at is not None:
        regexes = [f"backbone.blocks.{index}.*" for index in (2, 1, 0)] if wish.gradual else ["backbone.*"]
        for place, regex in enumerate(regexes, start=1):
            until = wish.open_at + place if place < len(regexes) else max(wish.epochs, wish.open_at + place)
            schedule[place] = {"params": [regex], "lr": wish.rate * wish.ratio, "max_transition_epoch": until}
        if wish.own_callbacks:
            del schedule[len(regexes)]["max_transition_epoch"]
    arguments = {
        "ft_schedule": schedule,
        "epoch_transitions_only": not wish.own_callbacks,
        "restore_best": False,
        "apply_lambdas_new_pgs": True,
        "frozen_bn_track_running_stats": False,
        "log_dir": str(wish.folder),
    }
    specs: list[Spec] = [("finetuning_scheduler.FinetuningScheduler", arguments)]
    if not wish.own_callbacks:
        path = "finetuning_scheduler.FTSCheckpoint"
        specs.append((path, {**_saving(wish), "monitor": "val_loss"}))
    return specs


def _ours(wish: Settings) -> list[Spec]:
    schedule: Any = "feature_extraction"
    if wish.open_at is not None:
        schedule = {wish.open_at + index: index + 1 for index in range(3)} if wish.gradual else {wish.open_at: "all"}
    freeze = {"schedule": schedule, "backbone": "backbone", "verbose": False}
    return [
        ("lightning_transfer.callbacks.BackboneFreezeUnfreeze", freeze),
        ("lightning_transfer.callbacks.DiscriminativeLR", {"total_ratio": wish.ratio, "backbone": "backbone"}),
        *_checkpoint(wish),
    ]


def _nothing(wish: Settings) -> list[Spec]:
    return _checkpoint(wish)


def _checkpoint(wish: Settings) -> list[Spec]:
    return [("lightning.pytorch.callbacks.ModelCheckpoint", _saving(wish))] if wish.checkpoint else []


def _saving(wish: Settings) -> dict[str, Any]:
    return {
        "dirpath": str(wish.folder),
        "filename": "{epoch}",
        "save_top_k": -1,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }


def _load(path: str) -> Any:  # noqa: ANN401 - any class
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value.__module__}.{value.__name__}" if callable(value) else value for name, value in arguments.items()
    }


BARE = Contestant("bare", "lightning")
CONTESTANTS = (
    Contestant("BF", "lightning"),
    Contestant("FTS", "finetuning-scheduler", override="allow_untested=True"),
    Contestant("ours", "lightning-transfer"),
)
