"""Metrics as pure functions: intervals, classification, thresholds, calibration, forgetting, cost."""

from __future__ import annotations

from lightning_transfer.metrics.bootstrap import (
    Interval,
    Resamples,
    cluster_bootstrap,
    group_codes,
    paired_difference,
    resample,
)
from lightning_transfer.metrics.calibration import (
    brier_terms,
    calibration_error,
    fit_temperature,
    log_loss_terms,
    log_probabilities,
    negative_log_likelihood,
    probabilities,
)
from lightning_transfer.metrics.cka import cka_statistic, unbiased_cka, unbiased_hsic
from lightning_transfer.metrics.classification import (
    ClassCounts,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    class_counts,
    macro_auroc,
    macro_average_precision,
    macro_f1,
    mean_defined,
    recall_per_class,
    weighted_mean,
)
from lightning_transfer.metrics.cost import TrainingMemory, saved_activation_bytes, trainable_memory
from lightning_transfer.metrics.forgetting import (
    agreement,
    cosine_distance,
    kl_divergence,
    knn_predictions,
    l2_distance,
    predicted_class,
)
from lightning_transfer.metrics.localisation import (
    PixelCounts,
    count_pixels,
    label_regions,
    pixel_auroc,
    region_overlap,
    score_bins,
)
from lightning_transfer.metrics.threshold import (
    Threshold,
    threshold_at_false_positive_rate,
    threshold_at_precision,
    threshold_max_f1,
)

__all__ = [
    "ClassCounts",
    "Interval",
    "PixelCounts",
    "Resamples",
    "Threshold",
    "TrainingMemory",
    "accuracy",
    "agreement",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier_terms",
    "calibration_error",
    "cka_statistic",
    "class_counts",
    "cluster_bootstrap",
    "cosine_distance",
    "count_pixels",
    "fit_temperature",
    "group_codes",
    "kl_divergence",
    "knn_predictions",
    "l2_distance",
    "label_regions",
    "log_loss_terms",
    "log_probabilities",
    "macro_auroc",
    "macro_average_precision",
    "macro_f1",
    "mean_defined",
    "negative_log_likelihood",
    "paired_difference",
    "pixel_auroc",
    "predicted_class",
    "probabilities",
    "recall_per_class",
    "region_overlap",
    "resample",
    "saved_activation_bytes",
    "score_bins",
    "threshold_at_false_positive_rate",
    "threshold_at_precision",
    "threshold_max_f1",
    "trainable_memory",
    "unbiased_cka",
    "unbiased_hsic",
    "weighted_mean",
]
