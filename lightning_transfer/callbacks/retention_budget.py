"""Choose the checkpoint that gains most on the new task and stays within what the old one may lose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_transfer.callbacks.forgetting_interpolate import validate
from lightning_transfer.callbacks.forgetting_monitor import ForgettingMonitor
from lightning_transfer.callbacks.forgetting_random import isolated_rng
from lightning_transfer.errors import CheckpointError, closest, listing
from lightning_transfer.metrics.retention import retention_rank

__all__ = ["RETENTION_SCORE", "RetentionBudget"]

RETENTION_SCORE: Final = "val_retention_score"
"""Name under which the score is logged; larger is better."""


class RetentionBudget(Callback):
    """Log ``val_retention_score``, by which a `ModelCheckpoint` keeps the best weights within a budget of forgetting.

    At the end of each epoch it reads the validation error of the new task, and from the trainer's `ForgettingMonitor`
    what the old one has lost. The score is that of https://arxiv.org/abs/2210.03255: the relative gain on the new task
    times the share of the budget that is left (`metrics.retention_score`). Weights past the budget score below 0, so
    that none of them comes before one within it; if all are past it, those that are least past are kept, and a warning
    says so. For the gain it validates once before the first step; nothing of the training is changed by it.

    In a recipe ``checkpoint.max_degradation`` does all of this. Elsewhere give, in this order, a
    ``ForgettingMonitor(..., max_overhead=None)``, this callback, and
    ``ModelCheckpoint(monitor="val_retention_score", mode="max", save_on_train_epoch_end=True)``.

    Args:
        max_degradation: What the old task's error may rise by, as a difference: 0.02 for two more wrong words in a
            hundred. A mapping gives each logged key, such as ``forgetting_news_wer``, its own.
        monitor: Logged validation error of the new task; smaller is better.
        metric: Metric of the monitor's probes whose loss counts; None takes its own: ``wer`` of ``val_wer``.

    Attributes:
        before: The new task's validation error before the first step.
        rows: One for each epoch: ``epoch``, ``step``, ``new``, ``losses`` by logged key, ``score``, ``within``.

    Raises:
        ValueError: If a budget is not above 0.

    Example:
        >>> RetentionBudget(0.02).metric
        'wer'
    """

    def __init__(
        self,
        max_degradation: float | Mapping[str, float],
        *,
        monitor: str = "val_wer",
        metric: str | None = None,
    ) -> None:
        budgets: dict[str, float] = {}
        if isinstance(max_degradation, Mapping):
            budgets.update(max_degradation)
        else:
            budgets["max_degradation"] = max_degradation
        for name, budget in budgets.items():
            if not 0 < budget < math.inf:
                raise ValueError(
                    f"Expected a budget above 0 for `{name}`, got {budget}. 0.02 accepts two more errors in a hundred."
                )
        if not budgets:
            raise ValueError("Expected at least one budget in `max_degradation`, got {}.")
        self.max_degradation = max_degradation
        self.monitor = monitor
        self.metric = metric or monitor.removeprefix("val_")
        self.before: float | None = None
        self.rows: list[dict[str, Any]] = []

    # ---- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer in which the score could not be known at the end of each epoch, and start clean."""
        if stage != "fit":
            return
        self.before, self.rows = None, []
        self._check(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume a run whose error before the first step nobody measured."""
        if self.state_key not in checkpoint.get("callbacks", {}):
            raise CheckpointError(
                f"The checkpoint {trainer.ckpt_path} holds no state of {self.state_key}, so the error before the first "
                "step is unknown. Resume without a retention budget, or start a fit without `ckpt_path`."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate once before the first step; a resumed run remembers what it found."""
        if self.before is not None:
            return
        self._budgets(trainer)
        with isolated_rng():
            scores = validate(trainer)  # of rank 0, on all
        # As after Lightning's own check before training: this was no validation of the fit.
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.reset()
        self.before = self._read(scores, scores.get(self.monitor))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the score of the weights as they are, when both tasks have been measured."""
        budgets = self._budgets(trainer)
        losses = {
            key: reading.value
            for monitor in self._monitors(trainer)
            for key, reading in monitor.history[-1].readings.items()
            if key in budgets
        }
        # All ranks are told what rank 0 has logged, and so choose alike, or raise alike.
        logged = trainer.callback_metrics.get(self.monitor)
        new = self._read(
            trainer.callback_metrics, trainer.strategy.broadcast(None if logged is None else float(logged))
        )
        values = [math.nan if losses.get(key) is None else float(losses[key] or 0.0) for key in budgets]
        score = retention_rank(float(self.before or 0.0), new, values, list(budgets.values()))
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "new": new, "losses": losses}
        self.rows.append({**row, "score": score, "within": score >= 0})
        pl_module.log(RETENTION_SCORE, score, on_step=False, on_epoch=True, sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which epoch is best, and whether it is within the budget."""
        best = self.best
        if best is None:
            return
        budgets = self._budgets(trainer)
        facts = ", ".join(f"{key} {_number(best['losses'].get(key))}" for key in budgets)
        gain = f"{self.monitor} {_number(self.before)} before and {_number(best['new'])} now"
        if best["within"]:
            rank_zero_info(f"RetentionBudget: epoch {best['epoch']} is best within the budget: {gain}, {facts}.")
            return
        limits = ", ".join(f"{key} within {budget:g}" for key, budget in budgets.items())
        rank_zero_warn(
            f"RetentionBudget: no epoch keeps {limits}. Epoch {best['epoch']} is least past it: {gain}, {facts}. "
            "Use lower learning rates, freeze more, or interpolate (`ForgettingMonitor(on_alarm='interpolate')`)."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know: the error before the first step, and the epochs so far."""
        return {"before": self.before, "rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.before, self.rows = state_dict["before"], list(state_dict["rows"])

    @property
    def best(self) -> dict[str, Any] | None:
        """The row that is kept: the earliest of those with the largest score; None before the first epoch's end."""
        return max(self.rows, key=lambda row: (row["score"], -row["step"]), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return what was found, as plain values for a report."""
        budget = self.max_degradation
        return {
            "max_degradation": dict(budget) if isinstance(budget, Mapping) else budget,
            "monitor": self.monitor,
            "metric": self.metric,
            "before": self.before,
            "rows": [dict(row) for row in self.rows],
            "best": self.best,
        }

    # ---- private helpers ---------------------------------------------------------------------------------------------

    def _check(self, trainer: Trainer) -> None:
        """Refuse what would leave an epoch without its score.

        Raises:
            MisconfigurationException: If the two tasks are not both measured after each epoch, before this callback.
        """
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        found = [item for item in callbacks if isinstance(item, ForgettingMonitor)]
        if not found:
            raise MisconfigurationException(
                f"A retention budget needs to know what is forgotten: add `ForgettingMonitor(probe, metrics=["
                f"{self.metric!r}], max_overhead=None)` to the trainer's callbacks."
            )
        for item in found:
            if callbacks.index(item) > callbacks.index(self):
                raise MisconfigurationException(
                    "`RetentionBudget` stands before `ForgettingMonitor` in `callbacks`, and would read the epoch "
                    "before. Put it after."
                )
            if item.every_n_steps is not None or item.every_n_epochs != 1 or item.max_overhead is not None:
                raise MisconfigurationException(
                    "A retention budget needs a check of `ForgettingMonitor` after each epoch, got "
                    f"every_n_epochs={item.every_n_epochs}, every_n_steps={item.every_n_steps}, "
                    f"max_overhead={item.max_overhead}. Pass max_overhead=None, and leave the others out."
                )
        if trainer.check_val_every_n_epoch != 1 or not trainer.enable_validation:
            raise MisconfigurationException(
                f"A retention budget needs validation after each epoch, got `check_val_every_n_epoch="
                f"{trainer.check_val_every_n_epoch}`, validation {'on' if trainer.enable_validation else 'off'}."
            )
        for saver in callbacks:
            if not isinstance(saver, ModelCheckpoint) or saver.monitor != RETENTION_SCORE:
                continue
            if getattr(saver, "_save_on_train_epoch_end", None) is not True or saver.mode != "max":
                raise MisconfigurationException(
                    f"`{RETENTION_SCORE}` is known at the end of the epoch, after validation, and larger is better. "
                    f"Use ModelCheckpoint(monitor={RETENTION_SCORE!r}, mode='max', save_on_train_epoch_end=True)."
                )

    def _monitors(self, trainer: Trainer) -> list[ForgettingMonitor]:
        return [item for item in trainer.callbacks if isinstance(item, ForgettingMonitor)]  # type: ignore[attr-defined]

    def _budgets(self, trainer: Trainer) -> dict[str, float]:
        """Return logged key -> budget, of what the monitors read.

        Raises:
            MisconfigurationException: If they do not read it.
        """
        known = [key for item in self._monitors(trainer) for key in (item.history[0].readings if item.history else ())]
        if isinstance(self.max_degradation, Mapping):
            missing = [key for key in self.max_degradation if key not in known]
            if missing:
                raise MisconfigurationException(
                    f"`max_degradation` names {listing(missing)}, which no `ForgettingMonitor` reads."
                    f"{closest(missing[0], known)} There are: {listing(known)}."
                )
            return dict(self.max_degradation)
        own = [key for key in known if key.startswith("forgetting_") and key.endswith(f"_{self.metric}")]
        if not own:
            raise MisconfigurationException(
                f"A retention budget of {self.max_degradation:g} is for the metric {self.metric!r} of source data, and "
                f"`ForgettingMonitor` reads {listing(known) or 'nothing'}. Add {self.metric!r} to its `metrics`."
            )
        return dict.fromkeys(own, float(self.max_degradation))

    def _read(self, scores: Mapping[str, Any], value: float | None) -> float:
        """Return the new task's error.

        Args:
            scores: What was logged, for the message.
            value: The error, as rank 0 knows it.

        Raises:
            MisconfigurationException: If it was not logged.
        """
        if value is None:
            raise MisconfigurationException(
                f"`RetentionBudget(monitor={self.monitor!r})` found no such metric after validation."
                f"{closest(self.monitor, sorted(scores))} Logged: {listing(sorted(scores), 20) or 'nothing'}."
            )
        return float(value)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
