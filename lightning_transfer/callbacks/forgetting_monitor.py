"""Measure, while a model is adapted to a new task, how much of the old one it forgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_transfer.callbacks.ddp import check_strategy
from lightning_transfer.callbacks.forgetting_actions import (
    Action,
    CallAction,
    RefreezeAction,
    RollbackAction,
    StopAction,
)
from lightning_transfer.callbacks.forgetting_arguments import (
    check_action,
    check_arguments,
    check_averaging,
    is_averaged,
)
from lightning_transfer.callbacks.forgetting_cadence import Cadence
from lightning_transfer.callbacks.forgetting_compare import FEATURE_METRICS, usable_metrics
from lightning_transfer.callbacks.forgetting_findings import SourceFindings
from lightning_transfer.callbacks.forgetting_interpolate import InterpolateAction
from lightning_transfer.callbacks.forgetting_meter import Meter, synchronise
from lightning_transfer.callbacks.forgetting_probe import ProbeSource, named_probes, read_probe
from lightning_transfer.callbacks.forgetting_reading import find_reader
from lightning_transfer.callbacks.forgetting_report import (
    AlarmCounter,
    ForgettingReport,
    SourceAccuracy,
    alarm_text,
    logged_scores,
    summarise,
    summary_lines,
)
from lightning_transfer.callbacks.forgetting_store import store_folders
from lightning_transfer.callbacks.forgetting_words import SourceWords
from lightning_transfer.errors import CheckpointError
from lightning_transfer.metrics.bootstrap import Interval

__all__ = ["ForgettingMonitor"]


class ForgettingMonitor(Callback):
    """Watch how far a model moves from its pretrained self on a probe of the old task's data.

    The probe's outputs before the first step are the reference. Later checks, at the end of epochs or after steps,
    compare with it sample by sample and log ``forgetting_<metric>``; positive is worse. Nothing of the training is
    changed: weights, random states, BatchNorm statistics and modes are bitwise the same with and without it. The
    probe is read once and kept in CPU memory. The reference goes into a small file beside each checkpoint; a run that
    is resumed without that file is an error.

    ``history`` holds a report of each check. After the fit ``summary`` holds the first, worst and last reading, the
    cost, and the ``curve`` of forgetting against the run's own scores. With a callback that averages weights, such as
    Lightning's `WeightAveraging`, checks read the weights that train, and the last one the average: put it first.

    Args:
        probe: Data of the source task, labels optional: a Dataset, DataLoader or LightningDataModule (its validation
            data), or ``{name: probe}`` for several. ``"general"`` is the general set of the run's data module.
            ``"target"`` (this run's own data) and ``"noise"`` (images of noise) stand in where there is none; they are
            logged as ``drift_<metric>`` and only warn.
        head: The source task's head, a module or a dotted name. None leaves the metrics of the representation.
        feature_fn: ``(module, batch) -> features``. None passes the batch's input to the backbone.
        metrics: ``agreement``, ``kl``, ``accuracy`` (they need ``head``), ``cosine``, ``cka``, ``l2``, ``knn``;
            ``accuracy`` and ``knn`` need labels. ``wer``, the word error rate, needs transcripts and a module with
            ``transcribe(batch) -> list[Transcript]``; its interval draws speakers, where at least two are known.
            ``auroc`` needs ``head`` and labels of 0 and 1 for each finding; with several it comes with
            ``auroc_<finding>``, and its interval draws the records' groups, which are patients.
        backbone: Dotted name inside the LightningModule; None finds it. With several, ``feature_fn`` is needed.
        downstream_head: Dotted name or names of the new head; None finds it, also inside the backbone. What
            `BackboneFreezeUnfreeze` calls ``head``.
        n_probe: Inputs of each probe. 512 put about 0.04 of a share on either side of an interval.
        every_n_epochs: Epochs between checks.
        every_n_steps: Optimizer steps between checks, instead of epochs.
        max_overhead: Share of the training time that checks may take. At the first due check it is decided once
            whether they must be rarer, with a fifth in reserve. The reference before the first step, and the check
            after the last one if none fell there, come on top. None keeps the cadence as given, which actions other
            than ``"log"`` need.
        tolerance: ``{metric: loss}`` that is still fine. Past it counts only what the lower end of the paired 95%
            interval is past.
        confirm: Checks in a row past the tolerance that make an alarm.
        on_alarm: ``"log"`` warns, ``"stop"`` ends the fit, ``"rollback"`` puts the weights and optimizer state of the
            last good check back and goes on (the second time without a good check in between, it also stops),
            ``"refreeze"`` closes the deepest open layer group of the trainer's `BackboneFreezeUnfreeze`,
            ``"interpolate"`` only warns, but when the fit ends it mixes pretrained and fine-tuned backbone (WiSE-FT,
            https://arxiv.org/abs/2109.01903): of ten mixtures within every tolerance, the module and a checkpoint
            ``interpolated-alpha=0.60.ckpt`` get the one that is best by ``monitor``. A
            ``callable(trainer, module, report)`` is called on every rank.
        monitor: Logged validation metric of the new task that ``"interpolate"`` chooses by.
        mode: ``min`` if a smaller ``monitor`` is better, else ``max``.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If ``probe`` is nothing that can be read.

    Example:
        >>> monitor = ForgettingMonitor("noise", metrics=("cosine", "cka"), every_n_epochs=2)
        >>> monitor.every_n_epochs
        2
    """

    def __init__(
        self,
        probe: ProbeSource | Mapping[str, ProbeSource],
        *,
        head: str | nn.Module | None = None,
        feature_fn: Callable[[Any, Any], Any] | None = None,
        metrics: Sequence[str] = ("agreement", "kl", "cosine", "cka"),
        backbone: str | Sequence[str] | None = None,
        downstream_head: str | Sequence[str] | None = None,
        n_probe: int = 512,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        max_overhead: float | None = 0.05,
        tolerance: Mapping[str, float] | None = None,
        confirm: int = 2,
        on_alarm: str | Callable[[Any, Any, Any], Any] = "log",
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        self.probes = named_probes(probe)
        self.head = head
        self.feature_fn = feature_fn
        self.metrics = tuple(metrics)
        self.backbone = backbone
        self.downstream_head = downstream_head
        self.n_probe = n_probe
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.max_overhead = max_overhead
        self.tolerance = dict(tolerance or {})
        self.confirm = confirm
        self.on_alarm = on_alarm
        self.monitor = monitor
        self.mode = mode
        check_arguments(self.metrics, self.tolerance, n_probe, confirm)
        check_action(on_alarm, self.tolerance, max_overhead, self.probes, monitor, mode)
        self._reset()

    def _reset(self) -> None:
        """Forget everything of an earlier fit."""
        self.history: list[ForgettingReport] = []
        self.summary: dict[str, Any] = {}
        self._state: dict[str, Any] = {
            "reference": None,
            "sha256": None,
            "strikes": {},
            "checked_step": -1,
            "probe_seconds": 0.0,
            "run_seconds": 0.0,
        }
        self._cadence = Cadence(self.every_n_epochs, self.every_n_steps, self.max_overhead)
        self._alarms = AlarmCounter({}, self.confirm)
        self._meter: Meter | None = None
        self._source: dict[str, SourceAccuracy | SourceFindings | SourceWords] = {}
        self._action = self._make_action()
        self._cost = self._started = self._probing_since = 0.0
        self._training_since = 0.0, 0.0

    @property
    def interpolated_path(self) -> str:
        """The checkpoint that ``"interpolate"`` wrote; empty where there is none."""
        return self._action.path if isinstance(self._action, InterpolateAction) else ""

    def source_scores(self, step: int) -> dict[str, dict[str, Interval]]:
        """Return what was scored on the old task ``before`` the fit and ``after`` an optimizer step.

        Args:
            step: Steps done, such as the ``global_step`` of the checkpoint that is kept. The last check after so many
                counts; without one ``after`` has no value.

        Returns:
            ``source_accuracy``, or ``source_<probe>_accuracy``, for each labelled probe of source data where
            ``accuracy`` is among the metrics, with ``chance``; ``source_wer`` and ``source_auroc`` likewise, with the
            paired ``change``.
        """
        report = next((item for item in reversed(self.history) if item.step == step), None)
        readings = None if report is None else report.readings
        return {name: found.at(readings) for name, found in self._source.items()}

    # ---- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, and start clean."""
        if stage != "fit":
            return
        check_strategy(trainer, self)
        check_averaging(trainer, self)
        self._reset()
        self._action.setup(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume a run that was not watched from its start."""
        if self.state_key not in checkpoint.get("callbacks", {}):
            raise CheckpointError(
                f"The checkpoint {trainer.ckpt_path} holds no state of {self.state_key}, so its reference is unknown. "
                "Resume without ForgettingMonitor, or load the weights and start a fit without `ckpt_path`."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the probes, and take the reference: here weights are on their device and restored, but not trained."""
        self._started = time.perf_counter()
        with self._probing(pl_module):
            self._meter = self._begin(trainer, pl_module)
            self._source = self._meter.source_scores()
            self._action.start(trainer, pl_module, str(self._state["sha256"])[:12], self._alarms.pending)
        self._cadence.start(trainer.global_step)
        self._training_since = time.perf_counter() - self._started, self._state["probe_seconds"]

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - whatever the training step returns
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Check after every ``every_n_steps`` optimizer steps."""
        if self._cadence.step_is_due(trainer.global_step, batch_idx) and self._takes(trainer):
            self._check(trainer, pl_module, on_step=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check after every ``every_n_epochs`` epochs, when validation is done and its scores are known."""
        if self._cadence.epoch_is_due(trainer.current_epoch) and self._takes(trainer):
            self._check(trainer, pl_module, on_step=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether what ``"interpolate"`` will choose by is logged."""
        if isinstance(self._action, InterpolateAction) and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._action.validated(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the final weights, unless they were just checked, interpolate if asked, and report."""
        if self._state["checked_step"] != trainer.global_step or is_averaged(trainer, self):
            self._check(trainer, pl_module, on_step=None)
        found = {}
        if isinstance(self._action, InterpolateAction):
            found = self._interpolate(trainer, pl_module, self._action)
        run_seconds = self._state["run_seconds"] + time.perf_counter() - self._started
        self.summary = {**summarise(self.history, self._state["probe_seconds"], run_seconds), **found}
        rank_zero_info(summary_lines(self.summary))
        self._action.finish(trainer, self._alarms.pending)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the reference beside the checkpoint, before the checkpoint itself is written."""
        if self._meter is not None and self._meter.file is not None and trainer.is_global_zero:
            self._meter.file.write(store_folders(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Free the probes; the reference stays, since a checkpoint may still be saved."""
        if self._meter is not None:
            self._meter.probes = []

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free probes and reference; ``history`` and ``summary`` stay."""
        if stage == "fit":
            self._meter = None

    def state_dict(self) -> dict[str, Any]:
        """Return plain values: the reference's name and hash, all reports, the cadence and the alarms so far."""
        running = time.perf_counter() - self._started if self._started else 0.0
        return {
            **self._state,
            "run_seconds": self._state["run_seconds"] + running,
            "strikes": dict(self._alarms.strikes) if self._alarms.tolerance else self._state["strikes"],
            "action": self._action.state_dict(),
            "stretch": self._cadence.stretch,
            "cost": self._cost,
            "history": [report.to_dict() for report in self.history],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.history = [ForgettingReport.from_dict(item) for item in state_dict["history"]]
        self._state = {key: state_dict[key] for key in self._state}
        self._cost = state_dict["cost"]
        self._action.load_state_dict(state_dict["action"])
        if self.max_overhead is not None:
            self._cadence.stretch = state_dict["stretch"]

    # ---- checking ----------------------------------------------------------------------------------------------------

    def _begin(self, trainer: Trainer, module: LightningModule) -> Meter:
        """Read the probes and take the reference, or that of a resumed run."""
        reader = None
        if any(metric in FEATURE_METRICS for metric in self.metrics):
            reader = find_reader(module, self.backbone, self.head, self.feature_fn, self.downstream_head)
        wanted = {"spoken": "wer" in self.metrics, "findings": "auroc" in self.metrics}
        probes = [read_probe(name, item, self.n_probe, trainer, **wanted) for name, item in self.probes.items()]
        meter = Meter(reader, probes, usable_metrics(probes, self.metrics, self.head is not None))
        limits = meter.limits(self.tolerance, proxies=True)
        self._alarms = AlarmCounter(limits, self.confirm)
        self._alarms.strikes.update({key: n for key, n in self._state["strikes"].items() if key in limits})
        if self._state["reference"] is not None:
            meter.load_reference(trainer, self._state["reference"], self._state["sha256"])
            return meter
        readings, name, sha256 = meter.take_reference(trainer, module, tuple(limits))
        self._cost = meter.cost
        self._state.update(reference=name, sha256=sha256)
        self._record(trainer, readings, ())
        self._publish(trainer, None, readings)
        return meter

    def _check(self, trainer: Trainer, module: LightningModule, *, on_step: bool | None) -> None:
        """Measure, log, and act where an alarm goes off; proxies only warn."""
        meter = self._ready()
        with self._probing(module):
            readings = meter.read(trainer, module)
            alarms = self._alarms.update(readings)
            report = self._record(trainer, readings, alarms)
        self._publish(trainer, None if on_step is None else module, readings, bool(on_step))
        if alarms:
            rank_zero_warn(alarm_text(report, alarms, self._alarms.tolerance, self.confirm))
        own = meter.limits(self.tolerance, proxies=False)
        if any(key in own for key in alarms):
            if self._action.alarm(trainer, module, report, final=on_step is None):
                self._alarms.reset()
                if self._action.changes_weights:
                    self._state["checked_step"] = -1
        elif not any(self._alarms.strikes[key] for key in own):
            with self._probing(module):
                self._action.good(trainer, module)

    def _interpolate(self, trainer: Trainer, module: LightningModule, action: InterpolateAction) -> dict[str, Any]:
        """Search the best mixture of weights; return what was found, for the summary."""
        start = time.perf_counter()
        meter = self._ready()
        limits = meter.limits(self.tolerance, proxies=False)
        readings = action.search(trainer, module, lambda: meter.read(trainer, module), limits)
        self._probing_since = time.perf_counter()
        if readings is not None:
            self._record(trainer, readings, ())
            self._publish(trainer, None, readings)
        seconds = time.perf_counter() - start
        return {"interpolation": {**action.result, "checkpoint": action.path, "seconds": seconds}}

    def _record(self, trainer: Trainer, readings: Mapping[str, Interval], alarms: tuple[str, ...]) -> ForgettingReport:
        """Add a report to the history."""
        seconds = time.perf_counter() - self._probing_since
        scores = logged_scores(trainer.callback_metrics)
        report = ForgettingReport(trainer.global_step, trainer.current_epoch, readings, scores, alarms, seconds)
        self.history.append(report)
        self._state["checked_step"] = trainer.global_step
        return report

    def _publish(
        self, trainer: Trainer, module: LightningModule | None, readings: Mapping[str, Interval], on_step: bool = False
    ) -> None:
        """Log directly, since ``log_every_n_steps`` would drop readings, and let other callbacks monitor them."""
        values = {key: reading.value for key, reading in readings.items() if reading.value is not None}
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": float(trainer.current_epoch)}, step=trainer.global_step)
        if module is not None:
            for key, value in values.items():
                module.log(key, value, logger=False, on_step=on_step, on_epoch=not on_step, sync_dist=not on_step)

    # ---- private helpers ---------------------------------------------------------------------------------------------
    def _make_action(self) -> Action:
        """Make what does as ``on_alarm`` says."""
        if callable(self.on_alarm):
            return CallAction(self.on_alarm)
        if self.on_alarm == "interpolate":
            return InterpolateAction(str(self.monitor), self.mode, self.backbone, self.downstream_head)
        if self.on_alarm == "refreeze":
            return RefreezeAction(self.backbone)
        return {"stop": StopAction, "rollback": RollbackAction}.get(self.on_alarm, Action)()

    def _takes(self, trainer: Trainer) -> bool:
        """Say whether a due check is taken, by what checks cost and training took so far."""
        started, probed = self._training_since
        seconds = time.perf_counter() - self._started - started - (self._state["probe_seconds"] - probed)
        return self._cadence.takes(trainer, self._cost, seconds)

    def _ready(self) -> Meter:
        """Return what to measure with."""
        if self._meter is None:
            raise RuntimeError("ForgettingMonitor measures in a fit only, from `on_train_start` on.")
        return self._meter

    @contextmanager
    def _probing(self, module: LightningModule) -> Iterator[None]:
        """Count the time of what is done inside as the monitor's own."""
        synchronise(module)
        self._probing_since = time.perf_counter()
        try:
            yield
        finally:
            self._state["probe_seconds"] += time.perf_counter() - self._probing_since
