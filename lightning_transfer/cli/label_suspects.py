"""What ``check-data --suspects`` adds: suspected label errors, and a recommendation that has seen the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_transfer.cli.recommendation import configured_strategy, data_facts, device_memory
from lightning_transfer.errors import BackboneError
from lightning_transfer.evaluation import (
    LabelCheck,
    Outputs,
    ProbeScore,
    check_labels,
    collect_features,
    format_recommendation,
    format_suspects,
    label_indices,
    probe_features,
    recommend,
    write_suspects,
)
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record, Schema, Split

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["SuspectReport", "check_suspects"]

MAX_ROWS = 200
"""Suspects in ``check.json``; ``suspects.csv`` has all that are listed."""

_SPLITS: tuple[Split, ...] = ("train", "val", "calibration", "test")


@dataclass(frozen=True)
class SuspectReport:
    """What the model-based part of the check found.

    Attributes:
        findings: To add to those of the check.
        rows: The first suspects, for ``check.json``; None where none could be searched.
        more: Further keys for ``check.json``: probe and recommendation.
        text: For the terminal.
    """

    findings: tuple[Finding, ...]
    rows: list[dict[str, Any]] | None
    more: dict[str, Any]
    text: str


def check_suspects(cli: TransferCLI, findings: Sequence[Finding]) -> SuspectReport:
    """Run the frozen backbone of the config over all labelled splits, and judge the labels by its features.

    The probe behind the recommendation sees the training split alone. Writes ``suspects.csv``.

    Args:
        cli: With its data set up.
        findings: Of the check so far.
    """
    from lightning_transfer.backbones import load_backbone

    data, device = cli.datamodule, cli.trainer.strategy.root_device
    schema: Schema | None = data.schema
    if schema is None:
        return _skipped("the data could not be set up; mend the errors first")
    model = cli.resolved["model"]
    try:
        # Anew, not `cli.model`: the check of data builds networks without weights where those would be downloaded.
        backbone, card = load_backbone(
            model["backbone"],
            weights=model.get("weights"),
            card=model.get("card"),
            in_channels=model.get("in_channels"),
        )
    except BackboneError as error:
        return _skipped(str(error))
    show = cli.trainer.progress_bar_callback is not None
    collected: list[Outputs] = []
    records: list[Record] = []
    for split in _SPLITS:
        if data.records_for(split):
            collected.append(collect_features(backbone, data.ordered_dataloader(split), device, show))
            records += [data.records_for(split)[place] for place in collected[-1].index.tolist()]
    features = torch.cat([outputs.features for outputs in collected])
    check = check_labels(records, features, schema, show_progress=show)
    path = write_suspects(cli.output / "suspects.csv", check.suspects)
    probe = _probe(records, features, schema, show)
    facts = data_facts(
        cli.model,
        schema,
        probe=probe,
        errors=tuple(item.code for item in findings if item.severity == "error"),
        num_labels=check.num_labels,
        likely_label_errors=sum(row["likely"] for row in check.suspects),
        memory_available=device_memory(device),
    )
    more: dict[str, Any] = {"probe": None if probe is None else probe.to_dict()}
    lines = [_describe(check, path)]
    if facts is not None:
        # Of what was loaded here, not of what the check built without its weights.
        found = recommend(replace(facts, pretrained=card.pretraining != "none"))
        more["recommendation"] = found.to_dict()
        lines.append(format_recommendation(found, configured_strategy(cli.trainer, cli.model)))
    return SuspectReport(check.findings, list(check.suspects[:MAX_ROWS]), more, "\n\n".join(lines))


def _probe(records: Sequence[Record], features: torch.Tensor, schema: Schema, show: bool) -> ProbeScore | None:
    """Return the probe's score on the training split; multi-label has no single macro-F1 to compare by."""
    if schema.task == "multilabel":
        return None
    train = [place for place, record in enumerate(records) if record.split == "train"]
    chosen = [records[place] for place in train]
    groups = [record.group for record in chosen]
    return probe_features(features[train], label_indices(chosen, schema), groups, show_progress=show)


def _describe(check: LabelCheck, path: Path) -> str:
    return f"{format_suspects(check)}\n  all {len(check.suspects)} that were looked at closest: {path}"


def _skipped(reason: str) -> SuspectReport:
    finding = Finding("label-suspects-skipped", "warning", f"Label errors were not searched: {reason}", 0)
    return SuspectReport((finding,), None, {}, "")
