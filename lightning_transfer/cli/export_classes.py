"""What the export of classifiers has in common, whatever they look at: one row of logits and one decision a record."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lightning_transfer import export as forms
from lightning_transfer.cli.export_forms import ExportedFile, Form, Run
from lightning_transfer.cli.export_int8 import Int8Loss, measure_loss
from lightning_transfer.evaluation import predictions, progress
from lightning_transfer.evaluation.terminal import align
from lightning_transfer.export.predict_onnx import BATCH
from lightning_transfer.types import Record

__all__ = ["ClassForm", "Latency"]


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a batch.

    Attributes:
        rows: Of `measure_latency`, the checkpoint's own module first.
    """

    rows: Sequence[Mapping[str, Any]]

    def of(self, label: str, kind: str) -> dict[str, Any]:
        """Return the times of one file, and of the checkpoint, for a batch of the first size."""
        times = {}
        for key in ("p50_ms", "p95_ms"):
            times[f"{key}_eager"] = self.rows[0][f"{key}_eager"]
            times[f"{key}_{kind}"] = self.rows[0][f"{key}_{label}"]
        return times

    def text(self) -> str:
        """Return a table."""
        rows = self.rows
        names = [key.removeprefix("p50_ms_") for key in rows[0] if key.startswith("p50_ms_")]
        cells = [("batch size", *names)]
        cells += [
            (str(row["batch_size"]), *(f"{row[f'p50_ms_{name}']:.2f} / {row[f'p95_ms_{name}']:.2f}" for name in names))
            for row in rows
        ]
        head = "Milliseconds for a batch on one CPU thread, median / 95th percentile, in turns"
        faster = [
            f"batch of {row['batch_size']}: " + ", ".join(f"{name} {row[f'speedup_{name}']:.1f}x" for name in names[1:])
            for row in rows
        ]
        last = [f"  Median of {names[0]} over theirs: {'; '.join(faster)}"] if len(names) > 1 else []
        return "\n".join([head, *(f"  {line}" for line in align(cells)), *last])


class ClassForm(Form):
    """Records that get one row of logits each."""

    @abstractmethod
    def logits(
        self, runs: Mapping[str, Run], records: Sequence[Record], way: str = ""
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the logits ``(L,)`` of each model for each record, in order; inputs are prepared by the script."""

    @abstractmethod
    def latency_inputs(self, records: Sequence[Record]) -> Any:  # noqa: ANN401 - as `measure_latency` takes them
        """Return what the models are timed on."""

    def reference(self, records: Sequence[Record]) -> forms.Reference:
        """Return logits and decisions of the checkpoint."""
        parts = []
        with progress("Checkpoint", len(records), self.show) as bar:
            for begin in range(0, len(records), BATCH):
                chunk = records[begin : begin + BATCH]
                parts.append(self.predictor.outputs(chunk)[0])
                bar.update(len(chunk))
        logits, ids = torch.cat(parts), tuple(record.id for record in records)
        found = predictions(logits, ids, self.predictor.schema, self.cli.calibration)
        return forms.Reference(ids, logits.numpy(), tuple(found))

    def compare(
        self, files: Mapping[str, ExportedFile], reference: forms.Reference, records: Sequence[Record]
    ) -> dict[str, forms.Parity]:
        """Compare logits, probabilities and decisions, in each way of making batches."""
        found: dict[str, list[forms.Parity]] = {name: [] for name in files}
        runs = {name: file.run for name, file in files.items()}
        for way in self.ways:
            with progress(f"Exported{way and ', '}{way}", len(records), self.show) as bar:
                rows = []
                for row in self.logits(runs, records, way):
                    rows.append(row)
                    bar.update(1)
            for name, file in files.items():
                parity = forms.compare(reference, np.stack([row[name] for row in rows]), file.facts)
                forms.check_parity(name, parity)
                found[name].append(parity)
        return {name: forms.worst(parities) for name, parities in found.items()}

    def loss(self, float_run: Run, int8_run: Run, test: Sequence[Record]) -> Int8Loss:
        """Compare scores and decisions of both."""
        return measure_loss(
            self.logits({"float": float_run, "int8": int8_run}, test), test, self.predictor.schema,
            self.cli.calibration, self.facts, show_progress=self.show,
        )  # fmt: skip

    def timing(self, runs: Mapping[str, Run], records: Sequence[Record]) -> Latency:
        """Time batches of two sizes."""
        return Latency(forms.measure_latency(runs, self.latency_inputs(records)))
