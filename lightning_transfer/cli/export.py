"""The verb ``export``: write the model in other forms, and keep what decides as the checkpoint does."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer import export as forms
from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.export_forms import Compared, ExportedFile, Form, Timing
from lightning_transfer.cli.export_images import ImageForm
from lightning_transfer.cli.export_options import ExportOptions
from lightning_transfer.cli.export_samples import Samples, samples_from_data
from lightning_transfer.cli.export_scans import ScanForm
from lightning_transfer.cli.export_speech import SpeechForm
from lightning_transfer.cli.export_texts import TextForm
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.cli.run_folder import environment
from lightning_transfer.cli.trainer_verbs import start
from lightning_transfer.evaluation import Predictor, load
from lightning_transfer.files import write_json

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["export"]

_ONNX, _INT8, _PT2 = "model.onnx", "model_int8.onnx", "model.pt2"


def export(recipe: Recipe, arguments: Arguments) -> int:
    """Write ``RUN/export``; nothing stays of a model that does not decide as the checkpoint does."""
    with start(recipe, arguments) as cli:
        if cli.draws_masks:
            raise UsageError(
                "Models that draw masks are not exported yet. Use the checkpoint: `lightning_transfer.load(RUN)`."
            )
        options = _options(cli)
        if options.format != "pt2":
            forms.check_packages()
        try:
            _Export(cli, options).write()
        except forms.ParityError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
    return 0


def _form(predictor: Predictor) -> type[Form]:
    if predictor.schema.task == "transcription":
        return SpeechForm
    return {"text": TextForm, "scan": ScanForm}.get(str(predictor.schema.preprocessing.get("kind")), ImageForm)


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
        self.form: Form = _form(self.predictor)(cli, self.predictor)

    def write(self) -> None:
        """Do all of it."""
        samples = self._samples()
        print(f"Compared on {samples.rule}")
        reference = self.form.reference(samples.records)
        with tempfile.TemporaryDirectory(dir=self.cli.output, prefix=".part-") as folder:
            place = Path(folder)
            files = self._write_models(place)
            self._check_facts(files)
            compared = dict(self.form.compare(files, reference, samples.records))
            self.form.check(place, samples.records)
            if self.options.int8:
                compared[_INT8] = self._quantise(place, files, samples)
            timing = self._timing(place, files, samples)
            for name, found in compared.items():
                print(found.text(name, _size(place / name)))
            print(timing.text())
            report = self._report(place, files, samples, compared, timing)
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

    def _check_facts(self, files: Mapping[str, ExportedFile]) -> None:
        """Refuse a file that says something else of itself than was written."""
        facts = self.form.facts
        for name, file in files.items():
            wrong = [key for key in facts if file.facts.get(key) != facts[key]]
            if wrong:
                raise forms.ParityError(
                    f"`{name}` does not say what the checkpoint says of `{wrong[0]}`, so it was not kept: "
                    f"{file.facts.get(wrong[0])}, and not {facts[wrong[0]]}."
                )

    def _quantise(self, place: Path, files: dict[str, ExportedFile], samples: Samples) -> Compared:
        """Write the 8-bit twin, and measure what it loses on the test split."""
        self.form.quantise(place / _ONNX, place / _INT8, samples.training)
        files[_INT8] = self.form.open_onnx(place / _INT8, "int8")
        return self.form.loss(files[_ONNX].run, files[_INT8].run, samples.test)

    def _timing(self, place: Path, files: Mapping[str, ExportedFile], samples: Samples) -> Timing:
        """Time the checkpoint's own module beside what was exported."""
        runs = {"eager": self.form.torch_run(self.predictor.module)}
        for name, file in files.items():
            runs[file.label] = self.form.timed_run(place / name) if name.endswith(".onnx") else file.run
        return self.form.timing(runs, samples.records)

    def _report(
        self,
        place: Path,
        files: Mapping[str, ExportedFile],
        samples: Samples,
        compared: Mapping[str, Compared],
        timing: Timing,
    ) -> dict[str, Any]:
        """Return ``export.json``."""
        rows = []
        for name, file in files.items():
            row = {"name": name, "size_mb": _size(place / name), "opset": None if name == _PT2 else forms.OPSET}
            row.update(compared[name].to_dict())
            if name == _INT8:
                row["quantisation"] = file.facts["quantisation"]
            row.update(timing.of(file.label, _kind(name)))
            rows.append(row)
        return {
            "files": rows,
            "samples": samples.rule,
            **self.form.report(files, samples.records),
            "latency": {"device": "cpu", "threads": forms.THREADS, "rows": [dict(row) for row in timing.rows]},
            "facts": self.form.facts,
            "environment": environment(self.cli.arguments.command, "cpu"),
        }


def _kind(name: str) -> str:
    return "pt2" if name == _PT2 else "onnx"


def _size(path: Path) -> float:
    """Return megabytes, with those of weights in a second file."""
    return sum(item.stat().st_size for item in path.parent.glob(f"{path.name}*")) / 1e6
