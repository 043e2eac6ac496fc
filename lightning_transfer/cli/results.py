"""What follows a verb of the Trainer: calibrate after a fit, evaluate after a test, write what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.cli.baselines import add_scratch, plain_rows, shows_bar
from lightning_transfer.cli.clinical import fit_points
from lightning_transfer.cli.evaluated import evaluate
from lightning_transfer.cli.facts import read_facts
from lightning_transfer.cli.frozen_features import FrozenFeatures
from lightning_transfer.cli.kept_model import finish_validate, keep_best, write_fit_facts, write_model
from lightning_transfer.cli.normal_only import write_maps
from lightning_transfer.cli.report import report_of_fit, report_of_test
from lightning_transfer.cli.routing import fit_policy, route_predictions, route_test
from lightning_transfer.cli.shortcuts import find_shortcuts
from lightning_transfer.cli.tracking import log_scores
from lightning_transfer.data import Skipped, write_predictions
from lightning_transfer.evaluation import (
    CLINICAL_KEY,
    EXAMPLES_KEY,
    ROUTING_KEY,
    BaselineOutputs,
    ClassificationResult,
    Outputs,
    TrainingExamples,
    collect_outputs,
    fit_calibration,
    format_calibration,
    format_clinical,
    format_clinical_points,
    format_gaps,
    format_latency,
    format_overview,
    format_policy,
    format_routing,
    format_shortcuts,
    format_slices,
    format_table,
    predictions,
    sample_examples,
    write_confusion,
)
from lightning_transfer.files import write_json
from lightning_transfer.types import ModelOutput, Prediction, Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["finish_fit", "finish_predict", "finish_test", "finish_validate"]


def finish_fit(cli: TransferCLI, seconds: float) -> None:
    """Load the checkpoint to keep, calibrate it, keep training examples, and write ``model.ckpt``.

    Args:
        cli: After its trainer's ``fit``.
        seconds: That the fit took.
    """
    kept = keep_best(cli)
    if kept is None:
        return
    module = cli.model
    split = _calibrate(cli)
    examples = _examples(cli)
    policy = fit_policy(cli, split, examples)
    points = fit_points(cli, split)
    more = {
        "calibration": module.calibration.to_dict(),
        EXAMPLES_KEY: None if examples is None else examples.to_dict(),
        ROUTING_KEY: None if policy is None else policy.to_dict(),
        **({} if points is None else {CLINICAL_KEY: points.to_dict()}),
    }
    write_model(cli, kept, more)
    for line in write_fit_facts(cli, kept, seconds):
        print(line)
    print(format_calibration(module.calibration))
    if policy is not None:
        print(format_policy(policy))
    if points is not None:
        print(format_clinical_points(points))
    if examples is not None:
        print(f"Nearest training examples: from {examples.rule}")
    report_of_fit(cli)


def finish_test(cli: TransferCLI) -> None:
    """Evaluate the outputs that the module collected, with baselines; write and print them."""
    if not cli.trainer.is_global_zero:
        return
    data, module = cli.datamodule, cli.model
    batches: list[ModelOutput] = module.test_outputs
    records = data.records_for("test")
    outputs = Outputs.from_batches(batches, module.schema)
    kept, found = _predicted(cli, records, outputs)
    skipped = data.list_skipped("fit") if len(outputs) == len(records) else ()
    _write(cli, "predictions.csv", kept, found, skipped)
    routing = route_test(cli, outputs, records, skipped)
    frozen = FrozenFeatures(cli)
    rows = plain_rows(cli, outputs, frozen)
    interrupted = add_scratch(cli, outputs, rows)
    if "scratch" in rows:
        _write_baseline(cli, "scratch", kept, rows["scratch"])
    result = evaluate(cli, outputs, records, rows, routing)
    result = replace(result, shortcuts=find_shortcuts(cli, outputs, records, frozen))
    result.write_json(cli.output / "metrics.json")
    write_json(cli.output / "evaluation.json", result.to_dict())
    log_scores(cli.trainer.loggers, result.flat(), "test")
    print(format_table(result))
    if routing is not None:
        print(f"\n{format_routing(routing)}")
    gaps = "" if result.slices is None else format_gaps(result.slices.gaps, result.slices.headline)
    slices = "\n".join(filter(None, (format_slices(result.slices), gaps)))
    more = (
        format_clinical(result.clinical),
        slices,
        format_shortcuts(result.shortcuts),
        format_latency(result.latency),
    )
    for text in filter(None, more):
        print(f"\n{text}")
    for path in [*write_confusion(result, cli.output), *_write_escapes(cli, result, kept, found)]:
        print(f"Written: {path}")
    write_maps(cli, records)
    print(f"\n{format_overview(result, rows, read_facts(cli.folder))}")
    report_of_test(cli)
    if interrupted:
        raise KeyboardInterrupt


def finish_predict(cli: TransferCLI, batches: Sequence[Any]) -> None:
    """Write the predictions, or the routing decisions, a row for each input, unreadable ones with the reason."""
    if not cli.trainer.is_global_zero:
        return
    data = cli.datamodule
    if cli.routing is not None:
        path = route_predictions(cli, cli.routing, batches)
        print(format_policy(cli.routing))
        print(f"Predictions: {path}")
        return
    outputs = Outputs.from_batches(batches, cli.model.schema)
    kept, found = _predicted(cli, data.records_for("predict"), outputs)
    path = _write(cli, "predictions.csv", kept, found, data.list_skipped("predict"))
    print(format_calibration(cli.calibration))
    print(f"Predictions: {path}")
    write_maps(cli, data.records_for("predict"))


def _predicted(cli: TransferCLI, records: Sequence[Record], outputs: Outputs) -> tuple[list[Record], list[Prediction]]:
    """Return what was run, and its predictions; ``limit_test_batches`` may have left out the rest."""
    kept = [records[int(place)] for place in outputs.index]
    examples = TrainingExamples.from_payload(cli.source.payload)
    nearest = None if examples is None else examples.nearest(outputs.features)
    ids = [record.id for record in kept]
    return kept, predictions(outputs.logits, ids, cli.model.schema, cli.calibration, nearest)


def _write(
    cli: TransferCLI,
    name: str,
    records: Sequence[Record],
    found: Sequence[Prediction],
    skipped: Sequence[Skipped] = (),
) -> Path:
    return write_predictions(cli.output / name, records, found, cli.model.schema, cli.calibration, skipped=skipped)


def _write_baseline(cli: TransferCLI, name: str, records: Sequence[Record], row: BaselineOutputs) -> Path:
    """Write what a baseline says of each record, as the model's own predictions: some take as long as a fit."""
    path, schema = cli.output / f"predictions_{name}.csv", cli.model.schema
    found = predictions(row.outputs.logits, [record.id for record in records], schema, row.calibration)
    return write_predictions(path, records, found, schema, row.calibration)


def _write_escapes(
    cli: TransferCLI, result: ClassificationResult, records: Sequence[Record], found: Sequence[Prediction]
) -> list[Path]:
    """Write the defects that were let through, the lowest score first; the file may hold its header alone."""
    if result.escapes is None:
        return []
    rows = {record.id: (record, row) for record, row in zip(records, found, strict=True)}
    chosen = [rows[name] for name in result.escapes]
    return [_write(cli, "escapes.csv", [record for record, _ in chosen], [row for _, row in chosen])]


def _calibrate(cli: TransferCLI) -> tuple[list[Record], Outputs] | None:
    """Fit temperature and threshold on the calibration split, or on validation where that is empty; return that."""
    data, module = cli.datamodule, cli.model
    if not any(data.records_for(split) for split in ("calibration", "val")):
        rank_zero_warn("There is no calibration and no validation split: temperature and threshold are not fitted.")
        return None
    records: list[Record] = data.records_for("calibration")
    if not records:
        records = data.records_for("val")
        rank_zero_warn(
            "There is no calibration split, so temperature and threshold are fitted on validation, which also chose "
            "the checkpoint: the false-reject rate may be higher than it says. Set `--data.calibration_fraction`."
        )
    outputs = collect_outputs(module, data.calibration_dataloader(), cli.trainer.strategy.root_device, shows_bar(cli))
    module.calibration = fit_calibration(
        outputs,
        module.schema,
        groups=[records[place].group for place in outputs.index.tolist()],
        max_false_reject_rate=cli.config_init["evaluation"].max_false_reject_rate,
    )
    return records, outputs


def _examples(cli: TransferCLI) -> TrainingExamples | None:
    """Run the adapted model over training records, or a share of them, without augmentation."""
    limit: int = cli.config_init["evaluation"].nearest_examples
    data, module = cli.datamodule, cli.model
    records = data.records_for("train")
    if limit < 1 or not records:
        return None
    loader = data.ordered_dataloader("train", only=sample_examples(records, limit))
    outputs = collect_outputs(module, loader, cli.trainer.strategy.root_device, shows_bar(cli))
    return TrainingExamples.from_outputs(outputs, records, module.schema)
