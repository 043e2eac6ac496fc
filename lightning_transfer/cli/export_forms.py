"""What the verb ``export`` must know of a kind of data: images, texts and speech differ in it, and in nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch.export import ExportedProgram

from lightning_transfer import export as forms
from lightning_transfer.cli.export_samples import Samples
from lightning_transfer.evaluation import Predictor
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["Compared", "ExportedFile", "Form", "Run", "Timing"]

Run = Callable[[Any], Any]
"""Maps prepared inputs of a batch to logits ``(N, L)``; of speech to those of each piece, ``(frames, L)``."""


class Compared(Protocol):
    """How an exported model was found beside the checkpoint, or an 8-bit one beside the float one."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``export.json``."""

    def text(self, name: str, size_mb: float) -> str:
        """Return what the terminal shows of the file of that name."""


class Timing(Protocol):
    """How long the models take."""

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Plain values for ``export.json``."""

    def of(self, label: str, kind: str) -> dict[str, Any]:
        """Return what the row of one file says of it."""

    def text(self) -> str:
        """Return what the terminal shows."""


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
        show: Whether bars are shown.
    """

    ways: tuple[str, ...] = ("",)

    def __init__(self, cli: TransferCLI, predictor: Predictor) -> None:
        self.cli = cli
        self.predictor = predictor
        self.facts: dict[str, Any] = {}

    @property
    def show(self) -> bool:
        """As the trainer does."""
        return self.cli.trainer.progress_bar_callback is not None

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

    def timed_run(self, path: Path) -> Run:
        """Open an ONNX file on one thread, to be timed."""
        return forms.timed_run(path)

    @abstractmethod
    def reference(self, records: Sequence[Record]) -> Any:  # noqa: ANN401 - as `compare` takes it
        """Return what the checkpoint says, with the preprocessing and the decisions of this package."""

    @abstractmethod
    def compare(
        self,
        files: Mapping[str, ExportedFile],
        reference: Any,  # noqa: ANN401 - of `reference`
        records: Sequence[Record],
    ) -> Mapping[str, Compared]:
        """Compare each model with the checkpoint, prepared by the script.

        Raises:
            ParityError: If one says something else.
        """

    @abstractmethod
    def quantise(self, model: Path, target: Path, training: Sequence[Record]) -> None:
        """Write the 8-bit twin."""

    @abstractmethod
    def loss(self, float_run: Run, int8_run: Run, test: Sequence[Record]) -> Compared:
        """Measure on the test split what 8 bits lose."""

    @abstractmethod
    def timing(self, runs: Mapping[str, Run], records: Sequence[Record]) -> Timing:
        """Time the models beside each other."""

    @abstractmethod
    def report(self, files: Mapping[str, ExportedFile], records: Sequence[Record]) -> dict[str, Any]:
        """Return further rows of ``export.json``."""

    def check(self, place: Path, records: Sequence[Record]) -> None:
        """Compare what else the written files decide; by default nothing.

        Raises:
            ParityError: If something differs.
        """
        return None
