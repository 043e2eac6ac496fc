"""Does the opened backbone follow the user's learning rate curve?"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers

from benchmarks.correctness.contestants import BARE, Contestant, Settings
from benchmarks.correctness.outcome import Case, Row
from benchmarks.correctness.toys import STEPS, Recorder, Toy, trainer

__all__ = ["ROWS"]

EPOCHS, OPEN_AT, RATE = 6, 2, 0.1
TOTAL = EPOCHS * STEPS
TOLERANCE = 1e-9

Make = Callable[[Optimizer], Any]


class Halving(torch_schedulers.LRScheduler):
    """A scheduler of the user's own: half the rate every five steps, never below a fifth of the base."""

    def get_lr(self) -> list[float]:
        """Return the rates."""
        return [base * max(0.5 ** (self.last_epoch // 5), 0.2) for base in self.base_lrs]


def _sequential(optimizer: Optimizer) -> Any:  # noqa: ANN401
    warm = torch_schedulers.LinearLR(optimizer, 0.1, total_iters=6)
    cool = torch_schedulers.CosineAnnealingLR(optimizer, TOTAL - 6)
    return torch_schedulers.SequentialLR(optimizer, [warm, cool], milestones=[6])


def _transformers(name: str, *arguments: Any) -> Make:  # noqa: ANN401
    def make(optimizer: Optimizer) -> Any:  # noqa: ANN401
        from transformers import optimization

        return getattr(optimization, name)(optimizer, *arguments)

    return make


GROUPS: dict[str, dict[str, Make]] = {
    "schedulers-closed": {
        "LambdaLR": lambda it: torch_schedulers.LambdaLR(it, lambda step: 1 - step / (TOTAL + 1)),
        "OneCycleLR": lambda it: torch_schedulers.OneCycleLR(it, max_lr=RATE, total_steps=TOTAL),
        "CyclicLR": lambda it: torch_schedulers.CyclicLR(it, RATE / 10, RATE, step_size_up=5, cycle_momentum=False),
        "CosineAnnealingWarmRestarts": lambda it: torch_schedulers.CosineAnnealingWarmRestarts(it, T_0=5),
    },
    "schedulers-chained": {
        "CosineAnnealingLR": lambda it: torch_schedulers.CosineAnnealingLR(it, TOTAL),
        "with eta_min": lambda it: torch_schedulers.CosineAnnealingLR(it, TOTAL, eta_min=RATE / 5),
        "StepLR": lambda it: torch_schedulers.StepLR(it, 5, gamma=0.5),
        "ExponentialLR": lambda it: torch_schedulers.ExponentialLR(it, 0.9),
    },
    "schedulers-other": {
        # A threshold that no loss can meet: the rate falls at every epoch, whatever the weights do.
        "ReduceLROnPlateau": lambda it: torch_schedulers.ReduceLROnPlateau(it, factor=0.5, patience=0, threshold=10.0),
        "SequentialLR": _sequential,
        "LinearLR": lambda it: torch_schedulers.LinearLR(it, 0.1, total_iters=16),
        "get_linear_schedule_with_warmup": _transformers("get_linear_schedule_with_warmup", 6, TOTAL),
        "get_cosine_schedule_with_warmup": _transformers("get_cosine_schedule_with_warmup", 6, TOTAL),
        "get_polynomial_decay_schedule_with_warmup": _transformers(
            "get_polynomial_decay_schedule_with_warmup", 6, TOTAL
        ),
        "get_inverse_sqrt_schedule": _transformers("get_inverse_sqrt_schedule", 6),
        "the user's own": Halving,
    },
}


def measure_curve(make: Make, contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Compare every parameter's rate with the curve of a run without any callback.

    The head must have the user's rate itself; each parameter of the backbone, from its opening on, that rate times
    one factor, which is the median of the ratios. Deviations are in units of the rate at its highest.
    """
    wish = Settings(folder, EPOCHS, OPEN_AT, rate=RATE)
    users = [step["head.weight"] for step in rates(make, BARE, wish)]
    steps = rates(make, contestant, wish)
    if len(steps) != len(users):
        return False, f"{len(steps)} steps instead of {len(users)}"
    first = OPEN_AT * STEPS
    names = [name for name in steps[-1] if name.startswith("backbone")]
    if not names or any(name not in step for step in steps[first:] for name in names):
        return False, "the backbone never enters the optimizer"
    worst = deviation([step["head.weight"] for step in steps], users, 1.0)
    factors = []
    for name in names:
        own = [step[name] for step in steps[first:]]
        ratios = [rate / user for rate, user in zip(own, users[first:], strict=True) if user > 0]
        factors.append(statistics.median(ratios))
        worst = max(worst, deviation(own, users[first:], factors[-1]))
    if worst > TOLERANCE:
        return False, f"off by {worst:.0%}"
    # The smallest is the stem's where layers have rates of their own.
    found = min(factors)
    unasked = "" if abs(found - wish.ratio) < TOLERANCE else f" times {found:.2g}, not {wish.ratio:g}"
    return True, f"on the curve{unasked}"


def deviation(rates: list[float], users: list[float], factor: float) -> float:
    """Return the largest distance of rates from the user's times a factor, over the highest of those.

    Example:
        >>> deviation([0.1, 0.1], [1.0, 0.5], 0.1)
        0.5
    """
    wanted = [factor * user for user in users]
    return max(abs(rate - right) for rate, right in zip(rates, wanted, strict=True)) / max(wanted)


def rates(make: Make, contestant: Contestant, wish: Settings) -> list[dict[str, float]]:
    """Train with the scheduler, and return the rate of every parameter in every step."""

    def configure(module: Toy) -> Any:  # noqa: ANN401
        optimizer = torch.optim.SGD((value for value in module.parameters() if value.requires_grad), lr=RATE)
        scheduler = make(optimizer)
        plateau = isinstance(scheduler, torch_schedulers.ReduceLROnPlateau)
        config = {"scheduler": scheduler, "interval": "epoch" if plateau else "step", "monitor": "val_loss"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    recorder = Recorder()
    trainer([*contestant.callbacks(wish), recorder], wish.epochs).fit(Toy(configure))
    return recorder.rates


def _row(key: str, title: str) -> Row:
    def case(name: str, make: Make) -> Case:
        def measure(contestant: Contestant, folder: Path) -> tuple[bool, str] | None:
            if name.startswith("get_") and find_spec("transformers") is None:
                return None
            return measure_curve(make, contestant, folder)

        return Case(name, measure)

    rule = f"every rate is the user's curve times a constant factor, to {TOLERANCE:g} of the highest"
    return Row(key, title, rule, tuple(case(name, make) for name, make in GROUPS[key].items()))


ROWS = (
    _row("schedulers-closed", "LambdaLR, OneCycle, Cyclic, warm restarts"),
    _row("schedulers-chained", "Cosine (also with `eta_min`), Step, Exponential"),
    _row(
        "schedulers-other",
        "ReduceLROnPlateau, Sequential, LinearLR, transformers' `get_*_schedule`, a custom scheduler",
    ),
)
