"""From a run's folder to pages that a person reads: report, comparison, model card. Trains nothing, computes little."""

from __future__ import annotations

from lightning_transfer.reporting.comparison import write_comparison
from lightning_transfer.reporting.model_card import write_model_card
from lightning_transfer.reporting.report import build_report, write_report
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.verdict import Verdict, verdict

__all__ = [
    "RunFiles",
    "Verdict",
    "build_report",
    "verdict",
    "write_comparison",
    "write_model_card",
    "write_report",
]
