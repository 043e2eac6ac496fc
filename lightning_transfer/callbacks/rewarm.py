"""Ramps of the learning rate for layers that open while a fit runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn import Parameter

__all__ = ["Rewarm"]


@dataclass
class _Ramp:
    """Where one layer stands.

    Attributes:
        parameters: All of the layer that the optimizer steps.
        waiting: Positions of those that have taken no gradient so far; None until the first step.
        taken: Optimizer steps since the layer opened; None once it has its full rate.
    """

    parameters: Sequence[Parameter]
    waiting: list[int] | None = None
    taken: int | None = None

    def note_opened(self) -> bool:
        """Tell whether parameters take gradients that never did so far; they wait no longer."""
        before = self.waiting or []
        self.waiting = [place for place in before if not self.parameters[place].requires_grad]
        return len(self.waiting) < len(before)


class Rewarm:
    """Lets the rate of a layer that opens during a fit rise linearly over its first optimizer steps.

    Openings are read off ``requires_grad``, so it does not matter who opens a layer. A layer that is closed stands at
    the foot of its ramp, so its first step is right also if it is opened in the middle of a step. What is open at the
    first step of the fit has its full rate at once. A layer that is opened in parts starts anew with each part; one
    that is closed waits where it is and goes on from there.

    Args:
        members: The parameters of each layer, by a name that is the same in a resumed run.
        steps: Optimizer steps of a ramp: the first has ``1 / steps`` of the rate, the last all of it.

    Example:
        >>> import torch
        >>> weight = Parameter(torch.zeros(1), requires_grad=False)
        >>> rewarm, seen = Rewarm({"stem": [weight]}, steps=4), []
        >>> for step in range(6):
        ...     weight.requires_grad_(step > 0)
        ...     rewarm.before_step()
        ...     seen.append(rewarm.scale("stem"))
        ...     rewarm.after_step()
        Parameter containing:
        ...
        >>> seen
        [0.25, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, members: Mapping[str, Sequence[Parameter]], steps: int) -> None:
        self.steps = steps
        self._ramps = {name: _Ramp(parameters) for name, parameters in members.items()}

    def scale(self, name: str) -> float:
        """Return what the layer's rate is multiplied by in the next optimizer step."""
        taken = self._ramps[name].taken
        return 1.0 if taken is None else min(1.0, (taken + 1) / self.steps)

    def before_step(self) -> None:
        """Find what has opened since the last step; at the first, what is open already."""
        for ramp in self._ramps.values():
            if ramp.waiting is None:
                ramp.waiting = [place for place, value in enumerate(ramp.parameters) if not value.requires_grad]
                if ramp.waiting and len(ramp.waiting) == len(ramp.parameters):
                    ramp.taken = 0
            elif ramp.note_opened():
                ramp.taken = 0

    def after_step(self) -> None:
        """Count the step for the layers that took part in it."""
        for ramp in self._ramps.values():
            if ramp.note_opened() and ramp.taken != 0:
                # Opened within the step, beside others that had passed the foot: begins with the next step.
                ramp.taken = 0
            elif ramp.taken is not None and any(value.requires_grad for value in ramp.parameters):
                ramp.taken = None if ramp.taken + 2 >= self.steps else ramp.taken + 1

    def state_dict(self) -> dict[str, Any]:
        """Return where each layer stands, as plain values; layers before their first step are left out."""
        return {
            name: {"waiting": list(ramp.waiting), "taken": ramp.taken}
            for name, ramp in self._ramps.items()
            if ramp.waiting is not None
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; layers that it does not know are seen as at a first step."""
        for name, ramp in self._ramps.items():
            saved = state.get(name, {"waiting": None, "taken": None})
            known = saved["waiting"] is not None and all(place < len(ramp.parameters) for place in saved["waiting"])
            ramp.waiting = list(saved["waiting"]) if known else None
            ramp.taken = saved["taken"] if known else None
