"""Which layer groups are open when: the plain arithmetic behind `BackboneFreezeUnfreeze`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning_transfer.errors import closest

__all__ = ["SCHEDULES", "Schedule", "Stage", "Unit"]

Unit = Literal["epoch", "step"]

SCHEDULES = ("feature_extraction", "lp_ft", "partial", "gradual", "full")


@dataclass(frozen=True)
class Stage:
    """One stage of a schedule, as data, before any training.

    Attributes:
        epoch: First epoch of the stage; None where the schedule counts steps or waits for a metric.
        opened: Groups that open here, nearest the head first; empty when a stage only closes groups.
        open_groups: All backbone groups that are open in this stage, from stem to top.
        trainable_parameters: Trainable parameters of the whole module in this stage, head included.
        share: ``trainable_parameters`` over all parameters of the module, in ``[0, 1]``.
        reached: False when the stage begins at or after the end of the run, so that it never takes place.
        step: First optimizer step of the stage, counted from 0; None where the schedule counts epochs.
    """

    epoch: int | None
    opened: tuple[str, ...]
    open_groups: tuple[str, ...]
    trainable_parameters: int
    share: float
    reached: bool = True
    step: int | None = None

    @property
    def begins(self) -> str:
        """Say when the stage begins, for messages.

        Example:
            >>> Stage(3, (), (), 1, 1.0).begins, Stage(None, (), (), 1, 1.0).begins
            ('at epoch 3', 'when the metric stalls')
        """
        if self.step is not None:
            return f"at step {self.step}"
        return "when the metric stalls" if self.epoch is None else f"at epoch {self.epoch}"


@dataclass(frozen=True)
class Schedule:
    """A checked schedule: a pure function from the epoch, or the optimizer step, to the number of open groups.

    Attributes:
        kind: A name of ``SCHEDULES``, or the mapping ``{epoch or step: number of open groups or "all"}``.
        unfreeze_at_epoch: First epoch at which ``lp_ft`` and ``gradual`` open anything.
        epochs_per_group: Epochs between two openings of ``gradual``.
        num_open_groups: Groups that ``partial`` leaves open.
        unit: What the keys of the mapping count. The names count in epochs.

    Raises:
        ValueError: If an attribute is out of range, or ``unit="step"`` is used with anything but a mapping.

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
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        for name, smallest in (("unfreeze_at_epoch", 0), ("epochs_per_group", 1), ("num_open_groups", 0)):
            value = getattr(self, name)
            if not _is_count(value) or value < smallest:
                raise ValueError(f"Expected `{name}` to be an integer of at least {smallest}, got {value!r}.")
        if isinstance(self.kind, Mapping):
            object.__setattr__(self, "kind", _checked_mapping(self.kind, self.unit))
        elif not isinstance(self.kind, str) or self.kind not in SCHEDULES:
            raise ValueError(
                f"Unknown `schedule` {self.kind!r}.{closest(str(self.kind), SCHEDULES)} "
                f"Use one of {', '.join(SCHEDULES)}, or a mapping such as {{0: 0, 2: 1, 4: 'all'}}."
            )
        self._check_unit()

    def open_at(self, position: int, total: int) -> int:
        """Count the backbone groups that are open at a moment, from the head side.

        Args:
            position: Zero-based epoch, or optimizer steps taken so far, as ``unit`` says.
            total: Number of backbone groups.
        """
        if isinstance(self.kind, Mapping):
            reached = [key for key in self.kind if key <= position]
            return _count(self.kind[max(reached)], total) if reached else 0
        if self.kind == "full":
            return total
        if self.kind == "partial":
            return min(self.num_open_groups, total)
        if self.kind == "feature_extraction" or position < self.unfreeze_at_epoch:
            return 0
        if self.kind == "lp_ft":
            return total
        return min(1 + (position - self.unfreeze_at_epoch) // self.epochs_per_group, total)

    def changes(self, total: int) -> list[int]:
        """List the epochs, or steps, at which the number of open groups changes, 0 included."""
        if isinstance(self.kind, Mapping):
            candidates = sorted({0, *self.kind})
        elif self.kind == "gradual":
            candidates = [0, *(self.unfreeze_at_epoch + step * self.epochs_per_group for step in range(total))]
        else:
            candidates = [0, self.unfreeze_at_epoch]
        counts = [(position, self.open_at(position, total)) for position in sorted(set(candidates))]
        return [
            position for place, (position, count) in enumerate(counts) if place == 0 or count != counts[place - 1][1]
        ]

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
            text = "{" + ", ".join(f"{key}: {value}" for key, value in self.kind.items()) + "}"
            return text if self.unit == "epoch" else f"{text} by step"
        options = {
            "lp_ft": f"unfreeze_at_epoch={self.unfreeze_at_epoch}",
            "gradual": f"unfreeze_at_epoch={self.unfreeze_at_epoch}, epochs_per_group={self.epochs_per_group}",
            "partial": f"num_open_groups={self.num_open_groups}",
        }
        return f"{self.kind}({options.get(self.kind, '')})"

    def _check_unit(self) -> None:
        if self.unit not in ("epoch", "step"):
            raise ValueError(f"Expected `unit` to be 'epoch' or 'step', got {self.unit!r}.")
        if self.unit == "epoch":
            return
        if not isinstance(self.kind, Mapping):
            raise ValueError(
                f"The schedule {self.kind!r} counts in epochs. With `unit='step'` give a mapping from optimizer steps "
                "to open groups, such as {0: 0, 200: 1, 400: 'all'}."
            )
        for name in ("unfreeze_at_epoch", "epochs_per_group"):
            if getattr(self, name) != 1:
                raise ValueError(
                    f"`{name}={getattr(self, name)}` counts in epochs and has no say with `unit='step'`. Leave it out "
                    "and write the steps into `schedule`."
                )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(value: int | str, total: int) -> int:
    return total if isinstance(value, str) else min(value, total)


def _checked_mapping(kind: Mapping[Any, Any], unit: str) -> dict[int, int | str]:
    """Check keys and values; YAML and JSON may bring the keys as strings of digits."""
    checked: dict[int, int | str] = {}
    for key, value in kind.items():
        position = int(key) if isinstance(key, str) and key.isdigit() else key
        if not _is_count(position) or position < 0:
            raise ValueError(f"Expected the keys of `schedule` to be {unit}s (integers from 0), got {key!r}.")
        count = int(value) if isinstance(value, str) and value.isdigit() else value
        if count != "all" and (not _is_count(count) or count < 0):
            raise ValueError(
                f"Expected the values of `schedule` to be a number of open groups or 'all', got {value!r} at {unit} "
                f"{key}."
            )
        checked[position] = count
    if not checked:
        raise ValueError(
            f"Expected `schedule` to name at least one {unit}, got {{}}. Use 'feature_extraction' instead."
        )
    return dict(sorted(checked.items()))
