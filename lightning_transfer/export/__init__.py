"""Take a model away: ONNX and ``torch.export`` programs that say what the checkpoint says, and what they cost."""

from __future__ import annotations

from lightning_transfer.export.facts import exported_facts, speech_facts
from lightning_transfer.export.int8 import METHOD, TEXT_METHOD, quantise, quantise_texts
from lightning_transfer.export.latency import THREADS, measure_latency, measure_real_time, timed_run
from lightning_transfer.export.network import exported_network, quantised_operations, speech_network_facts
from lightning_transfer.export.packages import ExportError, check_packages
from lightning_transfer.export.parity import (
    TOLERANCE,
    Parity,
    ParityError,
    Reference,
    check_parity,
    compare,
    exported_logits,
    worst,
)
from lightning_transfer.export.parts import SCAN_PARTS, SPEECH_PARTS, write_script
from lightning_transfer.export.program import (
    OPSET,
    read_program,
    trace,
    trace_speech,
    trace_texts,
    write_onnx,
    write_program,
)
from lightning_transfer.export.speech_parity import SpeechParity
from lightning_transfer.export.text_batches import by_length, padded

__all__ = [
    "METHOD",
    "OPSET",
    "SCAN_PARTS",
    "SPEECH_PARTS",
    "TEXT_METHOD",
    "THREADS",
    "TOLERANCE",
    "ExportError",
    "Parity",
    "ParityError",
    "Reference",
    "SpeechParity",
    "by_length",
    "check_packages",
    "check_parity",
    "compare",
    "exported_facts",
    "exported_logits",
    "exported_network",
    "measure_latency",
    "measure_real_time",
    "padded",
    "quantise",
    "quantise_texts",
    "quantised_operations",
    "read_program",
    "speech_facts",
    "speech_network_facts",
    "timed_run",
    "trace",
    "trace_speech",
    "trace_texts",
    "worst",
    "write_onnx",
    "write_program",
    "write_script",
]
