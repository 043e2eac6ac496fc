"""Interpolate between pretrained and fine-tuned weights when the fit ends: WiSE-FT, with BatchNorm made right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_transfer.callbacks.forgetting_actions import Action
from lightning_transfer.callbacks.forgetting_pretrained import PretrainedFile
from lightning_transfer.callbacks.forgetting_probe import is_stream, training_batches
from lightning_transfer.callbacks.forgetting_random import isolated_rng
from lightning_transfer.callbacks.forgetting_reading import undisturbed
from lightning_transfer.callbacks.forgetting_store import join, store_folders
from lightning_transfer.callbacks.forgetting_weights import (
    backbone_tensors,
    blend,
    count_batches,
    find_backbone,
    has_pretrained_head,
    recompute_batchnorm,
    run_module,
    set_batchnorm,
    statistics,
)
from lightning_transfer.depth import DepthMap
from lightning_transfer.errors import CheckpointError, closest, listing
from lightning_transfer.metrics.bootstrap import Interval

__all__ = ["ALPHAS", "InterpolateAction", "choose", "table", "validate"]

ALPHAS: Final = tuple(number / 10 for number in range(1, 11))
"""Shares of the fine-tuned weights that are tried; the paper's own grid, without the pretrained end."""

# Wu and Johnson 2021 (arXiv 2105.07576): a thousand inputs give statistics as good as the whole training set's.
_NUM_INPUTS = 1024


class InterpolateAction(Action):
    """Search, at the end, for the mixture of pretrained and fine-tuned backbone that keeps the old task; see `search`.

    An alarm before the end only warns. Robust fine-tuning of zero-shot models, https://arxiv.org/abs/2109.01903.

    Args:
        monitor: Logged validation metric of the new task.
        mode: ``min`` if a smaller one is better, else ``max``.
        backbone: The monitor's argument.
        downstream_head: The monitor's argument.

    Attributes:
        path: The checkpoint with the chosen weights; empty where none was written.
        result: What was tried and chosen, as plain values.
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        backbone: str | Sequence[str] | None,
        downstream_head: str | Sequence[str] | None,
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.backbone = backbone
        self.downstream_head = downstream_head
        self.path = ""
        self.result: dict[str, Any] = {}
        self._file = PretrainedFile()
        self._logged = False

    def start(self, trainer: Trainer, module: LightningModule, token: str, pending: bool) -> None:
        """Write the pretrained weights, or find the file of a resumed run; check that the search can be made.

        Raises:
            MisconfigurationException: If there is no validation, or nothing says what is pretrained, or BatchNorm
                cannot be computed again.
            CheckpointError: If the file of a resumed run is missing.
        """
        if not trainer.enable_validation:
            raise MisconfigurationException(
                f"on_alarm='interpolate' chooses by `{self.monitor}` on validation data, and this fit has none: it "
                "needs `validation_step`, a `val_dataloader`, and `limit_val_batches` above 0."
            )
        depth_map = find_backbone(module, self.backbone, self.downstream_head)
        self._check_forward(trainer, module, depth_map)
        if self._file.name is None:
            self._file.write(trainer, backbone_tensors(module, depth_map), count_batches(module))
        else:
            self._file.find(trainer)

    def validated(self, trainer: Trainer) -> None:
        """Look for the metric after the first validation, rather than after the last.

        Raises:
            MisconfigurationException: If it is not logged.
        """
        if not self._logged and self.monitor not in trainer.callback_metrics:
            known = sorted(trainer.callback_metrics)
            raise MisconfigurationException(
                f"`ForgettingMonitor(monitor={self.monitor!r})` found no such metric after validation."
                f"{closest(self.monitor, known)} Logged: {listing(known, 20) or 'nothing'}. Log it in "
                f"`validation_step` with `self.log({self.monitor!r}, ...)`."
            )
        self._logged = True

    def search(
        self,
        trainer: Trainer,
        module: LightningModule,
        read: Callable[[], Mapping[str, Interval]],
        limits: Mapping[str, float],
    ) -> Mapping[str, Interval] | None:
        """Try all of `ALPHAS`, and leave the best in the module; say it, and write a checkpoint of it.

        The best is, among those whose every reading is within its limit, the one with the best validation score, and
        among equal ones that with less of the fine-tuned weights. Where none is within, the fine-tuned weights stay,
        with a warning. A new head keeps its fine-tuned weights; one that is pretrained
        (``module.head_is_pretrained``) is mixed as the backbone is, and the pretrained end is measured too, as no
        candidate. Integer buffers keep their values; BatchNorm that has trained gets the statistics of some training
        data for each alpha. Random states stand still.

        Args:
            trainer: Of the fit, in ``on_train_end``.
            module: With the fine-tuned weights.
            read: Measures forgetting of the weights as they are.
            limits: Logged key -> loss that is still fine.

        Returns:
            The readings of the weights that the module holds now; None if they are the fine-tuned ones, as they were.
        """
        mixture = _Mixture(trainer, module, find_backbone(module, self.backbone, self.downstream_head), self._file)
        rows: list[dict[str, Any]] = []
        taken: dict[float, tuple[Mapping[str, Interval], dict[str, float]]] = {}
        chosen, start = None, None
        with isolated_rng():
            try:
                if has_pretrained_head(module):
                    mixture.place(0.0)
                    start = _row(0.0, read(), validate(trainer), self.monitor, limits)
                for alpha in ALPHAS:
                    mixture.place(alpha)
                    taken[alpha] = read(), validate(trainer)
                    rows.append(_row(alpha, *taken[alpha], self.monitor, limits))
                chosen = choose(rows, self.mode)
            finally:
                if chosen is None:
                    mixture.restore()
                else:
                    mixture.place(chosen)
        self.result = {
            "alpha": chosen,
            "monitor": self.monitor,
            "mode": self.mode,
            "limits": dict(limits),
            "tried": rows,
            "pretrained": start,
        }
        self._say(chosen, limits)
        if chosen is not None and trainer.checkpoint_callbacks and not getattr(trainer, "fast_dev_run", False):
            self.path = join(store_folders(trainer)[0], f"interpolated-alpha={chosen:.2f}.ckpt")
            # Without callbacks and optimizers: one that averages weights would put its own in their place.
            trainer.save_checkpoint(self.path, weights_only=True)
        if chosen is None:
            return None
        readings, scores = taken[chosen]
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scores.items()})
        return readings

    def finish(self, trainer: Trainer, pending: bool) -> None:
        """Keep the file, except of a dry run."""
        if getattr(trainer, "fast_dev_run", False):
            self._file.remove(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the name of the file with the pretrained weights."""
        return {"pretrained": self._file.name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember which file `start` looks for.

        Raises:
            CheckpointError: If the run was begun with another action, so that there is none.
        """
        if "pretrained" not in state:
            raise CheckpointError(
                "The checkpoint was written without on_alarm='interpolate', so there are no pretrained weights to "
                "interpolate with. Resume with the action it was trained with."
            )
        self._file = PretrainedFile(state["pretrained"])

    def _check_forward(self, trainer: Trainer, module: LightningModule, depth_map: DepthMap) -> None:
        """Run one training input now, if BatchNorm will have to be computed again at the end.

        Raises:
            MisconfigurationException: If that fails.
        """
        if not count_batches(module) or is_stream(trainer):
            return
        try:
            with undisturbed(module):
                for batch in training_batches(trainer, 1):
                    run_module(trainer, module, depth_map, batch)
        except Exception as error:
            raise MisconfigurationException(
                "on_alarm='interpolate' computes BatchNorm again by running training inputs through "
                f"`{type(module).__name__}.forward`, or without one through the backbone, and that failed: {error!r}. "
                "Let `forward` take the input alone: the first of a batch, or a dict without its labels."
            ) from error

    def _say(self, chosen: float | None, limits: Mapping[str, float]) -> None:
        """Say what was chosen, with the table."""
        rows = table(self.result["tried"], self.monitor, limits)
        if chosen is not None:
            rank_zero_info(f"ForgettingMonitor: interpolated, alpha={chosen:.2f} of the fine-tuned weights.\n{rows}")
            return
        scored = any(row["score"] is not None for row in self.result["tried"])
        why = (
            f"no alpha keeps {', '.join(f'{key} within {limit:g}' for key, limit in limits.items())}"
            if scored
            else f"`{self.monitor}` was not logged by the module itself, or was not finite"
        )
        rank_zero_warn(f"ForgettingMonitor interpolates nothing, and keeps the fine-tuned weights: {why}.\n{rows}")


class _Mixture:
    """The module's backbone at any alpha; both ends are held on the CPU as long as this lives."""

    def __init__(self, trainer: Trainer, module: LightningModule, depth_map: DepthMap, file: PretrainedFile) -> None:
        self._trainer = trainer
        self._module = module
        self._depth = depth_map
        content = file.read()
        self._pretrained, self._batches = content["weights"], content["batches"]
        self._fine_tuned = {
            name: value.detach().cpu().clone() for name, value in backbone_tensors(module, depth_map).items()
        }
        self._statistics = statistics(module)

    def place(self, alpha: float) -> None:
        """Put the mixture of an alpha into the module, with BatchNorm computed for it."""
        self._put(alpha)
        set_batchnorm(self._module, self._between())

    def restore(self) -> None:
        """Put the fine-tuned weights back, bit for bit."""
        self._put(1.0)
        set_batchnorm(self._module, self._statistics)

    def _put(self, alpha: float) -> None:
        with torch.no_grad():
            for name, value in backbone_tensors(self._module, self._depth).items():
                end = self._fine_tuned[name]
                # What was registered after the start has no other end.
                value.copy_(end if alpha == 1.0 else blend(self._pretrained.get(name, end), end, alpha))

    def _between(self) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
        """Compute BatchNorm for the weights in place; rank 0's, since a stream gives every rank its own data."""
        found = recompute_batchnorm(
            self._module,
            self._batches,
            lambda batch: run_module(self._trainer, self._module, self._depth, batch),
            training_batches(self._trainer, _NUM_INPUTS),
        )
        shared: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = self._trainer.strategy.broadcast(found)
        return shared


def validate(trainer: Trainer) -> dict[str, float]:
    """Run the fit's own validation on the weights as they are, on all ranks, and return what it logs on rank 0.

    No other callback and no logger hears of it: a checkpoint would be written, or a stop decided, on weights that
    are only tried.
    """
    callbacks, loggers, before = trainer.callbacks, trainer.loggers, dict(trainer.callback_metrics)  # type: ignore[attr-defined]
    trainer.callbacks, trainer.loggers = [], []  # type: ignore[attr-defined]
    trainer.callback_metrics.clear()
    try:
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        found = {key: float(value) for key, value in trainer.callback_metrics.items()}
    finally:
        trainer.training = True
        trainer.callbacks, trainer.loggers = callbacks, loggers  # type: ignore[attr-defined]
        trainer.callback_metrics.update(before)
    scores: dict[str, float] = trainer.strategy.broadcast(found)
    return scores


def choose(rows: Sequence[Mapping[str, Any]], mode: Literal["min", "max"]) -> float | None:
    """Return the alpha with the best score among those that are within the tolerance; None if there is none.

    Example:
        >>> rows = [{"alpha": 0.5, "score": 0.8, "within": True}, {"alpha": 1.0, "score": 0.9, "within": False}]
        >>> choose(rows, "max"), choose(rows[1:], "max")
        (0.5, None)
    """
    sign = 1.0 if mode == "min" else -1.0
    fit = [row for row in rows if row["within"] and row["score"] is not None]
    best = min(fit, key=lambda row: (sign * row["score"], row["alpha"]), default=None)
    return None if best is None else float(best["alpha"])


def table(rows: Sequence[Mapping[str, Any]], monitor: str, limits: Mapping[str, float]) -> str:
    """Return what was tried as lines of text.

    Example:
        >>> row = {"alpha": 0.5, "score": 0.75, "within": True, "readings": {"forgetting_kl": 0.01}}
        >>> print(table([row], "val_f1", {"forgetting_kl": 0.05}))
          alpha  val_f1  forgetting_kl
           0.50  0.7500         0.0100  within
    """
    titles = ["alpha", monitor, *limits]
    lines = ["  " + "  ".join(f"{title:>6}" if place else f"{title:>5}" for place, title in enumerate(titles))]
    for row in rows:
        values = [row["score"], *(row["readings"][key] for key in limits)]
        cells = [
            f"{'n/a' if value is None else format(value, '.4f'):>{max(6, len(title))}}"
            for value, title in zip(values, titles[1:], strict=True)
        ]
        lines.append("  ".join([f"  {row['alpha']:>5.2f}", *cells, *(["within"] if row["within"] else [])]))
    return "\n".join(lines)


def _row(
    alpha: float,
    readings: Mapping[str, Interval],
    scores: Mapping[str, float],
    monitor: str,
    limits: Mapping[str, float],
) -> dict[str, Any]:
    """Return one line of the table as plain values."""
    values = {key: reading.value for key, reading in readings.items()}
    score = scores.get(monitor)
    return {
        "alpha": alpha,
        "score": score if score is not None and math.isfinite(score) else None,
        "readings": values,
        "within": all(
            value is not None and value <= limit for value, limit in ((values[key], limits[key]) for key in limits)
        ),
    }
