"""Evaluate a classifier: every number with its interval, beside plain baselines on the same draws."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.baselines import BaselineOutputs
from lightning_transfer.evaluation.confusions import find_confusions
from lightning_transfer.evaluation.decisions import confusion_matrix, find_escapes
from lightning_transfer.evaluation.judges import intervals, judge
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.results import ClassificationResult
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import decided_classes, labels_of, negative_index, predicted_classes
from lightning_transfer.metrics import Interval, Resamples
from lightning_transfer.types import Calibration, Record, Schema

__all__ = ["COMPARED", "evaluate_classification"]

_log = logging.getLogger(__name__)

COMPARED = (
    *("macro_f1", "micro_f1", "macro_f1_at_thresholds", "micro_f1_at_thresholds", "accuracy", "top_3_accuracy"),
    *("balanced_accuracy", "auroc", "average_precision", "log_loss", "brier"),
)
"""Metrics whose paired difference to each baseline is reported; those of levels above the leaves come to them."""


def evaluate_classification(
    outputs: Outputs,
    records: Sequence[Record],
    schema: Schema,
    calibration: Calibration,
    *,
    baselines: Mapping[str, BaselineOutputs] | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> ClassificationResult:
    """Return all metrics of a classifier, with intervals by bootstrap over the records' groups.

    ``macro_f1``, ``accuracy``, ``balanced_accuracy``, ``recall_<class>`` and ``precision_<class>`` judge the most
    probable class, ``top_3_accuracy`` (with more than three classes) the three most probable ones. Where classes have
    levels (``delivery/late``), ``macro_f1_level_<k>`` and ``accuracy_level_<k>`` judge the first ``k`` parts of the
    name: see `level_probabilities`.
    ``auroc`` and ``average_precision`` judge the decision score (anything but the negative class); without a negative
    class they are the mean of one class against the rest. ``log_loss``, ``brier`` and ``ece`` judge the probabilities
    after temperature. Where a threshold is stored, ``false_reject_rate``, ``recall_at_threshold`` (and that of each
    defect class: found, whatever it is called) and ``escape_rate`` judge ``score >= threshold``. Each operating point
    of the calibration adds ``recall_at_false_reject_<rate>`` and ``false_reject_rate_at_<rate>``: its threshold was
    fitted on the calibration split and is applied here as it is, so the rate reached here may differ. Multi-label: each
    class is judged on its known labels, and averages run over the classes, but for ``micro_f1``; F1, recall and
    precision are those of the positives, called at one half. ``macro_f1_at_thresholds``, ``micro_f1_at_thresholds``,
    ``recall_at_threshold_<class>`` and ``precision_at_threshold_<class>`` are those at the stored thresholds.

    Where none or all of a share's records are hit, every resample says the same, and the bootstrap would claim to be
    sure. The open end is then that of Clopper and Pearson (1934) with each group counted as one record: 0 escapes in 30
    groups of defects leave up to 0.116.

    Args:
        outputs: What the model said, of one split.
        records: All records of that split, in order: ``outputs.index`` points into them. A record without a group is
            its own.
        schema: Of the data that the model was trained on.
        calibration: Fitted on the calibration split, stored in the checkpoint.
        baselines: Rows beside the model, of `fit_baselines`.
        n_resamples: Draws of the bootstrap.
        confidence: Of the intervals.
        seed: Of the draws.
        show_progress: Whether to show a bar.

    Raises:
        TransferError: If labels are missing, logits are not finite, or outputs and records do not belong together.
    """
    target = labels_of(outputs, schema)
    known = ~np.isnan(target).all(axis=1) if schema.task == "multilabel" else target >= 0
    if not known.any():
        raise TransferError(f"None of the {len(outputs)} records has a label, so there is nothing to compare with.")
    labelled = [record for record, keep in zip(_chosen(outputs, records), known, strict=True) if keep]
    groups = [record.group for record in labelled]
    rows = {"": (outputs, calibration)}
    for name, row in (baselines or {}).items():
        if not np.array_equal(row.outputs.index, outputs.index):
            raise TransferError(f"The baseline `{name}` was run on other records than the model. Use the same split.")
        rows[name] = (row.outputs, row.calibration)

    drawn: dict[str, Resamples] = {}
    tables: dict[str, dict[str, Interval]] = {}
    with progress("Bootstrap", len(rows) * n_resamples, show_progress) as bar:
        for name, (row_outputs, row_calibration) in rows.items():
            logits = row_outputs.logits.double().numpy()[known]
            found = judge(logits, labels_of(row_outputs, schema)[known], schema, row_calibration)
            drawn[name] = metrics.resample(
                found.statistic, groups, n_resamples=n_resamples, seed=seed, on_chunk=bar.update
            )
            tables[name] = intervals(drawn[name], found, confidence)

    levels = [name for name in drawn[""].point if name.startswith(("macro_f1_level_", "accuracy_level_"))]
    compared = [*(name for name in COMPARED if name in drawn[""].point), *levels]
    differences = {}
    for name in baselines or {}:
        paired = drawn[""].minus(drawn[name], compared)
        differences[name] = {key: paired.interval(key, confidence=confidence) for key in compared}
    logits, truth, negative = outputs.logits.double().numpy()[known], target[known], negative_index(schema)
    return ClassificationResult(
        task=schema.task,
        classes=schema.classes,
        metrics=tables.pop(""),
        confusion=confusion_matrix(truth, predicted_classes(logits, schema), schema),
        decisions=confusion_matrix(truth, decided_classes(logits, schema, calibration), schema),
        confusion_pairs=find_confusions(labelled, logits, truth, schema, calibration),
        escapes=find_escapes(labelled, logits, truth, schema, calibration),
        calibration=calibration,
        n=int(known.sum()),
        num_groups=int(drawn[""].codes.max()) + 1,
        negative_class=None if negative is None else schema.classes[negative],
        baselines=tables,
        differences=differences,
        descriptions={name: row.description for name, row in (baselines or {}).items()},
        n_resamples=n_resamples,
        confidence=confidence,
    )


def _chosen(outputs: Outputs, records: Sequence[Record]) -> list[Record]:
    last = int(outputs.index.max()) if len(outputs) else -1
    if last >= len(records):
        raise TransferError(
            f"The outputs point at record {last}, and the split has {len(records)} records. Pass the records of the "
            "split that the model was run on."
        )
    if len(outputs) < len(records):
        _log.warning("Evaluating %d of %d records: the others were not run.", len(outputs), len(records))
    return [records[position] for position in outputs.index.tolist()]
