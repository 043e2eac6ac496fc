"""What the verbs ``test`` and ``predict`` add for a model that learnt from good parts alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.evaluation import Outputs, evaluate_localisation, progress, recall_by_kind
from lightning_transfer.evaluation.normal_only_maps import image_map, write_heat_map
from lightning_transfer.metrics import Interval
from lightning_transfer.modules import NormalOnlyModule
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["more_metrics", "write_maps"]


def more_metrics(cli: TransferCLI, outputs: Outputs, records: Sequence[Record]) -> dict[str, Interval]:
    """Return recall of each kind of defect, pixel AUROC and PRO; nothing for other models."""
    module = cli.model
    if not isinstance(module, NormalOnlyModule) or module.schema is None:
        return {}
    return {
        **recall_by_kind(outputs, records, module.schema, cli.calibration),
        **evaluate_localisation(module.grids, records, module.schema, sigma=module.smoothing, show_progress=_bar(cli)),
    }


def write_maps(cli: TransferCLI, records: Sequence[Record]) -> None:
    """Write a heat map of each image into ``maps/`` of the verb's folder, where the config asks for it.

    Colours reach from about the typical score of a good training image to one and a half times it, the same for all
    images; below, a picture stays as it is.
    """
    module = cli.model
    if not cli.config_init["evaluation"].save_maps:
        return
    if not isinstance(module, NormalOnlyModule) or module.schema is None or module.schema.preprocessing.get("tiling"):
        rank_zero_warn("`evaluation.save_maps` has no effect: only `model.head: normal_only` on whole images has maps.")
        return
    from lightning_transfer.data import read_image

    typical = float(module.bank.location.exp())
    # Smoothing takes a twentieth off the highest place of a map.
    limits = (0.95 * typical, 1.5 * typical)
    folder = cli.output / "maps"
    with progress("Heat maps", len(module.grids), _bar(cli)) as bar:
        for place, grid in sorted(module.grids.items()):
            source = records[place].input
            height, width = read_image(source).shape[:2]
            distances = image_map(grid, (height, width), module.schema.preprocessing, module.smoothing)
            write_heat_map(folder / _file_name(place, records[place].id), source, distances, limits)
            bar.update(1)
    print(f"Heat maps: {folder}")


def _file_name(place: int, key: str) -> str:
    """Return a name that no other record has, and that every file system takes."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(key).with_suffix("").as_posix())[-80:]
    return f"{place:05d}_{readable}.png"


def _bar(cli: TransferCLI) -> bool:
    return cli.trainer.progress_bar_callback is not None
