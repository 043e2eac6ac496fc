"""Which records an exported model is compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_transfer.data.folders import records_from_files
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record, Split

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI
    from lightning_transfer.modules import TransferModule

__all__ = ["Samples", "samples_from_data", "samples_from_folder", "spread"]

_SPLITS: tuple[Split, ...] = ("test", "calibration", "val")


@dataclass(frozen=True)
class Samples:
    """Records for the comparison, and for 8 bits.

    Attributes:
        records: To compare on.
        rule: In words, which these are.
        training: To set the ranges of 8 bits with; empty without data.
        test: The whole test split, to measure on what 8 bits lose; empty without data.
    """

    records: Sequence[Record]
    rule: str
    training: Sequence[Record] = ()
    test: Sequence[Record] = ()


def samples_from_folder(folder: str | Path, count: int) -> Samples:
    """Take images below a folder.

    Raises:
        DataError: If there is no such folder, or no image in it.
    """
    found = records_from_files(folder)
    chosen = spread(found, count)
    return Samples(chosen, f"{len(chosen)} of {len(found)} images below `{folder}`")


def samples_from_data(cli: TransferCLI, module: TransferModule, count: int) -> Samples:
    """Read the data of the run, and take records of test, or of calibration or validation where there is no test.

    Args:
        cli: Holds the datamodule and the trainer.
        module: Restored; the data take over its classes and preprocessing.
        count: Records to take.

    Raises:
        DataError: If the data cannot be read; says how to give other samples.
    """
    data: Any = cli.datamodule
    # What a Trainer's verb would do, without the loop: the data ask the trainer for the module.
    cli.trainer.strategy.connect(module)
    data.trainer = cli.trainer
    data.use_card(module.card)
    try:
        data.prepare_data()
        _set_up(data)
    except (DataError, FileNotFoundError) as error:
        raise DataError(
            f"{error}\nAn export is compared with its checkpoint on real samples, by default of the run's test split. "
            "Correct `--data.root` (of texts `--data.file`), or give something to compare on: `--samples FOLDER` (of "
            "texts `--samples TABLE`)."
        ) from error
    split = next(name for name in _SPLITS if data.records_for(name))
    found = data.records_for(split)
    chosen = spread(found, count)
    training = data.records_for("train") or data.records_for("calibration")
    rule = f"{len(chosen)} of {len(found)} records of the split `{split}`"
    return Samples(chosen, rule, spread(training, count), data.records_for("test"))


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """Return that many records, or all, at even distances, so that data sorted by class give all classes.

    Example:
        >>> [record.id for record in spread([Record(str(place), None) for place in range(9)], 3)]
        ['0', '4', '8']
    """
    if count >= len(records):
        return list(records)
    return [records[place] for place in np.linspace(0, len(records) - 1, count).round().astype(int)]


def _set_up(data: Any) -> None:  # noqa: ANN401 - a BaseDataModule
    try:
        data.setup("test")
    except DataError:
        # The records were read and divided before the empty split was found.
        if not data.records or data.records_for("test"):
            raise
        data.setup("validate")
