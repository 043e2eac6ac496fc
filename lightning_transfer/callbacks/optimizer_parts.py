"""The parts that a group of an optimizer is split into, and how their options follow from the group's."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["OWN_KEYS", "RATE_KEYS", "TRACKED_KEYS", "Part", "changed", "copied", "same", "write"]

RATE_KEYS = ("lr", "initial_lr", "max_lr", "min_lr")
TRACKED_KEYS = ("lr", "weight_decay")
OWN_KEYS = ("params", "param_names", "name")


@dataclass
class Part:
    """One real group: which of the user's groups it comes from, and the positions of its parameters there.

    ``ramp`` is a further factor of the rate alone; it rises to 1 after the part has opened.
    """

    owner: int
    name: str
    factor: float
    decays: bool
    places: tuple[int, ...]
    ramp: float = 1.0

    def scale(self, key: str) -> float | None:
        """Return what multiplies the user's option in this part; None if it is copied as it is."""
        if key == "lr":
            return self.factor * self.ramp
        if key in RATE_KEYS:
            return self.factor
        if key == "weight_decay":
            return 1.0 if self.decays else 0.0
        return None

    def option(self, key: str, value: Any) -> Any:  # noqa: ANN401 - options have any type
        """Turn the user's option into this part's."""
        scale = self.scale(key)
        if scale is None or not isinstance(value, int | float | Tensor):
            return deepcopy(value)
        return value * scale


def copied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Copy options, less the parameters; tensors too, since whoever changes them may do it in place."""
    found = {key: value.clone() if isinstance(value, Tensor) else value for key, value in options.items()}
    del found["params"]
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the options that are not what they were."""
    return [
        key
        for key, value in after.items()
        # By identity first: most options are the same object, and this runs in each step.
        if key not in OWN_KEYS and (key not in before or (before[key] is not value and not same(before[key], value)))
    ]


def same(left: Any, right: Any) -> bool:  # noqa: ANN401
    """Compare two options of any type, a number with a tensor that holds it too."""
    if left is right or type(left) is type(right) is float:
        return left is right or bool(left == right)
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        both = isinstance(left, int | float | Tensor) and isinstance(right, int | float | Tensor)
        return both and bool(left == right)
    return bool(left == right)


def write(group: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401
    """Set an option; a tensor is filled, since a captured graph may hold it."""
    old = group.get(key)
    if isinstance(old, Tensor):
        old.fill_(float(value))
    else:
        group[key] = value
