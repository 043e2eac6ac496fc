"""The arguments of `ForgettingMonitor`: what is allowed, and what may be combined."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.callbacks.forgetting_reading import METRICS
from lightning_transfer.errors import closest, listing

__all__ = ["ACTIONS", "check_action", "check_arguments", "check_available"]

ACTIONS: Final = ("log", "stop", "rollback", "refreeze", "interpolate")
_NOT_YET: Final = ("refreeze", "interpolate")
_MIN_PROBE: Final = 4  # unbiased CKA is a sum over four distinct inputs


def check_arguments(metrics: Sequence[str], tolerance: Mapping[str, float], n_probe: int, confirm: int) -> None:
    """Refuse unknown metrics and numbers out of range.

    Raises:
        ValueError: With the value, and what is known.
    """
    for metric in (*metrics, *tolerance):
        if metric not in METRICS:
            raise ValueError(f"Unknown metric {metric!r}. Known: {', '.join(METRICS)}.{closest(str(metric), METRICS)}")
    if not metrics:
        raise ValueError(f"Expected at least one metric in `metrics`, got (). Known: {', '.join(METRICS)}.")
    for metric, limit in tolerance.items():
        if metric not in metrics:
            raise ValueError(f"`tolerance` names {metric!r}, which is not in metrics={tuple(metrics)}. Add it there.")
        if not 0 <= limit < math.inf:
            raise ValueError(f"Expected a tolerance of at least 0 for {metric!r}, got {limit}.")
    if n_probe < _MIN_PROBE:
        raise ValueError(f"Expected `n_probe` of at least {_MIN_PROBE}, got {n_probe}. 512 is the default.")
    if confirm < 1:
        raise ValueError(f"Expected `confirm` of at least 1, got {confirm}.")


def check_action(
    action: str | Callable[..., Any],
    tolerance: Mapping[str, float],
    max_overhead: float | None,
    probes: Mapping[str, Any],
) -> None:
    """Refuse an action that is unknown, could never come, or would depend on the machine's speed.

    Raises:
        ValueError: With the value, and what to change.
    """
    if isinstance(action, str) and action not in ACTIONS:
        raise ValueError(
            f"Unknown action on_alarm={action!r}. Known: {', '.join(ACTIONS)}, or a callable(trainer, module, report)."
            f"{closest(action, ACTIONS)}"
        )
    if action == "log":
        return
    if not tolerance:
        raise ValueError(f"on_alarm={action!r} never acts without `tolerance`. Try tolerance={{'agreement': 0.05}}.")
    if max_overhead is not None:
        raise ValueError(
            f"on_alarm={action!r} needs a fixed cadence, or the run would depend on the machine's speed, got "
            f"max_overhead={max_overhead}. Pass max_overhead=None."
        )
    if all(isinstance(item, str) for item in probes.values()):
        raise ValueError(
            f"on_alarm={action!r} needs source data: {listing(probes.values())} shows drift, not forgetting, and only "
            "warns. Pass a Dataset as `probe`, or on_alarm='log'."
        )


def check_available(action: str | Callable[..., Any]) -> None:
    """Refuse an action that this version does not have yet.

    Raises:
        MisconfigurationException: If the fit would go on without it.
    """
    if isinstance(action, str) and action in _NOT_YET:
        known = ", ".join(repr(item) for item in ACTIONS if item not in _NOT_YET)
        raise MisconfigurationException(
            f"on_alarm={action!r} is not available in this version. Use {known} or a callable(trainer, module, report)."
        )
