"""Take a model away: ONNX and ``torch.export`` programs that say what the checkpoint says, and what they cost."""

from __future__ import annotations

from lightning_transfer.export.facts import exported_facts
from lightning_transfer.export.int8 import METHOD, quantise
from lightning_transfer.export.latency import THREADS, measure_latency, timed_run
from lightning_transfer.export.network import exported_network, quantised_operations
from lightning_transfer.export.packages import ExportError, check_packages
from lightning_transfer.export.parity import (
    TOLERANCE,
    Parity,
    ParityError,
    Reference,
    check_parity,
    compare,
    exported_logits,
)
from lightning_transfer.export.program import OPSET, read_program, trace, write_onnx, write_program

__all__ = [
    "METHOD",
    "OPSET",
    "THREADS",
    "TOLERANCE",
    "ExportError",
    "Parity",
    "ParityError",
    "Reference",
    "check_packages",
    "check_parity",
    "compare",
    "exported_facts",
    "exported_logits",
    "exported_network",
    "measure_latency",
    "quantise",
    "quantised_operations",
    "read_program",
    "timed_run",
    "trace",
    "write_onnx",
    "write_program",
]
