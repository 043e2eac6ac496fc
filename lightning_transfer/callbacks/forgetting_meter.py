"""Read the loss against a reference: what `ForgettingMonitor` measures with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.callbacks.forgetting_compare import FEATURE_METRICS, Outputs, compare
from lightning_transfer.callbacks.forgetting_findings import SourceFindings, source_auroc
from lightning_transfer.callbacks.forgetting_probe import Probe
from lightning_transfer.callbacks.forgetting_reading import FeatureReader, read_outputs, undisturbed
from lightning_transfer.callbacks.forgetting_report import SourceAccuracy
from lightning_transfer.callbacks.forgetting_store import ReferenceFile, load_reference, pack_reference, store_folders
from lightning_transfer.callbacks.forgetting_words import SourceWords, hear, word_error_rate
from lightning_transfer.errors import CheckpointError, listing
from lightning_transfer.metrics.bootstrap import Interval
from lightning_transfer.metrics.forgetting import predicted_class

__all__ = ["Meter", "synchronise"]


class Meter:
    """Probes, the way to their features, and the reference that they are compared with.

    All ranks call every method alike, so that a forward that communicates cannot hang; rank 0 alone compares.

    Args:
        reader: Where the features are; None where no metric asks for them.
        probes: The inputs.
        usable: Name of a probe -> the metrics that it can show.

    Attributes:
        file: The reference as a file; None on ranks that only follow a resumed run.
        cost: Seconds that a reading takes, as `take_reference` found.
    """

    def __init__(
        self, reader: FeatureReader | None, probes: Sequence[Probe], usable: Mapping[str, tuple[str, ...]]
    ) -> None:
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
        first = [probe.first() for probe in self.probes]
        synchronise(module)
        start = time.perf_counter()
        again = self._measure(trainer, module, first)
        middle = time.perf_counter()
        share, total = (sum(probe.size for probe in probes) for probes in (first, self.probes))
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
            folders = store_folders(trainer, resumed=True)
            needed = {probe.name: self._parts(probe) for probe in self.probes}
            try:
                self.file, self._reference = load_reference(name, sha256, folders, self.probes, needed)
            except CheckpointError as error:
                message = str(error)
        message = trainer.strategy.broadcast(message)
        if message:
            raise CheckpointError(message)

    def source_scores(self) -> dict[str, SourceAccuracy | SourceFindings | SourceWords]:
        """Return key -> what was scored on labelled source data in the reference; rank 0 knows it."""
        found: dict[str, SourceAccuracy | SourceFindings | SourceWords] = {}
        for probe in self.probes:
            if probe.name not in self._reference:
                continue
            usable, reference = self._usable[probe.name], self._reference[probe.name]
            if "accuracy" in usable and reference.logits is not None and probe.labels is not None:
                hits = (predicted_class(reference.logits) == probe.labels).double().mean().item()
                chance = probe.labels.bincount().max().item() / len(probe.labels)
                score = SourceAccuracy(hits, len(probe.labels), chance, probe.key("accuracy"))
                found[_source_name(probe, "accuracy")] = score
            if "auroc" in usable and reference.logits is not None and probe.findings is not None:
                for metric, item in source_auroc(reference.logits, probe.findings).items():
                    found[_source_name(probe, metric)] = SourceFindings(item, probe.key(metric))
            if "wer" in usable and reference.words is not None and probe.spoken is not None:
                before = word_error_rate(reference.words, probe.spoken)
                found[_source_name(probe, "wer")] = SourceWords(before, probe.key("wer"))
        return found

    def read(self, trainer: Trainer, module: LightningModule) -> dict[str, Interval]:
        """Return logged key -> loss against the reference, of the weights as they are."""
        return self._compare(trainer, self._measure(trainer, module, self.probes))

    def _parts(self, probe: Probe) -> tuple[str, ...]:
        """Return which outputs of a probe are measured."""
        usable = self._usable[probe.name]
        features = any(metric in FEATURE_METRICS for metric in usable)
        parts = {
            "features": features,
            "logits": features and self._reader is not None and self._reader.head is not None,
            "words": "wer" in usable,
        }
        return tuple(part for part, wanted in parts.items() if wanted)

    def _measure(self, trainer: Trainer, module: LightningModule, probes: Sequence[Probe]) -> dict[str, Outputs]:
        head = None if self._reader is None else self._reader.head_module(module)
        with undisturbed(module, head):
            return {probe.name: self._outputs(trainer, module, probe) for probe in probes}

    def _outputs(self, trainer: Trainer, module: LightningModule, probe: Probe) -> Outputs:
        parts, outputs = self._parts(probe), Outputs()
        if self._reader is not None and "features" in parts:
            outputs = read_outputs(self._reader, module, trainer, probe.batches)
        if probe.spoken is not None and "words" in parts:
            outputs = replace(outputs, words=hear(module, trainer, probe.batches, probe.spoken))
        return outputs

    def _compare(self, trainer: Trainer, current: Mapping[str, Outputs]) -> dict[str, Interval]:
        """Compare on rank 0, and tell all ranks, so that all decide alike."""
        readings: dict[str, Interval] = {}
        if trainer.is_global_zero:
            for probe in self.probes:
                name = probe.name
                about = (probe.labels, self._usable[name], probe.spoken, probe.findings)
                found = compare(self._reference[name], current[name], *about)
                readings.update({probe.key(metric): reading for metric, reading in found.items()})
        return dict(trainer.strategy.broadcast(readings))


def _source_name(probe: Probe, metric: str) -> str:
    return "_".join(part for part in ("source", probe.name, metric) if part)


def synchronise(module: LightningModule) -> None:
    """Wait for training steps still in flight, so that their time is not counted as the monitor's."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
