"""From a checkpoint and data to frozen results: runner, metrics with intervals, baselines, calibration, prediction."""

from __future__ import annotations

from lightning_transfer.evaluation.baselines import (
    Baseline,
    BaselineOutputs,
    fit_baselines,
    knn_baseline,
    linear_probe_baseline,
    majority_baseline,
)
from lightning_transfer.evaluation.calibrate import fit_calibration
from lightning_transfer.evaluation.classification import evaluate_classification
from lightning_transfer.evaluation.compare import ComparedRun, RunComparison, compare_runs, format_comparison
from lightning_transfer.evaluation.curves import CurvePoint, Reliability, measure_reliability, threshold_curve
from lightning_transfer.evaluation.decisions import write_confusion
from lightning_transfer.evaluation.latency import Latency, LatencyRow, measure_latency
from lightning_transfer.evaluation.neighbours import EXAMPLES_KEY, TrainingExamples, sample_examples
from lightning_transfer.evaluation.normal_only import evaluate_localisation, recall_by_kind
from lightning_transfer.evaluation.overview import format_overview
from lightning_transfer.evaluation.predictions import predictions
from lightning_transfer.evaluation.predictor import Predictor, load
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.results import ClassificationResult
from lightning_transfer.evaluation.runner import Outputs, collect_features, collect_outputs
from lightning_transfer.evaluation.scratch import Scratch, fit_scratch
from lightning_transfer.evaluation.slices import Slice, SliceTable, evaluate_slices
from lightning_transfer.evaluation.terminal import format_calibration, format_latency, format_slices, format_table

__all__ = [
    "EXAMPLES_KEY",
    "Baseline",
    "BaselineOutputs",
    "ClassificationResult",
    "ComparedRun",
    "CurvePoint",
    "Latency",
    "LatencyRow",
    "Outputs",
    "Predictor",
    "Reliability",
    "RunComparison",
    "Scratch",
    "Slice",
    "SliceTable",
    "TrainingExamples",
    "collect_features",
    "collect_outputs",
    "compare_runs",
    "evaluate_classification",
    "evaluate_localisation",
    "evaluate_slices",
    "fit_baselines",
    "fit_calibration",
    "fit_scratch",
    "format_calibration",
    "format_comparison",
    "format_latency",
    "format_overview",
    "format_slices",
    "format_table",
    "knn_baseline",
    "linear_probe_baseline",
    "load",
    "majority_baseline",
    "measure_latency",
    "measure_reliability",
    "predictions",
    "progress",
    "recall_by_kind",
    "sample_examples",
    "threshold_curve",
    "write_confusion",
]
