"""From a checkpoint and data to frozen results: runner, metrics with intervals, baselines, calibration, prediction."""

from __future__ import annotations

from lightning_transfer.evaluation.baselines import (
    Baseline,
    BaselineOutputs,
    calibrate_baseline,
    fit_baselines,
    knn_baseline,
    linear_probe_baseline,
    majority_baseline,
)
from lightning_transfer.evaluation.calibrate import fit_calibration
from lightning_transfer.evaluation.classification import evaluate_classification
from lightning_transfer.evaluation.clinical import measure_clinical
from lightning_transfer.evaluation.clinical_points import (
    CLINICAL_KEY,
    ClinicalPoints,
    FindingPoint,
    fit_clinical_points,
)
from lightning_transfer.evaluation.clinical_result import AppliedPoint, ClinicalResult, FindingResult
from lightning_transfer.evaluation.clinical_terminal import format_clinical, format_clinical_points, format_gaps
from lightning_transfer.evaluation.compare import ComparedRun, RunComparison, compare_runs, format_comparison
from lightning_transfer.evaluation.curves import CurvePoint, Reliability, measure_reliability, threshold_curve
from lightning_transfer.evaluation.decisions import write_confusion
from lightning_transfer.evaluation.ensembles import (
    Ensemble,
    UncertainPrediction,
    join_outputs,
    load_ensemble,
    predict_views,
)
from lightning_transfer.evaluation.label_check import (
    LabelCheck,
    check_labels,
    format_suspects,
    label_indices,
    write_suspects,
)
from lightning_transfer.evaluation.latency import Latency, LatencyRow, measure_latency
from lightning_transfer.evaluation.neighbours import EXAMPLES_KEY, TrainingExamples, sample_examples
from lightning_transfer.evaluation.normal_only import evaluate_localisation, recall_by_kind
from lightning_transfer.evaluation.overview import format_overview
from lightning_transfer.evaluation.predictions import predictions
from lightning_transfer.evaluation.predictor import Predictor, load
from lightning_transfer.evaluation.probe import ProbeScore, probe_features
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.recommend import DataFacts, Recommendation, format_recommendation, recommend
from lightning_transfer.evaluation.results import ClassificationResult
from lightning_transfer.evaluation.routing_decide import RoutingDecision, decide
from lightning_transfer.evaluation.routing_file import write_decisions
from lightning_transfer.evaluation.routing_fit import fit_routing
from lightning_transfer.evaluation.routing_metrics import RoutingResult, measure_routing
from lightning_transfer.evaluation.routing_policy import ROUTING_KEY, RoutingPolicy
from lightning_transfer.evaluation.routing_terminal import format_decisions, format_policy, format_routing
from lightning_transfer.evaluation.runner import (
    Outputs,
    collect_features,
    collect_outputs,
    collect_transcripts,
    stream_outputs,
)
from lightning_transfer.evaluation.scratch import Scratch, fit_scratch
from lightning_transfer.evaluation.segmentation import MaskRow, evaluate_segmentation
from lightning_transfer.evaluation.segmentation_file import MaskWriter, write_masks_table
from lightning_transfer.evaluation.segmentation_judge import DrawnMask, JudgedMask, MaskJudge, judge_mask
from lightning_transfer.evaluation.segmentation_maps import restore_logits, write_mask
from lightning_transfer.evaluation.segmentation_plain import fit_pixels
from lightning_transfer.evaluation.segmentation_result import SegmentationResult
from lightning_transfer.evaluation.segmentation_terminal import format_segmentation
from lightning_transfer.evaluation.segmenter import PredictedMask, Segmenter
from lightning_transfer.evaluation.slice_gaps import SliceGap
from lightning_transfer.evaluation.slices import Slice, SliceTable, evaluate_slices
from lightning_transfer.evaluation.suspects import Suspect, SuspectGroup, find_suspects, rank_groups
from lightning_transfer.evaluation.terminal import format_calibration, format_latency, format_slices, format_table
from lightning_transfer.evaluation.transcription import RecogniserOutputs, evaluate_transcription
from lightning_transfer.evaluation.transcription_result import TranscriptionResult
from lightning_transfer.evaluation.transcription_terminal import format_transcription
from lightning_transfer.evaluation.transcripts_file import write_transcripts
from lightning_transfer.evaluation.transcripts_join import join_transcripts
from lightning_transfer.metrics.routing_costs import check_costs

__all__ = [
    "CLINICAL_KEY",
    "EXAMPLES_KEY",
    "ROUTING_KEY",
    "AppliedPoint",
    "Baseline",
    "BaselineOutputs",
    "ClassificationResult",
    "ClinicalPoints",
    "ClinicalResult",
    "ComparedRun",
    "CurvePoint",
    "DataFacts",
    "DrawnMask",
    "Ensemble",
    "FindingPoint",
    "FindingResult",
    "JudgedMask",
    "LabelCheck",
    "Latency",
    "LatencyRow",
    "MaskJudge",
    "MaskRow",
    "MaskWriter",
    "Outputs",
    "PredictedMask",
    "Predictor",
    "ProbeScore",
    "RecogniserOutputs",
    "Recommendation",
    "Reliability",
    "RoutingDecision",
    "RoutingPolicy",
    "RoutingResult",
    "RunComparison",
    "Scratch",
    "SegmentationResult",
    "Segmenter",
    "Slice",
    "SliceGap",
    "SliceTable",
    "Suspect",
    "SuspectGroup",
    "TrainingExamples",
    "TranscriptionResult",
    "UncertainPrediction",
    "calibrate_baseline",
    "check_costs",
    "check_labels",
    "collect_features",
    "collect_outputs",
    "collect_transcripts",
    "compare_runs",
    "decide",
    "evaluate_classification",
    "evaluate_localisation",
    "evaluate_segmentation",
    "evaluate_slices",
    "evaluate_transcription",
    "find_suspects",
    "fit_baselines",
    "fit_calibration",
    "fit_clinical_points",
    "fit_pixels",
    "fit_routing",
    "fit_scratch",
    "format_calibration",
    "format_clinical",
    "format_clinical_points",
    "format_comparison",
    "format_decisions",
    "format_gaps",
    "format_latency",
    "format_overview",
    "format_policy",
    "format_recommendation",
    "format_routing",
    "format_segmentation",
    "format_slices",
    "format_suspects",
    "format_table",
    "format_transcription",
    "join_outputs",
    "join_transcripts",
    "judge_mask",
    "knn_baseline",
    "label_indices",
    "linear_probe_baseline",
    "load",
    "load_ensemble",
    "majority_baseline",
    "measure_clinical",
    "measure_latency",
    "measure_reliability",
    "measure_routing",
    "predict_views",
    "predictions",
    "probe_features",
    "progress",
    "rank_groups",
    "recall_by_kind",
    "recommend",
    "restore_logits",
    "sample_examples",
    "stream_outputs",
    "threshold_curve",
    "write_confusion",
    "write_decisions",
    "write_mask",
    "write_masks_table",
    "write_suspects",
    "write_transcripts",
]
