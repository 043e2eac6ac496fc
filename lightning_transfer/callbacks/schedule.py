"""Which layer groups are open at which epoch: the plain arithmetic behind `BackboneFreezeUnfreeze`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_transfer.errors import closest

__all__ = ["SCHEDULES", "Schedule", "Stage", "StallCounter"]

SCHEDULES = ("feature_extraction", "lp_ft", "partial", "gradual", "full")


@dataclass(frozen=True)
class Stage:
    """One stage of a schedule, as data, before any training.

    Attributes:
        epoch: First epoch of the stage; None for a stage that begins when the monitored metric stalls.
        opened: Groups that open here, nearest the head first; empty when a stage only closes groups.
        open_groups: All backbone groups that are open in this stage, from stem to top.
        trainable_parameters: Trainable parameters of the whole module in this stage, head included.
        share: ``trainable_parameters`` over all parameters of the module, in ``[0, 1]``.
        reached: False when the stage begins at or after ``max_epochs``, so that it never takes place.
    """

    epoch: int | None
    opened: tuple[str, ...]
    open_groups: tuple[str, ...]
    trainable_parameters: int
    share: float
    reached: bool = True


@dataclass(frozen=True)
class Schedule:
    """A checked schedule: a pure function from the epoch to the number of open groups.

    Attributes:
        kind: A name of ``SCHEDULES``, or the mapping ``{epoch: number of open groups or "all"}``.
        unfreeze_at_epoch: First epoch at which ``lp_ft`` and ``gradual`` open anything.
        epochs_per_group: Epochs between two openings of ``gradual``.
        num_open_groups: Groups that ``partial`` leaves open.

    Example:
        >>> schedule = Schedule("gradual", unfreeze_at_epoch=1, epochs_per_group=2)
        >>> [schedule.open_at(epoch, total=3) for epoch in range(7)]
        [0, 1, 1, 2, 2, 3, 3]
        >>> [Schedule({0: 1, 3: "all"}).open_at(epoch, total=5) for epoch in (0, 2, 3)]
        [1, 1, 5]
    """

    kind: str | Mapping[int, int | str]
    unfreeze_at_epoch: int = 1
    epochs_per_group: int = 1
    num_open_groups: int = 2

    def __post_init__(self) -> None:
        for name, smallest in (("unfreeze_at_epoch", 0), ("epochs_per_group", 1), ("num_open_groups", 0)):
            value = getattr(self, name)
            if not _is_count(value) or value < smallest:
                raise ValueError(f"Expected `{name}` to be an integer of at least {smallest}, got {value!r}.")
        if isinstance(self.kind, Mapping):
            object.__setattr__(self, "kind", _checked_mapping(self.kind))
        elif not isinstance(self.kind, str) or self.kind not in SCHEDULES:
            raise ValueError(
                f"Unknown `schedule` {self.kind!r}.{closest(str(self.kind), SCHEDULES)} "
                f"Use one of {', '.join(SCHEDULES)}, or a mapping such as {{0: 0, 2: 1, 4: 'all'}}."
            )

    def open_at(self, epoch: int, total: int) -> int:
        """Count the backbone groups that are open at an epoch, from the head side.

        Args:
            epoch: Zero-based epoch.
            total: Number of backbone groups.
        """
        if isinstance(self.kind, Mapping):
            reached = [key for key in self.kind if key <= epoch]
            return _count(self.kind[max(reached)], total) if reached else 0
        if self.kind == "full":
            return total
        if self.kind == "partial":
            return min(self.num_open_groups, total)
        if self.kind == "feature_extraction" or epoch < self.unfreeze_at_epoch:
            return 0
        if self.kind == "lp_ft":
            return total
        return min(1 + (epoch - self.unfreeze_at_epoch) // self.epochs_per_group, total)

    def changes(self, total: int) -> list[int]:
        """List the epochs at which the number of open groups changes, 0 included."""
        if isinstance(self.kind, Mapping):
            candidates = sorted({0, *self.kind})
        elif self.kind == "gradual":
            candidates = [0, *(self.unfreeze_at_epoch + step * self.epochs_per_group for step in range(total))]
        else:
            candidates = [0, self.unfreeze_at_epoch]
        counts = [(epoch, self.open_at(epoch, total)) for epoch in sorted(set(candidates))]
        return [epoch for place, (epoch, count) in enumerate(counts) if place == 0 or count != counts[place - 1][1]]

    def check_total(self, names: tuple[str, ...]) -> None:
        """Refuse a count of open groups that the backbone does not have.

        Raises:
            ValueError: If the schedule asks for more groups than ``names`` holds.
        """
        wanted: list[int] = []
        if isinstance(self.kind, Mapping):
            wanted = [value for value in self.kind.values() if isinstance(value, int)]
        elif self.kind == "partial":
            wanted = [self.num_open_groups]
        too_many = [value for value in wanted if value > len(names)]
        if too_many:
            raise ValueError(
                f"The schedule opens {too_many[0]} groups, but the backbone has {len(names)}: {', '.join(names)}. "
                "The head is always open and not counted. Use 'all' to open everything."
            )

    def describe(self) -> str:
        """Put the schedule into one line, for logs and for the comparison with a checkpoint."""
        if isinstance(self.kind, Mapping):
            return "{" + ", ".join(f"{key}: {value}" for key, value in self.kind.items()) + "}"
        options = {
            "lp_ft": f"unfreeze_at_epoch={self.unfreeze_at_epoch}",
            "gradual": f"unfreeze_at_epoch={self.unfreeze_at_epoch}, epochs_per_group={self.epochs_per_group}",
            "partial": f"num_open_groups={self.num_open_groups}",
        }
        return f"{self.kind}({options.get(self.kind, '')})"


@dataclass
class StallCounter:
    """Counts checks in which a metric failed to improve; a stall opens the next stage.

    Attributes:
        mode: ``min`` if smaller is better, else ``max``.
        patience: Checks without improvement that make a stall.
        best: Best value seen so far; None before the first finite one.
        waited: Checks since the best value or since the last stall.
        stage: Stalls so far.

    Example:
        >>> counter = StallCounter(mode="min", patience=2)
        >>> [counter.update(value) for value in (1.0, 0.9, 0.95, 0.91, 0.92)]
        [False, False, False, True, False]
    """

    mode: Literal["min", "max"] = "min"
    patience: int = 2
    best: float | None = None
    waited: int = 0
    stage: int = field(default=0)

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f"Expected `mode` to be 'min' or 'max', got {self.mode!r}.")
        if not _is_count(self.patience) or self.patience < 1:
            raise ValueError(f"Expected `patience` to be an integer of at least 1, got {self.patience!r}.")

    def update(self, value: float) -> bool:
        """Take in the next value; True when it completes a stall."""
        finite = math.isfinite(value)
        if finite and (self.best is None or (value < self.best if self.mode == "min" else value > self.best)):
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        self.waited = 0
        self.stage += 1
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must remember."""
        return {"best": self.best, "waited": self.waited, "stage": self.stage}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of `state_dict`."""
        self.best, self.waited, self.stage = state["best"], state["waited"], state["stage"]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(value: int | str, total: int) -> int:
    return total if isinstance(value, str) else min(value, total)


def _checked_mapping(kind: Mapping[Any, Any]) -> dict[int, int | str]:
    """Check keys and values; YAML and JSON may bring epochs as strings of digits."""
    checked: dict[int, int | str] = {}
    for key, value in kind.items():
        epoch = int(key) if isinstance(key, str) and key.isdigit() else key
        if not _is_count(epoch) or epoch < 0:
            raise ValueError(f"Expected the keys of `schedule` to be epochs (integers from 0), got {key!r}.")
        count = int(value) if isinstance(value, str) and value.isdigit() else value
        if count != "all" and (not _is_count(count) or count < 0):
            raise ValueError(
                f"Expected the values of `schedule` to be a number of open groups or 'all', got {value!r} at epoch "
                f"{key}."
            )
        checked[epoch] = count
    if not checked:
        raise ValueError("Expected `schedule` to name at least one epoch, got {}. Use 'feature_extraction' instead.")
    return dict(sorted(checked.items()))
