"""What 8 bits lose: the quantised model beside the float one, on the whole test split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lightning_transfer.evaluation import (
    BaselineOutputs,
    ClassificationResult,
    Outputs,
    evaluate_classification,
    progress,
)
from lightning_transfer.export.predict_onnx import judge
from lightning_transfer.types import Calibration, Record, Schema

__all__ = ["Int8Loss", "measure_loss"]

_METRICS = ("macro_f1", "auroc")


@dataclass(frozen=True)
class Int8Loss:
    """The 8-bit model beside the float one.

    Attributes:
        result: Scores of the float model; the 8-bit one is its baseline ``int8``.
        n: Records of the test split.
        same_decisions: Records with the same decision by both.
        max_difference: Of logits, the largest.
    """

    result: ClassificationResult
    n: int
    same_decisions: int
    max_difference: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``export.json``; ``lost`` is float minus 8 bits, paired, with its interval."""
        scores = {
            name: {
                "float": self.result.metrics[name].to_dict(),
                "int8": self.result.baselines["int8"][name].to_dict(),
                "lost": self.result.differences["int8"][name].to_dict(),
            }
            for name in _METRICS
            if name in self.result.metrics
        }
        return {
            "n": self.n,
            "same_decisions": self.same_decisions,
            "max_difference": self.max_difference,
            "scores": scores,
        }

    def text(self, name: str, size_mb: float) -> str:
        """Return what the terminal shows."""
        share = self.same_decisions / self.n
        lines = [
            f"{name}: {size_mb:.1f} MB; {self.same_decisions} of {self.n} decisions on test as in float ({share:.1%})"
        ]
        for metric in _METRICS:
            if metric in self.result.metrics:
                lines.append(
                    f"  {metric}: {self.result.metrics[metric]} in float, {self.result.baselines['int8'][metric]} in "
                    f"8 bits, lost {self.result.differences['int8'][metric]}"
                )
        return "\n".join(lines)


def measure_loss(
    rows: Iterable[Mapping[str, np.ndarray]],
    records: Sequence[Record],
    schema: Schema,
    calibration: Calibration,
    facts: Mapping[str, Any],
    *,
    show_progress: bool = False,
) -> Int8Loss:
    """Compare scores and decisions of both models on the test split.

    Temperature and threshold are the float model's for both: what is exported carries these.

    Args:
        rows: Logits ``(L,)`` of each record by ``float`` and ``int8``, read once.
        records: Of the test split, labelled.
        schema: Task and classes.
        calibration: Temperature and threshold.
        facts: Of the exported model.
        show_progress: Show bars.
    """
    found: dict[str, list[np.ndarray]] = {"float": [], "int8": []}
    with progress("8 bits", len(records), show_progress) as bar:
        for row in rows:
            for name, values in row.items():
                found[name].append(values)
            bar.update(1)
    logits = {name: np.stack(values) for name, values in found.items()}
    labels = Outputs.from_labels(records, schema)
    result = evaluate_classification(
        labels.with_logits(torch.from_numpy(logits["float"])), records, schema, calibration,
        baselines={"int8": BaselineOutputs(labels.with_logits(torch.from_numpy(logits["int8"])), calibration)},
        show_progress=show_progress,
    )  # fmt: skip
    pairs = zip(logits["float"], logits["int8"], strict=True)
    same = sum(judge(one, facts)[2] == judge(other, facts)[2] for one, other in pairs)
    return Int8Loss(result, len(records), same, float(np.abs(logits["float"] - logits["int8"]).max()))
