"""Measure, while a model is adapted to a new task, how much of the old one it forgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_transfer.callbacks.ddp import check_strategy
from lightning_transfer.callbacks.forgetting_arguments import check_action, check_arguments, check_available
from lightning_transfer.callbacks.forgetting_cadence import Cadence
from lightning_transfer.callbacks.forgetting_probe import Probe, named_probes, read_probe
from lightning_transfer.callbacks.forgetting_reading import (
    METRICS,
    FeatureReader,
    Outputs,
    compare,
    find_reader,
    read_outputs,
    undisturbed,
    usable_metrics,
)
from lightning_transfer.callbacks.forgetting_report import (
    AlarmCounter,
    ForgettingReport,
    alarm_text,
    summarise,
    summary_lines,
)
from lightning_transfer.callbacks.forgetting_rollback import Rollback
from lightning_transfer.callbacks.forgetting_store import ReferenceFile, load_reference, pack_reference, store_folders
from lightning_transfer.errors import CheckpointError, listing
from lightning_transfer.metrics.bootstrap import Interval

__all__ = ["ForgettingMonitor"]


class ForgettingMonitor(Callback):
    """Watch how far a model moves from its pretrained self on a probe of the old task's data.

    The probe's outputs before the first step are the reference. Later checks, at the end of epochs or after steps,
    compare with it sample by sample and log ``forgetting_<metric>``; positive is worse. Nothing of the training is
    changed: weights, random states, BatchNorm statistics and modes are bitwise the same with and without it. The
    probe is read once and kept in CPU memory. The reference goes into a small file beside each checkpoint; a run that
    is resumed without that file is an error.

    ``history`` holds a report of each check, ``summary`` the first, worst and last reading and the cost, after the fit.

    Args:
        probe: Data of the source task, labels optional: a Dataset, DataLoader or LightningDataModule (its validation
            data), or ``{name: probe}`` for several. ``"target"`` (this run's own data) and ``"noise"`` (images of
            noise) stand in where there is none; they are logged as ``drift_<metric>`` and only warn.
        head: The source task's head, a module or a dotted name. None leaves the metrics of the representation.
        feature_fn: ``(module, batch) -> features``. None passes the batch's input to the backbone.
        metrics: ``agreement``, ``kl``, ``accuracy`` (they need ``head``), ``cosine``, ``cka``, ``l2``, ``knn``.
            ``accuracy`` and ``knn`` need labels.
        backbone: Dotted name inside the LightningModule; None finds it. With several, ``feature_fn`` is needed.
        n_probe: Inputs of each probe. 512 put about 0.04 of a share on either side of an interval.
        every_n_epochs: Epochs between checks.
        every_n_steps: Optimizer steps between checks, instead of epochs.
        max_overhead: Share of the training time that checks may take. At the first due check it is decided once
            whether they must be rarer. None keeps the cadence as given, which actions other than ``"log"`` need.
        tolerance: ``{metric: loss}`` that is still fine. Past it counts only what the lower end of the paired 95%
            interval is past.
        confirm: Checks in a row past the tolerance that make an alarm.
        on_alarm: ``"log"`` warns, ``"stop"`` ends the fit, ``"rollback"`` puts the weights and optimizer state of the
            last good check back and goes on (the second time without a good check in between, it also stops), or
            ``callable(trainer, module, report)`` on every rank.

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
        probe: str | Dataset[Any] | DataLoader[Any] | LightningDataModule | Mapping[str, Any],
        *,
        head: str | nn.Module | None = None,
        feature_fn: Callable[[Any, Any], Any] | None = None,
        metrics: Sequence[str] = ("agreement", "kl", "cosine", "cka"),
        backbone: str | Sequence[str] | None = None,
        n_probe: int = 512,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        max_overhead: float | None = 0.05,
        tolerance: Mapping[str, float] | None = None,
        confirm: int = 2,
        on_alarm: str | Callable[[Any, Any, Any], Any] = "log",
    ) -> None:
        self.probes = named_probes(probe)
        self.head = head
        self.feature_fn = feature_fn
        self.metrics = tuple(metrics)
        self.backbone = backbone
        self.n_probe = n_probe
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.max_overhead = max_overhead
        self.tolerance = dict(tolerance or {})
        self.confirm = confirm
        self.on_alarm = on_alarm
        check_arguments(self.metrics, self.tolerance, n_probe, confirm)
        check_action(on_alarm, self.tolerance, max_overhead, self.probes)
        self._reset()

    def _reset(self) -> None:
        """Forget everything of an earlier fit."""
        self.history: list[ForgettingReport] = []
        self.summary: dict[str, Any] = {}
        self._state: dict[str, Any] = {
            "reference": None,
            "sha256": None,
            "strikes": {},
            "snapshot": None,
            "rolled_back": False,
            "checked_step": -1,
            "probe_seconds": 0.0,
            "run_seconds": 0.0,
        }
        self._cadence = Cadence(self.every_n_epochs, self.every_n_steps, self.max_overhead)
        self._alarms = AlarmCounter({}, self.confirm)
        self._reader = FeatureReader(None)
        self._probes: list[Probe] = []
        self._usable: dict[str, tuple[str, ...]] = {}
        self._reference: dict[str, Outputs] = {}
        self._file: ReferenceFile | None = None
        self._rollback: Rollback | None = None
        self._cost = self._started = self._probing_since = 0.0
        self._training_since = 0.0, 0.0

    # ---- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, and start clean."""
        if stage != "fit":
            return
        check_strategy(trainer, self)
        check_available(self.on_alarm)
        self._reset()

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
            self._reader = find_reader(pl_module, self.backbone, self.head, self.feature_fn)
            self._probes = [read_probe(name, item, self.n_probe, trainer) for name, item in self.probes.items()]
            self._usable = usable_metrics(self._probes, self.metrics, self.head is not None)
            self._alarms = self._counter()
            if self._state["reference"] is None:
                self._take_reference(trainer, pl_module)
            else:
                self._load_reference(trainer)
            if self.on_alarm == "rollback":
                token = str(self._state["sha256"])[:12]
                self._rollback = Rollback(trainer, self._state["snapshot"], token, self._state["rolled_back"])
                self._rollback.prepare(trainer, pl_module, pending=any(self._alarms.strikes.values()))
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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the final weights, unless they were just checked, and report first, worst and last."""
        if self._state["checked_step"] != trainer.global_step:
            self._check(trainer, pl_module, on_step=None)
        run_seconds = self._state["run_seconds"] + time.perf_counter() - self._started
        self.summary = summarise(self.history, self._state["probe_seconds"], run_seconds)
        rank_zero_info(summary_lines(self.summary))
        if self._rollback is not None:
            self._rollback.finish(trainer, pending=any(self._alarms.strikes.values()))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the reference beside the checkpoint, before the checkpoint itself is written."""
        if self._file is not None and trainer.is_global_zero:
            self._file.write(store_folders(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Free the probes; the reference stays, since a checkpoint may still be saved."""
        self._probes = []

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free probes and reference; ``history`` and ``summary`` stay."""
        if stage == "fit":
            self._probes, self._reference, self._file = [], {}, None

    def state_dict(self) -> dict[str, Any]:
        """Return plain values: the reference's name and hash, all reports, the cadence and the alarms so far."""
        running = time.perf_counter() - self._started if self._started else 0.0
        return {
            **self._state,
            "run_seconds": self._state["run_seconds"] + running,
            "strikes": dict(self._alarms.strikes) if self._alarms.tolerance else self._state["strikes"],
            "snapshot": self._rollback.name if self._rollback is not None else self._state["snapshot"],
            "rolled_back": self._rollback.repeated if self._rollback is not None else self._state["rolled_back"],
            "stretch": self._cadence.stretch,
            "cost": self._cost,
            "history": [report.to_dict() for report in self.history],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.history = [ForgettingReport.from_dict(item) for item in state_dict["history"]]
        self._state = {key: state_dict[key] for key in self._state}
        self._cost = state_dict["cost"]
        if self.max_overhead is not None:
            self._cadence.stretch = state_dict["stretch"]

    # ---- measuring ---------------------------------------------------------------------------------------------------

    def _take_reference(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure all probes, and the first batch of each again: that tells the cost, and whether 0 can be read."""
        self._reference = self._measure(trainer, module, self._probes)
        first = [Probe(item.name, item.proxy, item.batches[:1], None, "") for item in self._probes]
        _synchronise(module)
        start = time.perf_counter()
        again = self._measure(trainer, module, first)
        middle = time.perf_counter()
        share = sum(len(item.features) for item in again.values())
        total = sum(len(item.features) for item in self._reference.values())
        current = {name: outputs.with_first(again[name]) for name, outputs in self._reference.items()}
        readings = self._readings(trainer, current)
        self._cost = (middle - start) * total / share + time.perf_counter() - middle
        self._file = pack_reference(self._reference, self._probes)
        # All ranks remember rank 0's file: theirs may differ in the last digits.
        name, sha256 = trainer.strategy.broadcast((self._file.name, self._file.sha256))
        self._state.update(reference=name, sha256=sha256, checked_step=trainer.global_step)
        odd = [key for key, reading in readings.items() if reading.value]
        undefined = [f"{key} ({readings[key].reason})" for key in self._alarms.tolerance if readings[key].value is None]
        if undefined:
            raise MisconfigurationException(
                f"`tolerance` names what this probe cannot show: {listing(undefined)}. Take another metric or probe."
            )
        if odd:
            rank_zero_warn(
                f"ForgettingMonitor: measured twice before training, {listing(odd)} is not exactly 0 (largest "
                f"{max(readings[key].value or 0.0 for key in odd):.2g}). Something in the model is random in eval mode."
            )
        self._record(trainer, readings, ())
        self._publish(trainer, None, readings)

    def _load_reference(self, trainer: Trainer) -> None:
        """Read the reference on rank 0, which alone compares; all ranks raise if that fails."""
        message = ""
        if trainer.is_global_zero:
            folders, with_logits = store_folders(trainer, resumed=True), self._reader.head is not None
            try:
                self._file, self._reference = load_reference(
                    self._state["reference"], self._state["sha256"], folders, self._probes, with_logits
                )
            except CheckpointError as error:
                message = str(error)
        message = trainer.strategy.broadcast(message)
        if message:
            raise CheckpointError(message)

    def _measure(self, trainer: Trainer, module: LightningModule, probes: Sequence[Probe]) -> dict[str, Outputs]:
        """Measure probes on all ranks alike, so that a forward that communicates cannot hang."""
        with undisturbed(module, self._reader.head_module(module)):
            return {probe.name: read_outputs(self._reader, module, trainer, probe.batches) for probe in probes}

    def _readings(self, trainer: Trainer, current: Mapping[str, Outputs]) -> dict[str, Interval]:
        """Compare on rank 0, and tell all ranks, so that all decide alike."""
        readings: dict[str, Interval] = {}
        if trainer.is_global_zero:
            for probe in self._probes:
                name = probe.name
                found = compare(self._reference[name], current[name], probe.labels, self._usable[name])
                readings.update({probe.key(metric): reading for metric, reading in found.items()})
        return dict(trainer.strategy.broadcast(readings))

    def _check(self, trainer: Trainer, module: LightningModule, *, on_step: bool | None) -> None:
        """Measure, log, and act where an alarm goes off."""
        with self._probing(module):
            readings = self._readings(trainer, self._measure(trainer, module, self._probes))
            alarms = self._alarms.update(readings)
            report = self._record(trainer, readings, alarms)
        self._publish(trainer, None if on_step is None else module, readings, bool(on_step))
        proxies = tuple(probe.key(metric) for probe in self._probes if probe.proxy for metric in METRICS)
        if alarms:
            rank_zero_warn(alarm_text(report, alarms, self._alarms.tolerance, self.confirm))
        if set(alarms) - set(proxies):
            self._act(trainer, module, report)
        elif self._rollback is not None and not any(n for key, n in self._alarms.strikes.items() if key not in proxies):
            with self._probing(module):
                self._rollback.keep(trainer, module)

    def _act(self, trainer: Trainer, module: LightningModule, report: ForgettingReport) -> None:
        """Do what the user asked for."""
        if callable(self.on_alarm):
            self.on_alarm(trainer, module, report)
        elif self.on_alarm == "stop":
            trainer.should_stop = True
        elif self._rollback is not None:
            self._rollback.roll_back(trainer, module)
            self._alarms.reset()
            self._state["checked_step"] = -1  # the weights are no longer those that were checked

    def _record(self, trainer: Trainer, readings: Mapping[str, Interval], alarms: tuple[str, ...]) -> ForgettingReport:
        """Add a report to the history."""
        ours = tuple(f"{kind}_" for kind in ("forgetting", "drift"))
        scores = {
            key: float(value)
            for key, value in trainer.callback_metrics.items()
            if isinstance(value, Tensor) and value.numel() == 1 and not key.startswith(ours)
        }
        seconds = time.perf_counter() - self._probing_since
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
    def _counter(self) -> AlarmCounter:
        """Make the counter of the metrics with a tolerance, with the counts of a resumed run."""
        limits = {
            probe.key(metric): self.tolerance[metric]
            for probe in self._probes
            for metric in self._usable[probe.name]
            if metric in self.tolerance
        }
        counter = AlarmCounter(limits, self.confirm)
        counter.strikes.update({key: count for key, count in self._state["strikes"].items() if key in limits})
        return counter

    def _takes(self, trainer: Trainer) -> bool:
        """Say whether a due check is taken, by what checks cost and training took so far."""
        started, probed = self._training_since
        seconds = time.perf_counter() - self._started - started - (self._state["probe_seconds"] - probed)
        return self._cadence.takes(trainer, self._cost, seconds)

    @contextmanager
    def _probing(self, module: LightningModule) -> Iterator[None]:
        """Count the time of what is done inside as the monitor's own."""
        _synchronise(module)
        self._probing_since = time.perf_counter()
        try:
            yield
        finally:
            self._state["probe_seconds"] += time.perf_counter() - self._probing_since


def _synchronise(module: LightningModule) -> None:
    """Wait for training steps still in flight, so that their time is not counted as the monitor's."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
