"""The verb ``export`` for models of images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export import ExportedProgram

from lightning_transfer import export as forms
from lightning_transfer.cli.export_classes import ClassForm
from lightning_transfer.cli.export_forms import ExportedFile, Run
from lightning_transfer.cli.export_samples import Samples, samples_from_folder
from lightning_transfer.evaluation import Predictor
from lightning_transfer.export import predict_onnx
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["ImageForm"]


class ImageForm(ClassForm):
    """Images: prepared by ``predict_onnx.py``, in tiles where the training had them.

    Attributes:
        script: The module that is the script.
        input_difference: The largest between what the script and the checkpoint prepared.
    """

    script: ModuleType = predict_onnx

    def __init__(self, cli: TransferCLI, predictor: Predictor) -> None:
        super().__init__(cli, predictor)
        self.facts = forms.exported_facts(predictor.module.card, predictor.schema, cli.calibration)
        self.spec: Mapping[str, Any] = self.facts["preprocessing"]
        self.threads = torch.get_num_threads()
        self.input_difference = 0.0

    def samples(self, place: str, count: int) -> Samples:
        """Return images below a folder."""
        return samples_from_folder(place, count)

    def trace(self) -> ExportedProgram:
        """Return the network for images of the size that it was trained with."""
        return forms.trace(forms.exported_network(self.predictor.module), (self.spec["channels"], *self.spec["size"]))

    def write_script(self, folder: Path) -> None:
        """Write the script, one file."""
        script = Path(str(self.script.__file__))
        shutil.copyfile(script, folder / script.name)

    def open_onnx(self, path: Path, label: str) -> ExportedFile:
        """Open it by the script."""
        model = self.script.Model(path, self.threads)
        return ExportedFile(label, model.facts, model.run)

    def torch_run(self, network: Callable[..., Any]) -> Run:
        """Return a network of image tensors as one of arrays."""

        def run(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                logits: np.ndarray = network(torch.from_numpy(images)).numpy()
                return logits

        return run

    def logits(
        self, runs: Mapping[str, Run], records: Sequence[Record], way: str = ""
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield logits of the pictures, tiles joined."""
        yield from forms.exported_logits(runs, self._prepared(records), self.facts)

    def quantise(self, model: Path, target: Path, training: Sequence[Record]) -> None:
        """Quantise in the ranges that training images set."""
        batches = (self.script.tensors(record.input, self.spec) for record in training)
        forms.quantise(model, target, batches, self.facts, forms.quantised_operations(self.predictor.module))

    def latency_inputs(self, records: Sequence[Record]) -> np.ndarray:
        """Return one picture: all take the same time."""
        found: np.ndarray = self.script.tensors(records[0].input, self.spec)
        return found

    def report(self, files: Mapping[str, ExportedFile], records: Sequence[Record]) -> dict[str, Any]:
        """Return how far the prepared inputs are from the checkpoint's."""
        return {"max_input_difference": self.input_difference}

    def _prepared(self, records: Sequence[Record]) -> Iterator[np.ndarray]:
        """Yield each sample as the script prepares it, and note how far that is from what the checkpoint was shown."""
        for record in records:
            try:
                images = self.script.tensors(record.input, self.spec)
            except predict_onnx.Unreadable as error:
                name = Path(str(self.script.__file__)).name
                raise forms.ParityError(
                    f"`{name}` cannot read `{record.id}`, which the checkpoint reads: {error}. Nothing was kept."
                ) from error
            ours = self.predictor.preprocess(record.input).numpy().reshape(images.shape)
            self.input_difference = max(self.input_difference, float(np.abs(images - ours).max()))
            yield images
