"""Routing around the verbs: fit the policy after training, judge it after a test, and write every decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_transfer.cli.baselines import shows_bar
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.data import Skipped
from lightning_transfer.evaluation import (
    ROUTING_KEY,
    Outputs,
    RoutingDecision,
    RoutingPolicy,
    RoutingResult,
    TrainingExamples,
    check_costs,
    collect_outputs,
    decide,
    fit_routing,
    format_decisions,
    measure_routing,
    progress,
    write_decisions,
)
from lightning_transfer.evaluation.routing_decide import ASKED, OUT_OF_SCOPE, ROUTED, UNREADABLE
from lightning_transfer.types import Record, Split

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["CostsCallback", "find_policy", "fit_policy", "route_predictions", "route_test"]

_PREDICTIONS = "predictions.jsonl"
_DRAWS = 2000  # as for all other metrics


class CostsCallback(Callback):
    """Read the misroute costs before the first step: a queue that they do not know should not cost a training.

    Args:
        costs: ``evaluation.misroute_costs``.
    """

    def __init__(self, costs: Mapping[str, Any] | str | None) -> None:
        self.costs = costs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check them against the queues of the data, which have been read by now."""
        schema = getattr(getattr(trainer, "datamodule", None), "schema", None)
        if stage == "fit" and schema is not None and schema.task == "multiclass":
            _costs(self.costs, schema.classes)


def find_policy(cli: TransferCLI) -> RoutingPolicy | None:
    """Return the checkpoint's policy, as the options of ``test``, ``predict`` or ``export`` want it, or None.

    Raises:
        UsageError: If an option asks for what only a fit can give, or the costs are wrong.
    """
    payload = cli.source.payload
    if (
        not cli.recipe.routes
        or cli.arguments.verb not in ("test", "predict", "export")
        or payload.get(ROUTING_KEY) is None
    ):
        return None
    options = cli.config["evaluation"]
    policy = RoutingPolicy.from_dict(payload[ROUTING_KEY])
    try:
        policy = policy.at(options["target_precision"])
    except ValueError as error:
        raise UsageError(str(error)) from error
    score = options["out_of_scope_score"]
    if score not in ("auto", policy.out_of_scope_score):
        raise UsageError(
            f"`evaluation.out_of_scope_score: {score}` has no threshold: this model was fitted with "
            f"`{policy.out_of_scope_score}`. Use that or `auto`, or fit again."
        )
    costs, classes = options["misroute_costs"], payload["schema"]["classes"]
    fitted = (payload.get("config") or {}).get("evaluation", {}).get("misroute_costs")
    # The file of the fit may be gone; what stood in it is in the policy.
    kept = policy.costs if costs == fitted else _costs(costs, classes)
    return replace(policy, min_margin=options["min_margin"], costs=kept)


def fit_policy(
    cli: TransferCLI, split: tuple[Sequence[Record], Outputs] | None, examples: TrainingExamples | None
) -> RoutingPolicy | None:
    """Fit the policy on the calibration split and on what is out of scope; None where routing is not defined.

    Args:
        cli: After its trainer's ``fit``; the module is calibrated.
        split: Records and outputs that calibration was fitted on.
        examples: Training examples that travel in the checkpoint.
    """
    module, options = cli.model, cli.config_init["evaluation"]
    if not cli.recipe.routes or split is None:
        return None
    if module.schema.task != "multiclass":
        rank_zero_info(f"Routing is left out: it sends a ticket to one of several queues, and this task is "
                       f"{module.schema.task}.")  # fmt: skip
        return None
    records, outputs = split
    # Nothing was trained on what is out of scope, so all of it but test's may choose the score; only that of the same
    # split counts in the precision, where it comes as often as it comes in.
    name: Split = "calibration" if cli.datamodule.records_for("calibration") else "val"
    foreign, outside, counted = None, [], []
    for one in ("train", "val", "calibration"):
        part, found = _foreign(cli, one)
        if found is not None:
            foreign = found if foreign is None else foreign.followed_by(found)
            outside += part
            counted += [one == name] * len(part)
    return fit_routing(
        outputs,
        module.schema,
        module.calibration.temperature,
        groups=[records[place].group for place in outputs.index.tolist()],
        foreign=foreign,
        foreign_groups=[record.group for record in outside],
        counted=counted,
        examples=examples,
        target_precision=options.target_precision,
        min_margin=options.min_margin,
        costs=_costs(options.misroute_costs, module.schema.classes),
        score=options.out_of_scope_score,
    )


def route_test(
    cli: TransferCLI, outputs: Outputs, records: Sequence[Record], skipped: Sequence[Skipped]
) -> RoutingResult | None:
    """Write ``predictions.jsonl`` of the test split, out-of-scope tickets behind the others, and judge the decisions.

    Args:
        cli: After its trainer's ``test``.
        outputs: Of the tickets in scope.
        records: Of the test split.
        skipped: Rows of the data that could not be read.
    """
    policy = cli.routing
    if policy is None:
        return None
    examples = TrainingExamples.from_payload(cli.source.payload)
    outside, foreign = _foreign(cli, "test")
    parts = [(outputs, records)] + ([] if foreign is None else [(foreign, outside)])
    # Where they stood in the file says nothing about a place in this split.
    _write(cli, policy, parts, examples, [replace(skip, position=None) for skip in skipped])
    with progress("Bootstrap of the routing", _DRAWS, shows_bar(cli)) as bar:
        return measure_routing(
            outputs,
            records,
            cli.model.schema,
            cli.calibration.temperature,
            policy,
            foreign=foreign,
            foreign_records=outside,
            examples=examples,
            n_resamples=_DRAWS,
            on_chunk=bar.update,
        )


def route_predictions(cli: TransferCLI, policy: RoutingPolicy, batches: Sequence[Any]) -> Path:
    """Write ``predictions.jsonl`` with a line for each input, in order, and print how many got which decision.

    Args:
        cli: After its trainer's ``predict``.
        policy: To apply.
        batches: What it returned; none where nothing could be read.
    """
    data = cli.datamodule
    parts = []
    if batches:
        parts.append((Outputs.from_batches(batches, cli.model.schema), data.records_for("predict")))
    skipped = data.list_skipped("predict")
    path, made = _write(cli, policy, parts, TrainingExamples.from_payload(cli.source.payload), skipped)
    counts = dict.fromkeys((ROUTED, ASKED, OUT_OF_SCOPE), 0)
    for row in made:
        counts[row.decision] += 1
    print(format_decisions({**counts, UNREADABLE: len(skipped)}))
    return path


def _write(
    cli: TransferCLI,
    policy: RoutingPolicy,
    parts: Sequence[tuple[Outputs, Sequence[Record]]],
    examples: TrainingExamples | None,
    skipped: Sequence[Skipped],
) -> tuple[Path, list[RoutingDecision]]:
    """Decide about all parts, write one file of them, and return it with the decisions."""
    kept: list[Record] = []
    made: list[RoutingDecision] = []
    for outputs, records in parts:
        chosen = [records[place] for place in outputs.index.tolist()]
        ids = [record.id for record in chosen]
        temperature = cli.calibration.temperature
        made += decide(outputs.logits, outputs.features, ids, cli.model.schema, temperature, policy, examples)
        kept += chosen
    return write_decisions(cli.output / _PREDICTIONS, kept, made, skipped), made


def _foreign(cli: TransferCLI, split: Split) -> tuple[list[Record], Outputs | None]:
    """Return a split's out-of-scope records, and what the model says of them; nothing where the data know none."""
    find = getattr(cli.datamodule, "out_of_scope_for", None)
    records: list[Record] = [] if find is None else list(find(split))
    if not records:
        return [], None
    loader = cli.datamodule.out_of_scope_dataloader(split)
    return records, collect_outputs(cli.model, loader, cli.trainer.strategy.root_device, shows_bar(cli))


def _costs(costs: Mapping[str, Any] | str | None, classes: Sequence[str]) -> dict[str, Any]:
    """Return the costs of the option, or of the file that it names."""
    if costs is None:
        return {}
    try:
        if isinstance(costs, str):
            costs = yaml.safe_load(Path(costs).expanduser().read_text(encoding="utf-8"))
            if not isinstance(costs, Mapping):
                raise ValueError("it holds no `queue: costs` pairs")
        return check_costs(costs, classes)
    except OSError as error:
        raise UsageError(
            f"`evaluation.misroute_costs` is no file that can be read: `{error.filename}` ({error.strerror}). Name a "
            "YAML or JSON file, or write the costs there."
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"`evaluation.misroute_costs` cannot be used: {error}") from error
