"""Read the loss against a reference: what `ForgettingMonitor` measures with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.callbacks.forgetting_probe import Probe
from lightning_transfer.callbacks.forgetting_reading import (
    FeatureReader,
    Outputs,
    compare,
    read_outputs,
    undisturbed,
)
from lightning_transfer.callbacks.forgetting_report import SourceAccuracy
from lightning_transfer.callbacks.forgetting_store import ReferenceFile, load_reference, pack_reference, store_folders
from lightning_transfer.errors import CheckpointError, listing
from lightning_transfer.metrics.bootstrap import Interval
from lightning_transfer.metrics.forgetting import predicted_class

__all__ = ["Meter", "synchronise"]


class Meter:
    """Probes, the way to their features, and the reference that they are compared with.

    All ranks call every method alike, so that a forward that communicates cannot hang; rank 0 alone compares.

    Args:
        reader: Where the features are.
        probes: The inputs.
        usable: Name of a probe -> the metrics that it can show.

    Attributes:
        file: The reference as a file; None on ranks that only follow a resumed run.
        cost: Seconds that a reading takes, as `take_reference` found.
    """

    def __init__(self, reader: FeatureReader, probes: Sequence[Probe], usable: Mapping[str, tuple[str, ...]]) -> None:
        self.probes = list(probes)
        self.file: ReferenceFile | None = None
        self.cost = 0.0
        self._reader = reader
        self._usable = usable
        self._reference: dict[str, Outputs] = {}

    def limits(self, tolerance: Mapping[str, float], *, proxies: bool) -> dict[str, float]:
        """Return logged key -> tolerance, of what can be shown.

        Args:
            tolerance: Metric -> the loss that is still fine.
            proxies: Whether stand-ins for source data count, too.
        """
        return {
            probe.key(metric): tolerance[metric]
            for probe in self.probes
            for metric in self._usable[probe.name]
            if metric in tolerance and (proxies or not probe.proxy)
        }

    def take_reference(
        self, trainer: Trainer, module: LightningModule, limited: Sequence[str]
    ) -> tuple[dict[str, Interval], str, str]:
        """Measure all probes, and the first batch of each again: that tells the cost, and whether 0 can be read.

        Args:
            trainer: Of the fit.
            module: With the weights that count as pretrained.
            limited: Keys that have a tolerance.

        Returns:
            The readings, and name and hash of the reference, which are rank 0's on all ranks.

        Raises:
            MisconfigurationException: If a tolerance is on what the probes cannot show.
        """
        self._reference = self._measure(trainer, module, self.probes)
        first = [Probe(item.name, item.proxy, item.batches[:1], None, "") for item in self.probes]
        synchronise(module)
        start = time.perf_counter()
        again = self._measure(trainer, module, first)
        middle = time.perf_counter()
        share = sum(len(item.features) for item in again.values())
        total = sum(len(item.features) for item in self._reference.values())
        current = {name: outputs.with_first(again[name]) for name, outputs in self._reference.items()}
        readings = self._compare(trainer, current)
        self.cost = (middle - start) * total / share + time.perf_counter() - middle
        self.file = pack_reference(self._reference, self.probes)
        # Those of other ranks may differ in the last digits.
        name, sha256 = trainer.strategy.broadcast((self.file.name, self.file.sha256))
        odd = [key for key, reading in readings.items() if reading.value]
        undefined = [f"{key} ({readings[key].reason})" for key in limited if readings[key].value is None]
        if undefined:
            raise MisconfigurationException(
                f"`tolerance` names what this probe cannot show: {listing(undefined)}. Take another metric or probe."
            )
        if odd:
            rank_zero_warn(
                f"ForgettingMonitor: measured twice before training, {listing(odd)} is not exactly 0 (largest "
                f"{max(readings[key].value or 0.0 for key in odd):.2g}). Something in the model is random in eval mode."
            )
        return readings, name, sha256

    def load_reference(self, trainer: Trainer, name: str, sha256: str) -> None:
        """Read the reference of a resumed run on rank 0; all ranks raise if that fails.

        Raises:
            CheckpointError: If it is missing, has changed, or is of other probes.
        """
        message = ""
        if trainer.is_global_zero:
            folders, with_logits = store_folders(trainer, resumed=True), self._reader.head is not None
            try:
                self.file, self._reference = load_reference(name, sha256, folders, self.probes, with_logits)
            except CheckpointError as error:
                message = str(error)
        message = trainer.strategy.broadcast(message)
        if message:
            raise CheckpointError(message)

    def source_accuracies(self) -> dict[str, SourceAccuracy]:
        """Return key -> what the source head scored on labelled source data in the reference; rank 0 knows it."""
        found = {}
        for probe in self.probes:
            if "accuracy" not in self._usable[probe.name] or probe.name not in self._reference:
                continue
            logits = self._reference[probe.name].logits
            if logits is not None and probe.labels is not None:
                hits = (predicted_class(logits) == probe.labels).double().mean().item()
                chance = probe.labels.bincount().max().item() / len(probe.labels)
                name = "_".join(part for part in ("source", probe.name, "accuracy") if part)
                found[name] = SourceAccuracy(hits, len(probe.labels), chance, probe.key("accuracy"))
        return found

    def read(self, trainer: Trainer, module: LightningModule) -> dict[str, Interval]:
        """Return logged key -> loss against the reference, of the weights as they are."""
        return self._compare(trainer, self._measure(trainer, module, self.probes))

    def _measure(self, trainer: Trainer, module: LightningModule, probes: Sequence[Probe]) -> dict[str, Outputs]:
        with undisturbed(module, self._reader.head_module(module)):
            return {probe.name: read_outputs(self._reader, module, trainer, probe.batches) for probe in probes}

    def _compare(self, trainer: Trainer, current: Mapping[str, Outputs]) -> dict[str, Interval]:
        """Compare on rank 0, and tell all ranks, so that all decide alike."""
        readings: dict[str, Interval] = {}
        if trainer.is_global_zero:
            for probe in self.probes:
                name = probe.name
                found = compare(self._reference[name], current[name], probe.labels, self._usable[name])
                readings.update({probe.key(metric): reading for metric, reading in found.items()})
        return dict(trainer.strategy.broadcast(readings))


def synchronise(module: LightningModule) -> None:
    """Wait for training steps still in flight, so that their time is not counted as the monitor's."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
