"""The arguments of `ForgettingMonitor`: what is allowed, and what may be combined."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.callbacks.forgetting_compare import METRICS
from lightning_transfer.callbacks.forgetting_probe import PROXIES
from lightning_transfer.errors import closest, listing

__all__ = ["ACTIONS", "check_action", "check_arguments", "check_averaging", "is_averaged"]

ACTIONS: Final = ("log", "stop", "rollback", "refreeze", "interpolate")
_AVERAGING: Final = ("WeightAveraging", "StochasticWeightAveraging")
"""Callbacks that put other weights into the module when training ends; by name, from both packages of Lightning."""
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
    monitor: str | None = None,
    mode: str = "min",
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
    if mode not in ("min", "max"):
        raise ValueError(f"Expected `mode` to be 'min' or 'max', got {mode!r}.")
    if (monitor is None) == (action == "interpolate"):
        raise ValueError(
            "on_alarm='interpolate' needs `monitor`, the logged validation metric to choose by, and only it does; got "
            f"on_alarm={action!r}, monitor={monitor!r}. Try monitor='val_loss', or monitor='val_macro_f1', mode='max'."
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
    if all(isinstance(item, str) and item in PROXIES for item in probes.values()):
        raise ValueError(
            f"on_alarm={action!r} needs source data: {listing(probes.values())} shows drift, not forgetting, and only "
            "warns. Pass a Dataset as `probe`, or on_alarm='log'."
        )


def is_averaged(trainer: Trainer, callback: Callback) -> bool:
    """Say whether a callback that comes earlier has put averaged weights into the module when training ends."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(_averages(item) for item in callbacks[: callbacks.index(callback)])


def check_averaging(trainer: Trainer, callback: Callback) -> None:
    """Refuse to interpolate what is then overwritten, and say where averaged weights are not what is seen.

    Raises:
        MisconfigurationException: If a callback that averages weights comes later than one that interpolates.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    later = [type(item).__name__ for item in callbacks[callbacks.index(callback) :] if _averages(item)]
    action = getattr(callback, "on_alarm", "log")
    if later and action == "interpolate":
        raise MisconfigurationException(
            f"`{later[0]}` comes after ForgettingMonitor in `callbacks`, and would put its average in the place of the "
            "interpolated weights. Put ForgettingMonitor after it."
        )
    if later:
        rank_zero_warn(
            f"`{later[0]}` comes after ForgettingMonitor in `callbacks`: the last reading is of the weights before the "
            "average. Put ForgettingMonitor after it."
        )
    if action == "rollback" and any(_averages(item) for item in callbacks):
        rank_zero_warn(
            "on_alarm='rollback' puts the weights that train back, and not their average, in which the steps that were "
            "undone go on to count."
        )


def _averages(callback: Callback) -> bool:
    return any(cls.__name__ in _AVERAGING for cls in type(callback).__mro__)
