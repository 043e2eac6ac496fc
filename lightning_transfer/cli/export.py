"""The verb ``export``: write the model in other forms, and keep what decides as the checkpoint does."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lightning_transfer import export as forms
from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.export_forms import ExportedFile, Form
from lightning_transfer.cli.export_images import ImageForm
from lightning_transfer.cli.export_int8 import Int8Loss, measure_loss
from lightning_transfer.cli.export_options import ExportOptions
from lightning_transfer.cli.export_samples import Samples, samples_from_data
from lightning_transfer.cli.export_texts import TextForm
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.cli.run_folder import environment
from lightning_transfer.cli.trainer_verbs import start
from lightning_transfer.evaluation import Predictor, load, predictions, progress
from lightning_transfer.evaluation.terminal import align
from lightning_transfer.export.predict_onnx import BATCH
from lightning_transfer.files import write_json
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["export"]

_ONNX, _INT8, _PT2 = "model.onnx", "model_int8.onnx", "model.pt2"


def export(recipe: Recipe, arguments: Arguments) -> int:
    """Write ``RUN/export``; nothing stays of a model that does not decide as the checkpoint does."""
    with start(recipe, arguments) as cli:
        options = _options(cli)
        if options.format != "pt2":
            forms.check_packages()
        try:
            _Export(cli, options).write()
        except forms.ParityError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
    return 0


def _options(cli: TransferCLI) -> ExportOptions:
    try:
        return ExportOptions(**{item.name: cli.config[item.name] for item in fields(ExportOptions)})
    except ValueError as error:
        raise UsageError(str(error)) from error


class _Export:
    """One export, step by step: write into a hidden folder, compare, measure, and only then put in place."""

    def __init__(self, cli: TransferCLI, options: ExportOptions) -> None:
        self.cli = cli
        self.options = options
        self.predictor: Predictor = load(cli.source.checkpoint or "")
        kind = self.predictor.schema.preprocessing.get("kind")
        self.form: Form = (TextForm if kind == "text" else ImageForm)(cli, self.predictor)
        self.show = cli.trainer.progress_bar_callback is not None

    def write(self) -> None:
        """Do all of it."""
        samples = self._samples()
        print(f"Compared on {samples.rule}")
        reference = self._reference(samples.records)
        with tempfile.TemporaryDirectory(dir=self.cli.output, prefix=".part-") as folder:
            place = Path(folder)
            files = self._write_models(place)
            parities = self._compare(files, reference, samples)
            self.form.check(place, samples.records)
            loss = self._quantise(place, files, samples) if self.options.int8 else None
            latency = self._latency(place, files, samples.records)
            for name, parity in parities.items():
                print(_parity_line(name, place / name, parity))
            if loss is not None:
                print(loss.text(_INT8, _size(place / _INT8)))
            print(_latency_table(latency))
            report = self._report(place, files, samples, parities, loss, latency)
            for path in sorted(place.iterdir()):
                path.replace(self.cli.output / path.name)
        # Last: where it stands, all that it speaks of stands beside it.
        write_json(self.cli.output / "export.json", report)
        print(f"Written: {', '.join(sorted(item.name for item in self.cli.output.iterdir()))} in {self.cli.output}")

    def _samples(self) -> Samples:
        if self.options.samples is not None:
            return self.form.samples(self.options.samples, self.options.n_samples)
        found = samples_from_data(self.cli, self.predictor.module, self.options.n_samples)
        if self.options.int8 and not (found.training and found.test):
            missing = "test" if found.training else "training"
            raise UsageError(f"`--int8` needs {missing} records, and the data of the run have none. Leave it out.")
        return found

    def _reference(self, records: Sequence[Record]) -> forms.Reference:
        """Return what the checkpoint says, with the preprocessing and the decisions of this package."""
        parts = []
        with progress("Checkpoint", len(records), self.show) as bar:
            for begin in range(0, len(records), BATCH):
                chunk = records[begin : begin + BATCH]
                parts.append(self.predictor.outputs(chunk)[0])
                bar.update(len(chunk))
        logits, ids = torch.cat(parts), tuple(record.id for record in records)
        found = predictions(logits, ids, self.predictor.schema, self.cli.calibration)
        return forms.Reference(ids, logits.numpy(), tuple(found))

    def _write_models(self, place: Path) -> dict[str, ExportedFile]:
        """Write the models that are asked for, and open them again as their users will."""
        files = {}
        program = self.form.trace()
        if self.options.format in ("onnx", "both"):
            forms.write_onnx(program, place / _ONNX, self.form.facts)
            self.form.write_script(place)
            files[_ONNX] = self.form.open_onnx(place / _ONNX, "onnx")
        if self.options.format in ("pt2", "both"):
            forms.write_program(program, place / _PT2, self.form.facts)
            network, facts = forms.read_program(place / _PT2)
            files[_PT2] = ExportedFile("pt2", facts, self.form.torch_run(network))
        return files

    def _compare(
        self, files: Mapping[str, ExportedFile], reference: forms.Reference, samples: Samples
    ) -> dict[str, forms.Parity]:
        """Compare each model with the checkpoint, prepared by the script, and refuse what differs."""
        facts = self.form.facts
        for name, file in files.items():
            wrong = [key for key in facts if file.facts.get(key) != facts[key]]
            if wrong:
                raise forms.ParityError(
                    f"`{name}` does not say what the checkpoint says of `{wrong[0]}`, so it was not kept: "
                    f"{file.facts.get(wrong[0])}, and not {facts[wrong[0]]}."
                )
        found: dict[str, list[forms.Parity]] = {name: [] for name in files}
        runs = {name: file.run for name, file in files.items()}
        for way in self.form.ways:
            with progress(f"Exported{way and ', '}{way}", len(samples.records), self.show) as bar:
                rows = []
                for row in self.form.logits(runs, samples.records, way):
                    rows.append(row)
                    bar.update(1)
            for name, file in files.items():
                parity = forms.compare(reference, np.stack([row[name] for row in rows]), file.facts)
                forms.check_parity(name, parity)
                found[name].append(parity)
        return {name: forms.worst(parities) for name, parities in found.items()}

    def _quantise(self, place: Path, files: dict[str, ExportedFile], samples: Samples) -> Int8Loss:
        """Write the 8-bit twin, and measure what it loses on the test split."""
        self.form.quantise(place / _ONNX, place / _INT8, samples.training)
        files[_INT8] = self.form.open_onnx(place / _INT8, "int8")
        runs = {"float": files[_ONNX].run, "int8": files[_INT8].run}
        return measure_loss(
            self.form.logits(runs, samples.test), samples.test, self.predictor.schema, self.cli.calibration,
            self.form.facts, show_progress=self.show,
        )  # fmt: skip

    def _latency(
        self, place: Path, files: Mapping[str, ExportedFile], records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        """Time the checkpoint's own module beside what was exported."""
        runs = {"eager": self.form.torch_run(self.predictor.module)}
        for name, file in files.items():
            runs[file.label] = forms.timed_run(place / name) if name.endswith(".onnx") else file.run
        return forms.measure_latency(runs, self.form.latency_inputs(records))

    def _report(
        self,
        place: Path,
        files: Mapping[str, ExportedFile],
        samples: Samples,
        parities: Mapping[str, forms.Parity],
        loss: Int8Loss | None,
        latency: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Return ``export.json``."""
        rows = []
        for name, file in files.items():
            row = {"name": name, "size_mb": _size(place / name), "opset": None if name == _PT2 else forms.OPSET}
            row.update(parities[name].to_dict() if name in parities else (loss.to_dict() if loss is not None else {}))
            if name == _INT8:
                row["quantisation"] = file.facts["quantisation"]
            for key in ("p50_ms", "p95_ms"):
                row[f"{key}_eager"] = latency[0][f"{key}_eager"]
                row[f"{key}_{_kind(name)}"] = latency[0][f"{key}_{file.label}"]
            rows.append(row)
        return {
            "files": rows,
            "samples": samples.rule,
            **self.form.report(files, samples.records),
            "latency": {"device": "cpu", "threads": forms.THREADS, "rows": [dict(row) for row in latency]},
            "facts": self.form.facts,
            "environment": environment(self.cli.arguments.command, "cpu"),
        }


def _kind(name: str) -> str:
    return "pt2" if name == _PT2 else "onnx"


def _size(path: Path) -> float:
    """Return megabytes, with those of weights in a second file."""
    return sum(item.stat().st_size for item in path.parent.glob(f"{path.name}*")) / 1e6


def _parity_line(name: str, path: Path, parity: forms.Parity) -> str:
    return (
        f"{name}: {_size(path):.1f} MB; logits differ by at most {parity.max_difference:.1e} (allowed "
        f"{parity.tolerance:.1e}), probabilities by {parity.max_probability_difference:.1e} (allowed "
        f"{forms.TOLERANCE:.0e}); {parity.n - len(parity.changed)} of {parity.n} decisions are the checkpoint's"
    )


def _latency_table(rows: Sequence[Mapping[str, Any]]) -> str:
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
