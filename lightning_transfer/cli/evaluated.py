"""The whole result of a test: metrics beside baselines, slices, curves and latency."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.cli.baselines import shows_bar
from lightning_transfer.cli.clinical import judge_findings, slice_headline
from lightning_transfer.cli.facts import read_facts
from lightning_transfer.cli.normal_only import more_metrics
from lightning_transfer.evaluation import (
    BaselineOutputs,
    ClassificationResult,
    Latency,
    Outputs,
    RoutingResult,
    evaluate_classification,
    evaluate_slices,
    measure_latency,
    measure_reliability,
    threshold_curve,
)
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["evaluate"]


def evaluate(
    cli: TransferCLI,
    outputs: Outputs,
    records: Sequence[Record],
    rows: Mapping[str, BaselineOutputs],
    routing: RoutingResult | None = None,
) -> ClassificationResult:
    """Return all that is said of the model on the test split.

    Args:
        cli: After its trainer's ``test``.
        outputs: What the model said.
        records: Of the test split.
        rows: The baselines.
        routing: What the routing policy did to the same split.
    """
    schema, calibration, options = cli.model.schema, cli.calibration, cli.config_init["evaluation"]
    seconds = _before(cli, rows)
    start = time.perf_counter()

    def took(part: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[part], start = now - start, now

    result = evaluate_classification(
        outputs, records, schema, calibration, baselines=rows, show_progress=shows_bar(cli)
    )
    result = replace(
        result,
        metrics={
            **result.metrics,
            **more_metrics(cli, outputs, records),
            **({} if routing is None else routing.metrics),
        },
        routing=routing,
        reliability=measure_reliability(outputs, schema, calibration),
        curve=threshold_curve(outputs, schema, calibration),
        clinical=judge_findings(cli, outputs, records),
    )
    took("metrics")
    slices = evaluate_slices(
        outputs,
        records,
        schema,
        calibration,
        columns=options.slices,
        headline=slice_headline(result, schema),
        show_progress=shows_bar(cli),
    )
    took("slices")
    latency = _latency(cli, outputs)
    took("latency")
    return replace(result, slices=slices, latency=latency, seconds=seconds)


def _before(cli: TransferCLI, rows: Mapping[str, BaselineOutputs]) -> dict[str, float]:
    """Return what the fit and each baseline took."""
    fit = read_facts(cli.folder).get("fit_seconds")
    found = {"fit": None if fit is None else fit.value}
    found |= {f"baseline_{name}": row.seconds for name, row in rows.items()}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def _latency(cli: TransferCLI, outputs: Outputs) -> Latency | None:
    """Time the model on some of the records that it was tested on; without it the test goes on."""
    sizes: list[int] = cli.config_init["evaluation"].latency_batch_sizes
    if not sizes:
        return None
    precision: Any = cli.trainer.precision_plugin
    checkpoint = cli.source.checkpoint
    try:
        # One batch, spread over the whole split: texts lie in the order of their lengths.
        count = min(max(sizes), cli.datamodule.batch_size, len(outputs))
        few = outputs.index[torch.linspace(0, len(outputs) - 1, count).round().long()].tolist()
        batch = next(iter(cli.datamodule.ordered_dataloader("test", only=few)))
        latency = measure_latency(
            cli.model,
            precision.convert_input(batch.input),
            sizes,
            device=cli.trainer.strategy.root_device,
            size_bytes=None if checkpoint is None else checkpoint.stat().st_size,
            context=precision.forward_context,
        )
    except Exception as error:  # whatever a bare forward pass of a recipe's own module runs into
        rank_zero_warn(f"Latency is left out; all else of this test is kept: {type(error).__name__}: {error}")
        return None
    if batch.index.ndim == 2:
        return replace(latency, note=f"{latency.note}; an item is one tile")
    return latency
