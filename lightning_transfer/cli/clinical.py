"""Findings around the verbs: fix operating points after training, and judge each finding after a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_transfer.cli.baselines import shows_bar
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.evaluation import ClassificationResult, Outputs, progress
from lightning_transfer.evaluation.clinical import measure_clinical, prevalences
from lightning_transfer.evaluation.clinical_points import CLINICAL_KEY, ClinicalPoints, fit_clinical_points
from lightning_transfer.evaluation.clinical_result import ClinicalResult
from lightning_transfer.evaluation.finding_scores import finding_names
from lightning_transfer.evaluation.scores import negative_index
from lightning_transfer.types import Record, Schema

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["PrevalenceCallback", "fit_points", "judge_findings", "slice_headline"]

_DRAWS = 2000  # as for all other metrics


class PrevalenceCallback(Callback):
    """Check the names of the stated prevalences before the first step: a misspelt finding should not cost a training.

    Args:
        prevalence: ``evaluation.prevalence``.
    """

    def __init__(self, prevalence: Mapping[str, float] | float | None) -> None:
        self.prevalence = prevalence

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check them against the findings of the data, which have been read by now."""
        schema = getattr(getattr(trainer, "datamodule", None), "schema", None)
        if stage == "fit" and isinstance(schema, Schema):
            _stated(self.prevalence, schema)


def fit_points(cli: TransferCLI, split: tuple[Sequence[Record], Outputs] | None) -> ClinicalPoints | None:
    """Fix the operating points on the calibration split; None where the recipe has no findings, or there is no split.

    Args:
        cli: After its trainer's ``fit``; the module is calibrated.
        split: Records and outputs that the calibration was fitted on.
    """
    if not cli.tells_findings or split is None:
        return None
    records, outputs = split
    module, options = cli.model, cli.config_init["evaluation"]
    return fit_clinical_points(
        outputs,
        module.schema,
        module.calibration.temperature,
        groups=[records[place].group for place in outputs.index.tolist()],
        specificities=options.specificities,
        sensitivities=options.sensitivities,
    )


def judge_findings(cli: TransferCLI, outputs: Outputs, records: Sequence[Record]) -> ClinicalResult | None:
    """Return the numbers of each finding on the test split; None where the recipe has no findings.

    Args:
        cli: After its trainer's ``test``.
        outputs: What the model said.
        records: Of the test split.
    """
    if not cli.tells_findings:
        return None
    found = cli.source.payload.get(CLINICAL_KEY)
    prevalence = cli.config_init["evaluation"].prevalence
    _stated(prevalence, cli.model.schema)
    with progress("Bootstrap of the findings", _DRAWS, shows_bar(cli)) as bar:
        return measure_clinical(
            outputs,
            records,
            cli.model.schema,
            cli.calibration.temperature,
            None if found is None else ClinicalPoints.from_dict(found),
            prevalence=prevalence,
            n_resamples=_DRAWS,
            on_chunk=bar.update,
        )


def slice_headline(result: ClassificationResult, schema: Schema) -> str:
    """Return what slices are ordered by: the headline, but for classes that nothing is ranked against.

    Example:
        >>> from lightning_transfer.types import Calibration
        >>> result = ClassificationResult("binary", ("a", "b"), {}, (), Calibration(), n=1, num_groups=1)
        >>> slice_headline(result, Schema(task="binary", classes=("a", "b")))
        'macro_f1'
    """
    if schema.task != "multilabel" and negative_index(schema) is None:
        return "macro_f1"
    return result.headline


def _stated(prevalence: Mapping[str, float] | float | None, schema: Schema) -> None:
    try:
        prevalences(prevalence, finding_names(schema))
    except ValueError as error:
        raise UsageError(f"`evaluation.prevalence` cannot be used: {error}") from error
