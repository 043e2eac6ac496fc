"""Ask the frozen and the adapted features for the columns that may be shortcuts, after a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.cli.frozen_features import FrozenFeatures
from lightning_transfer.evaluation import Outputs, ShortcutTable, evaluate_shortcuts
from lightning_transfer.evaluation.shortcuts import MAX_RECORDS, SHORTCUT_COLUMNS, Part
from lightning_transfer.metrics import group_codes
from lightning_transfer.types import Record, Split

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["find_shortcuts"]

_SPLITS: tuple[Split, ...] = ("train", "val", "calibration", "test")


def find_shortcuts(
    cli: TransferCLI, outputs: Outputs, records: Sequence[Record], frozen: FrozenFeatures
) -> ShortcutTable | None:
    """Return what the features tell of the columns that were asked for; None where the data have none of them.

    Args:
        cli: After its trainer's ``test``.
        outputs: What the model said of the test split.
        records: Of the test split.
        frozen: Reads the features that were there before any fine-tuning, of all splits.
    """
    wanted: Literal["auto"] | list[str] = cli.config_init["evaluation"].shortcut_columns
    if wanted == "auto" and not any(name in record.meta for record in records for name in SHORTCUT_COLUMNS):
        return None
    if not wanted:
        return None
    try:
        views: dict[Literal["frozen", "adapted"], list[Part]] = {}
        if frozen:
            chosen = {"test": outputs.index.tolist()} | _positions(cli)
            views["frozen"] = [
                (frozen.read(split, chosen[split]), cli.datamodule.records_for(split))
                for split in _SPLITS
                if chosen.get(split)
            ]
        views["adapted"] = [(outputs, records)]
        bar = cli.trainer.progress_bar_callback is not None
        return evaluate_shortcuts(views, cli.model.schema, wanted, show_progress=bar)
    except Exception as error:  # a file that has gone since the fit, or labels that a module of one's own has
        rank_zero_warn(
            f"The shortcut probe is left out; all else of this test is kept: {type(error).__name__}: {error}"
        )
        return None


def _positions(cli: TransferCLI) -> dict[Split, list[int]]:
    """Return which records of the other splits are read: all, or of many whole groups by a draw with a fixed seed."""
    found: dict[Split, list[int]] = {}
    for split in _SPLITS[:-1]:
        records = cli.datamodule.records_for(split)
        if not records:
            continue
        codes = group_codes([record.group for record in records])
        order = np.random.default_rng(0).permutation(int(codes.max()) + 1)[codes]
        found[split] = sorted(np.argsort(order, kind="stable")[:MAX_RECORDS].tolist())
    return found
