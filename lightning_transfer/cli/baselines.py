"""The baselines of a test: plain methods on features, and the same network from scratch."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_transfer.cli.frozen_features import FrozenFeatures
from lightning_transfer.evaluation import BaselineOutputs, Outputs, calibrate_baseline, fit_baselines
from lightning_transfer.types import Split

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["add_scratch", "plain_rows", "shows_bar"]


_Read = Callable[[Split, Collection[int] | None], Outputs]
"""Maps a split, and the positions in it if not all are meant, to features and labels."""


def plain_rows(cli: TransferCLI, test: Outputs, frozen: FrozenFeatures | None = None) -> dict[str, BaselineOutputs]:
    """Fit the plain methods on the training split, and run them on the records that the model was tested on.

    ``knn`` and ``linear_probe`` see the features that the backbone had before any fine-tuning, ``plain`` those that the
    data name without any network, or is the data's own classifier; ``majority`` sees none. What cannot be had is left
    out, and it is said why.

    Args:
        cli: After its trainer's ``test``.
        test: What the model said.
        frozen: Reads the features of the frozen backbone.
    """
    names: list[str] = [name for name in cli.config_init["evaluation"].baselines if name != "scratch"]
    if not cli.datamodule.records_for("train"):
        return {}
    rows: dict[str, BaselineOutputs] = {}
    on_frozen = [name for name in names if name in ("knn", "linear_probe")]
    features = FrozenFeatures(cli) if frozen is None else frozen
    classifies = hasattr(cli.datamodule, "plain_classifier")
    if classifies and "plain" in names:
        rows["plain"] = _plain_classifier(cli, test)
    for chosen, reader in (
        (["majority"], _labels),
        ([] if classifies else ["plain"], _plain_features),
        (on_frozen, lambda _: features.read if features else None),
    ):
        read = reader(cli) if set(chosen) & set(names) else None
        if read is not None:
            rows |= _fit(cli, test, chosen, read)
    return {name: rows[name] for name in names if name in rows}


def _fit(cli: TransferCLI, test: Outputs, names: Sequence[str], read: _Read) -> dict[str, BaselineOutputs]:
    data, module = cli.datamodule, cli.model
    start = time.perf_counter()
    train = read("train", None)
    seconds = time.perf_counter() - start
    rows = fit_baselines(
        train,
        read("test", test.index.tolist()),
        module.schema,
        groups=[record.group or record.id for record in data.records_for("train")],
        calibration=read("calibration", None) if data.records_for("calibration") else None,
        names=names,
        max_false_reject_rate=cli.config_init["evaluation"].max_false_reject_rate,
        show_progress=shows_bar(cli),
    )
    # What a row took includes the features that it reads.
    return {name: replace(row, seconds=(row.seconds or 0.0) + seconds) for name, row in rows.items()}


def _labels(cli: TransferCLI) -> _Read:
    """Read labels alone: the majority class needs no file."""

    def read(split: Split, only: Collection[int] | None) -> Outputs:
        found = Outputs.from_labels(cli.datamodule.records_for(split), cli.model.schema)
        return found if only is None else found.only(only)

    return read


def _plain_features(cli: TransferCLI) -> _Read | None:
    data = cli.datamodule
    make = getattr(data, "plain_features", None)
    if make is None:
        rank_zero_info(f"The baseline `plain` is left out: `{type(data).__name__}` names no `plain_features`.")
        return None
    describe = make(data.records_for("train"))
    labels = _labels(cli)

    def read(split: Split, only: Collection[int] | None) -> Outputs:
        records, found = data.records_for(split), labels(split, only)
        features = torch.from_numpy(describe([records[place] for place in found.index.tolist()])).float()
        return replace(found, features=features)

    return read


def _plain_classifier(cli: TransferCLI, test: Outputs) -> BaselineOutputs:
    """Fit the data's own classifier without a network, and run it on the records that the model was tested on."""
    data, schema = cli.datamodule, cli.model.schema
    start = time.perf_counter()
    classify, description = data.plain_classifier(data.records_for("train"), schema)

    def outputs(split: Split) -> Outputs:
        records = data.records_for(split)
        known = Outputs.from_labels(records, schema)
        return known.with_logits(torch.from_numpy(classify(records)))

    known = outputs("calibration") if data.records_for("calibration") else None
    calibration = calibrate_baseline(known, schema, cli.config_init["evaluation"].max_false_reject_rate)
    found = outputs("test").only(test.index.tolist())
    return BaselineOutputs(found, calibration, description, time.perf_counter() - start)


def add_scratch(cli: TransferCLI, test: Outputs, rows: dict[str, BaselineOutputs]) -> bool:
    """Add the row ``scratch`` where it is asked for; without it the test goes on. Return whether it was interrupted."""
    if "scratch" not in cli.config_init["evaluation"].baselines:
        return False
    from lightning_transfer.cli.scratch import scratch_baseline

    missing = "The row `scratch` is left out; all else of this test is kept"
    try:
        rows["scratch"] = scratch_baseline(cli, test, show_progress=shows_bar(cli))
    except KeyboardInterrupt:
        rank_zero_warn(f"{missing}: its training was interrupted.")
        return True
    except Exception as error:  # whatever a second training runs into, the first one's results are there
        rank_zero_warn(f"{missing}: {type(error).__name__}: {error}")
    return False


def shows_bar(cli: TransferCLI) -> bool:
    """Whether the trainer shows a progress bar, and so may all that follows it."""
    return cli.trainer.progress_bar_callback is not None
