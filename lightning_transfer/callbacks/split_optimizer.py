"""An optimizer whose groups are split by layer, while all who drive or save it still see the user's own groups."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_transfer.callbacks.optimizer_parts import (
    OWN_KEYS,
    RATE_KEYS,
    TRACKED_KEYS,
    Part,
    changed,
    copied,
    same,
    write,
)
from lightning_transfer.callbacks.rewarm import Rewarm
from lightning_transfer.depth import DepthMap, split_param_groups

__all__ = ["SplitOptimizer"]

# Options of single parts that differ from the user's group times the factor, in a saved state.
_EXTRA_KEY = "lightning_transfer_parts"


class SplitOptimizer:
    """Splits the groups of an optimizer by layer, in place, and keeps the user's groups as the ones that are driven.

    The optimizer steps with the real groups, one for each layer of each of the user's groups. Whoever runs inside
    `users_view` (the schedulers) sees the user's groups instead; what they change is carried over to the real
    groups, rates times the factor. ``state_dict`` and ``load_state_dict`` speak the user's form too, so a checkpoint
    does not depend on the split. A rate that somebody else writes into the real groups is understood before the
    next step: the same value everywhere, or the same multiple everywhere, is a new rate of the user's group.

    Args:
        optimizer: Changed in place until `restore`.
        root: The module that ``depth_map`` describes.
        depth_map: Its fine ``layers`` become the groups.
        scales: Factor of each parameter of the root, by name; other parameters keep the user's rate.
        no_decay_norm_and_bias: Biases and normalisation weights get groups without weight decay.
        rewarm_steps: Optimizer steps in which the rate of a group that opens later rises to its full value; see
            `Rewarm`. 0 or 1: none.

    Example:
        >>> import torch
        >>> from lightning_transfer.depth import layer_decay_scales, resolve_depth
        >>> net = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)})
        >>> depth_map = resolve_depth(net, backbone="backbone")
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> split = SplitOptimizer(optimizer, net, depth_map, layer_decay_scales(depth_map, layer_decay=0.5))
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.05, 0.1]
        >>> len(optimizer.state_dict()["param_groups"])
        1
        >>> split.restore()
        >>> len(optimizer.param_groups)
        1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        root: nn.Module,
        depth_map: DepthMap,
        scales: Mapping[str, float],
        *,
        no_decay_norm_and_bias: bool = False,
        rewarm_steps: int = 0,
    ) -> None:
        self.optimizer = optimizer
        self.users: list[dict[str, Any]] = list(optimizer.param_groups)
        decays = [group.get("weight_decay") for group in self.users]
        for group in self.users:
            if "weight_decay" in group:
                # So that a part without decay is told from one of a group that has none at the moment.
                group["weight_decay"] = 1.0
        splits = split_param_groups(optimizer, root, depth_map, scales, no_decay_norm_and_bias=no_decay_norm_and_bias)
        for group, decay in zip(self.users, decays, strict=True):
            if "weight_decay" in group:
                group["weight_decay"] = decay
        self.parts = [
            Part(
                split.source,
                split.name,
                split.scale,
                group.get("weight_decay") != 0.0,
                _places(group, self.users[split.source]),
            )
            for split, group in zip(splits, optimizer.param_groups, strict=True)
        ]
        self._scales = self._scale_table()
        self._driven: list[tuple[Any, type]] = []
        self._inside = False
        for part, group in zip(self.parts, optimizer.param_groups, strict=True):
            user = self.users[part.owner]
            group.update({key: part.option(key, user[key]) for key in user if key not in OWN_KEYS})
        self._handles: list[RemovableHandle] = [
            optimizer.register_state_dict_post_hook(self._merge_state),
            optimizer.register_load_state_dict_pre_hook(self._split_state),
            optimizer.register_step_pre_hook(lambda *_: self._before_step()),
        ]
        self._rewarm: Rewarm | None = None
        if rewarm_steps > 1:
            members = {
                part.name: group["params"] for part, group in zip(self.parts, optimizer.param_groups, strict=True)
            }
            self._rewarm = Rewarm(members, rewarm_steps)
            self._handles.append(optimizer.register_step_post_hook(lambda *_: self._after_step()))

    @property
    def schedulers(self) -> list[Any]:
        """The schedulers that drive the user's groups."""
        return [scheduler for scheduler, _ in self._driven]

    def restore(self) -> None:
        """Give the optimizer its own groups back, and the schedulers their classes."""
        self.adopt()
        for group, first in zip(self.users, self._first_groups(), strict=True):
            group.update({key: value for key, value in first.items() if self._is_state(key)})
        self.optimizer.param_groups[:] = [*self.users, *self._later_groups()]
        for handle in self._handles:
            handle.remove()
        for scheduler, original in self._driven:
            scheduler.__class__ = original
        self._handles, self._driven = [], []

    def drive(self, scheduler: Any) -> None:  # noqa: ANN401 - any object with `step` and `optimizer`
        """Let a scheduler go on driving the user's groups.

        Its class is replaced by a subclass of the same name: an attribute of the instance would land in the
        scheduler's ``state_dict``, and a wrapper around it would be another object than the one the user holds.
        """
        original = type(scheduler)
        if any(scheduler is known for known, _ in self._driven):
            return
        names = [name for name in dir(original) if name in ("step", "load_state_dict") or name.startswith("step_")]
        methods = {name: _in_users_view(getattr(original, name), self) for name in names}
        body = {**methods, "__module__": original.__module__, "__qualname__": original.__qualname__}
        scheduler.__class__ = type(original.__name__, (original,), body)
        self._driven.append((scheduler, original))

    @contextmanager
    def users_view(self) -> Iterator[None]:
        """Show the user's groups; afterwards carry over to the real groups what was changed in them."""
        if self._inside:
            yield
            return
        self.adopt()
        real = list(self.optimizer.param_groups)
        before = [copied(group) for group in self.users]
        self.optimizer.param_groups[:] = [*self.users, *self._later_groups()]
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
            for user, shown in zip(self.users, self.optimizer.param_groups, strict=False):
                if shown is not user:
                    # Whoever loads a state puts new dictionaries in their place.
                    user.update({key: value for key, value in shown.items() if key != "params"})
            self.optimizer.param_groups[:] = real
            keys = [changed(old, user) for old, user in zip(before, self.users, strict=True)]
            for part, group in zip(self.parts, real, strict=False):
                for key in keys[part.owner]:
                    write(group, key, part.option(key, self.users[part.owner][key]))

    @contextmanager
    def unsplit(self) -> Iterator[None]:
        """Show the user's groups to code that saves or loads the optimizer's state past ``state_dict``."""
        for group, first in zip(self.users, self._first_groups(), strict=True):
            group.update({key: value for key, value in first.items() if self._is_state(key)})
        with self.users_view():
            yield

    def adopt(self) -> None:
        """Take a rate or decay that somebody wrote into the real groups as the new one of the user's group."""
        if self._inside:
            return
        for owner, user in enumerate(self.users):
            for key in TRACKED_KEYS:
                if key in user:
                    self._adopt_option(owner, user, key)

    def rewarm_state(self) -> dict[str, Any]:
        """Return where the ramps of layers that opened stand; empty without ``rewarm_steps``."""
        return {} if self._rewarm is None else self._rewarm.state_dict()

    def load_rewarm_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the ramps of a saved state."""
        if self._rewarm is not None:
            self.adopt()
            self._rewarm.load_state_dict(state)
            self._follow_ramps()

    def _before_step(self) -> None:
        self.adopt()
        if self._rewarm is not None and not self._inside:
            self._rewarm.before_step()
            self._follow_ramps()

    def _after_step(self) -> None:
        if self._rewarm is not None and not self._inside:
            # What was written during the step was meant for the ramps of that step.
            self.adopt()
            self._rewarm.after_step()
            self._follow_ramps()

    def _follow_ramps(self) -> None:
        """Give the parts the present height of their ramps; rates that were set one by one are left alone."""
        changed = False
        for part, group in zip(self.parts, self.optimizer.param_groups, strict=False):
            ramp = 1.0 if self._rewarm is None else self._rewarm.scale(part.name)
            if ramp != part.ramp:
                user = self.users[part.owner]["lr"]
                follows = same(group["lr"], part.option("lr", user))
                part.ramp, changed = ramp, True
                if follows:
                    write(group, "lr", part.option("lr", user))
        if changed:
            self._scales = self._scale_table()

    def _scale_table(self) -> dict[str, list[list[tuple[int, float]]]]:
        """Return, for each tracked option and each of the user's groups, positions of the real groups and scales."""
        return {
            key: [
                [(place, part.scale(key) or 0.0) for place, part in enumerate(self.parts) if part.owner == owner]
                for owner in range(len(self.users))
            ]
            for key in TRACKED_KEYS
        }

    def _adopt_option(self, owner: int, user: dict[str, Any], key: str) -> None:
        groups, value = self.optimizer.param_groups, user[key]
        if all(same(groups[place][key], value * scale) for place, scale in self._scales[key][owner]):
            return
        members = [(groups[place], self.parts[place]) for place, _ in self._scales[key][owner]]
        scaled = [(float(group[key]), part.scale(key) or 0.0) for group, part in members]
        values = [value for value, scale in scaled if scale > 0]
        bases = [value / scale for value, scale in scaled if scale > 0]
        if bases and all(math.isclose(base, bases[0], rel_tol=1e-9) for base in bases):
            write(user, key, bases[0])
        elif values and all(value == values[0] for value in values):
            write(user, key, values[0])
        elif values:
            # Each part was set on its own: that is left alone. Only the promise of no decay is kept.
            members = [(group, part) for group, part in members if part.scale(key) == 0.0]
        for group, part in members:
            write(group, key, part.option(key, user[key]))

    def _first_groups(self) -> list[dict[str, Any]]:
        """Return, for each of the user's groups, the first real one; options that an optimizer counts up are there."""
        owners = [part.owner for part in self.parts]
        return [self.optimizer.param_groups[owners.index(owner)] for owner in range(len(self.users))]

    def _later_groups(self) -> list[dict[str, Any]]:
        """Return groups that somebody added after the split."""
        return list(self.optimizer.param_groups[len(self.parts) :])

    @staticmethod
    def _is_state(key: str) -> bool:
        return key not in OWN_KEYS and key not in RATE_KEYS and key != "weight_decay"

    def _merge_state(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
        """Put a saved state into the user's form."""
        if self._inside:
            return None
        self.adopt()
        packed = state["param_groups"]
        starts = [sum(len(group["params"]) for group in self.users[:owner]) for owner in range(len(self.users))]
        renumbered: dict[Any, int] = {}
        for part, group in zip(self.parts, packed, strict=False):
            for index, place in zip(group["params"], part.places, strict=True):
                renumbered[index] = starts[part.owner] + place
        merged = []
        owners = [part.owner for part in self.parts]
        for owner, user in enumerate(self.users):
            first = packed[owners.index(owner)]
            group = {key: value for key, value in user.items() if key != "params"}
            group.update({key: value for key, value in first.items() if self._is_state(key)})
            extra = {}
            for part, real in zip(self.parts, packed, strict=False):
                if part.owner == owner and (own := _differing(part, real, group)):
                    extra[part.name] = own
            if extra:
                group[_EXTRA_KEY] = extra
            group["params"] = list(range(starts[owner], starts[owner] + len(user["params"])))
            merged.append(group)
        for group in packed[len(self.parts) :]:
            merged.append(dict(group))
        values = {renumbered.get(index, index): value for index, value in state["state"].items()}
        return {**state, "state": values, "param_groups": merged}

    def _split_state(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
        """Take a state in the user's form apart, so that it fits the real groups."""
        saved = state["param_groups"]
        sizes = [len(group["params"]) for group in [*self.users, *self._later_groups()]]
        if self._inside or [len(group["params"]) for group in saved] != sizes:
            return None
        groups = []
        for user, group in zip(self.users, saved, strict=False):
            for key, value in group.items():
                if key not in OWN_KEYS and key != _EXTRA_KEY:
                    write(user, key, (value.clone() if isinstance(value, Tensor) else value))
        for part in self.parts:
            group = saved[part.owner]
            own = {
                key: part.option(key, value)
                for key, value in group.items()
                if key not in OWN_KEYS and key != _EXTRA_KEY
            }
            own.update(group.get(_EXTRA_KEY, {}).get(part.name, {}))
            for key in ("params", "param_names"):
                if key in group:
                    own[key] = [group[key][place] for place in part.places]
            own["name"] = part.name
            groups.append(own)
        return {**state, "param_groups": [*groups, *saved[len(self.users) :]]}


def _places(part: Mapping[str, Any], user: Mapping[str, Any]) -> tuple[int, ...]:
    """Find the positions of a part's parameters in the user's group, by identity."""
    positions = {id(parameter): place for place, parameter in enumerate(user["params"])}
    return tuple(positions[id(parameter)] for parameter in part["params"])


def _differing(part: Part, real: Mapping[str, Any], merged: Mapping[str, Any]) -> dict[str, Any]:
    """Find the options of a part that do not follow from the user's group."""
    return {
        key: value
        for key, value in real.items()
        if key not in OWN_KEYS and (key not in merged or not same(value, part.option(key, merged[key])))
    }


def _in_users_view(method: Callable[..., Any], split: SplitOptimizer) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the scheduler's own signature
        with split.users_view():
            return method(*args, **kwargs)

    return run
