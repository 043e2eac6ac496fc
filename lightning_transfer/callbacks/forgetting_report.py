"""What `ForgettingMonitor` found: one report a check, alarms over several, a summary of all; plain data for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from lightning_transfer.metrics.bootstrap import Interval

__all__ = [
    "AlarmCounter",
    "ForgettingReport",
    "SourceAccuracy",
    "alarm_text",
    "curve",
    "logged_scores",
    "summarise",
    "summary_lines",
]


@dataclass(frozen=True)
class ForgettingReport:
    """One check.

    Attributes:
        step: Optimizer steps done.
        epoch: Number of the epoch, from 0.
        readings: Logged key -> loss against the reference with its 95% interval; positive is worse.
        scores: The run's own metrics at that time, for a curve of forgetting against the downstream score.
        alarms: Logged keys whose alarm went off at this check.
        seconds: What the check took.
    """

    step: int
    epoch: int
    readings: Mapping[str, Interval]
    scores: Mapping[str, float] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON and for a checkpoint."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "readings": {key: asdict(value) for key, value in self.readings.items()},
            "scores": dict(self.scores),
            "alarms": list(self.alarms),
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ForgettingReport:
        """Rebuild a report from `to_dict`.

        Example:
            >>> report = ForgettingReport(3, 0, {"forgetting_kl": Interval(0.5, 0.4, 0.6, n=9)}, alarms=("x",))
            >>> ForgettingReport.from_dict(report.to_dict()) == report
            True
        """
        readings = {key: Interval(**value) for key, value in values["readings"].items()}
        return cls(**{**values, "readings": readings, "alarms": tuple(values["alarms"])})


@dataclass(frozen=True)
class SourceAccuracy:
    """Accuracy of the source head on a labelled probe before training.

    Attributes:
        before: Share of the probe that was right.
        n: Inputs of the probe.
        chance: What the best constant answer would get: the share of the most frequent class.
        key: Logged key of the loss against it.
    """

    before: float
    n: int
    chance: float
    key: str

    def at(self, readings: Mapping[str, Interval] | None) -> dict[str, Interval]:
        """Return ``before``, ``after`` and ``chance``; ``after`` is that of one check, without value if there was none.

        Example:
            >>> source = SourceAccuracy(0.75, 100, chance=0.1, key="forgetting_accuracy")
            >>> found = source.at({"forgetting_accuracy": Interval(0.25, 0.2, 0.3, n=100)})
            >>> print(found["before"], found["after"])
            0.750 [0.665, 0.835] 0.500 [0.402, 0.598]
        """
        loss = None if readings is None or self.key not in readings else readings[self.key].value
        after = Interval(None, None, None, self.n, reason="not measured with these weights")
        return {
            "before": self._share(self.before),
            "after": after if loss is None else self._share(self.before - loss),
            "chance": Interval(self.chance, None, None, self.n, reason="share of the most frequent class"),
        }

    def _share(self, value: float) -> Interval:
        """Return a share with its interval in closed form, as for the losses."""
        value = min(max(value, 0.0), 1.0)  # a difference of two shares may leave the range by its last digit
        margin = 1.96 * math.sqrt(value * (1 - value) / (self.n - 1))
        return Interval(value, max(value - margin, 0.0), min(value + margin, 1.0), self.n)


class AlarmCounter:
    """Counts how often in a row a reading is surely past its tolerance.

    Surely: the lower end of its 95% interval is. A reading that cannot be taken, because outputs are not finite or
    features have collapsed, counts as past every tolerance.

    Args:
        tolerance: Logged key -> the loss that is still fine.
        confirm: Checks in a row that make an alarm.

    Example:
        >>> counter = AlarmCounter({"forgetting_kl": 0.1}, confirm=2)
        >>> bad = {"forgetting_kl": Interval(0.3, 0.2, 0.4, n=9)}
        >>> counter.update(bad), counter.update(bad), counter.update(bad)
        ((), ('forgetting_kl',), ())
    """

    def __init__(self, tolerance: Mapping[str, float], confirm: int) -> None:
        self.tolerance = dict(tolerance)
        self.confirm = confirm
        self.strikes = dict.fromkeys(self.tolerance, 0)

    @property
    def pending(self) -> bool:
        """Whether the last check was past a tolerance."""
        return any(self.strikes.values())

    def update(self, readings: Mapping[str, Interval]) -> tuple[str, ...]:
        """Count one check; return the keys whose alarm goes off now. It goes off once in a row of bad checks."""
        for key, limit in self.tolerance.items():
            self.strikes[key] = self.strikes[key] + 1 if _is_past(readings[key], limit) else 0
        return tuple(key for key, count in self.strikes.items() if count == self.confirm)

    def reset(self) -> None:
        """Forget the checks so far."""
        self.strikes = dict.fromkeys(self.tolerance, 0)


def logged_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the run's own metrics of all that was logged, as numbers.

    Example:
        >>> import torch
        >>> logged_scores({"val_f1": torch.tensor(0.5), "forgetting_kl": torch.tensor(0.1)})
        {'val_f1': 0.5}
    """
    return {
        key: float(value)
        for key, value in metrics.items()
        if isinstance(value, Tensor) and value.numel() == 1 and not key.startswith(("forgetting_", "drift_"))
    }


def curve(history: Sequence[ForgettingReport]) -> list[dict[str, Any]]:
    """Return forgetting against the run's own scores, a point for each check, as plain values for a plot.

    The first point is from before training: it has no forgetting and no score yet. Numbers that JSON lacks are None.

    Example:
        >>> report = ForgettingReport(3, 0, {"forgetting_kl": Interval(0.5, 0.4, 0.6, n=9)}, {"val_f1": 0.75})
        >>> curve([report])
        [{'step': 3, 'epoch': 0, 'forgetting': {'forgetting_kl': 0.5}, 'scores': {'val_f1': 0.75}}]
    """
    return [
        {
            "step": report.step,
            "epoch": report.epoch,
            "forgetting": {key: reading.value for key, reading in report.readings.items()},
            "scores": {key: value if math.isfinite(value) else None for key, value in report.scores.items()},
        }
        for report in history
    ]


def summarise(history: Sequence[ForgettingReport], probe_seconds: float, run_seconds: float) -> dict[str, Any]:
    """Return the first, worst and last reading of each key, the curve, and what measuring cost.

    The first is the first check after training began: before it, every reading is 0 by construction.

    Args:
        history: All checks, the one before training included.
        probe_seconds: Spent on reading and measuring probes.
        run_seconds: Spent on the run, probes included.
    """
    checks = [report for report in history if report.step > 0] or list(history)
    metrics = {}
    for key in dict.fromkeys(key for report in checks for key in report.readings):
        rows = [
            {"step": report.step, "epoch": report.epoch, **report.readings[key].to_dict()}
            for report in checks
            if key in report.readings
        ]
        worst = max(rows, key=lambda row: math.inf if row["value"] is None else row["value"])
        metrics[key] = {"first": rows[0], "worst": worst, "last": rows[-1]}
    return {
        "metrics": metrics,
        "checks": len(checks),
        "alarms": [{"step": report.step, "keys": list(report.alarms)} for report in history if report.alarms],
        "curve": curve(history),
        "seconds": probe_seconds,
        "cost_percent": 100.0 * probe_seconds / run_seconds if run_seconds > 0 else 0.0,
    }


def summary_lines(summary: Mapping[str, Any]) -> str:
    """Return the summary as text for the log."""
    lines = [
        f"ForgettingMonitor: {summary['checks']} checks took {summary['seconds']:.1f} s, "
        f"{summary['cost_percent']:.1f} % of the run."
    ]
    for key, found in summary["metrics"].items():
        parts = [f"{name} {_number(found[name])} (step {found[name]['step']})" for name in ("first", "worst", "last")]
        lines.append(f"  {key}: {', '.join(parts)}")
    return "\n".join(lines)


def alarm_text(report: ForgettingReport, alarms: Sequence[str], tolerance: Mapping[str, float], confirm: int) -> str:
    """Return what to say when alarms go off."""
    found = [f"{key} is {report.readings[key]}, tolerance {tolerance[key]:g}" for key in alarms]
    return f"ForgettingMonitor, step {report.step}: {'; '.join(found)}, in {confirm} checks in a row."


def _number(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return f"n/a, {row['reason']}"
    return f"{row['value']:.4f}"


def _is_past(reading: Interval, limit: float) -> bool:
    if reading.value is None:
        return True
    return reading.low is not None and reading.low > limit
