"""What the verb ``export`` must know of a kind of data: images and texts differ in it, and in nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.export import ExportedProgram

from lightning_transfer.cli.export_samples import Samples
from lightning_transfer.evaluation import Predictor
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["ExportedFile", "Form", "Run"]

Run = Callable[[Any], np.ndarray]
"""Maps prepared inputs of a batch to logits ``(N, L)``."""


@dataclass(frozen=True)
class ExportedFile:
    """One exported model, opened again as its user will open it.

    Attributes:
        label: Short name in the table of latencies.
        facts: As read from the file.
        run: Maps prepared inputs to logits.
    """

    label: str
    facts: Mapping[str, Any]
    run: Run


class Form(ABC):
    """How one kind of data is exported.

    Args:
        cli: After parsing; its calibration is that of the rate asked for.
        predictor: Of the checkpoint.

    Attributes:
        facts: What each exported file says of itself.
        ways: Names of the ways in which samples are put into batches for the comparison; one may be empty.
    """

    ways: tuple[str, ...] = ("",)

    def __init__(self, cli: TransferCLI, predictor: Predictor) -> None:
        self.cli = cli
        self.predictor = predictor
        self.facts: dict[str, Any] = {}

    @abstractmethod
    def samples(self, place: str, count: int) -> Samples:
        """Return what is compared on where the run's data are not at hand."""

    @abstractmethod
    def trace(self) -> ExportedProgram:
        """Return the network as a program."""

    @abstractmethod
    def write_script(self, folder: Path) -> None:
        """Write what predicts with the ONNX file, and all that it needs, beside it."""

    @abstractmethod
    def open_onnx(self, path: Path, label: str) -> ExportedFile:
        """Open an ONNX file by the script."""

    @abstractmethod
    def torch_run(self, network: Callable[..., Any]) -> Run:
        """Return a network of tensors as one of arrays, in torch's fastest mode that changes nothing."""

    @abstractmethod
    def logits(
        self, runs: Mapping[str, Run], records: Sequence[Record], way: str = ""
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the logits ``(L,)`` of each model for each record, in order; inputs are prepared by the script."""

    @abstractmethod
    def quantise(self, model: Path, target: Path, training: Sequence[Record]) -> None:
        """Write the 8-bit twin."""

    @abstractmethod
    def latency_inputs(self, records: Sequence[Record]) -> Any:  # noqa: ANN401 - as `measure_latency` takes them
        """Return what the models are timed on."""

    @abstractmethod
    def report(self, files: Mapping[str, ExportedFile], records: Sequence[Record]) -> dict[str, Any]:
        """Return further rows of ``export.json``."""

    def check(self, place: Path, records: Sequence[Record]) -> None:
        """Compare what else the written files decide; by default nothing.

        Raises:
            ParityError: If something differs.
        """
        return None
