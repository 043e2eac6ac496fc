"""Where activations lie: in memory, in a folder of the run, or in one that runs share."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_transfer.backbones.fold import folded_copy
from lightning_transfer.callbacks.cache_conditions import CacheRefusedError
from lightning_transfer.callbacks.cache_fill import Probe, Split, fill
from lightning_transfer.callbacks.cache_key import cache_key, hash_records
from lightning_transfer.data.activation_files import (
    ActivationFiles,
    ActivationWriter,
    StoreDtype,
    TooLargeError,
    part_name,
)
from lightning_transfer.data.stored_batches import StoredBatches, StoredLayout

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["CachePlace", "agree", "megabytes"]

_FOLDER = "feature_cache"


@dataclass(frozen=True)
class CachePlace:
    """Where to keep activations, and how many.

    Attributes:
        folder: That runs share; None: the run's own.
        dtype: Of what is stored; None keeps all bits.
        memory_limit: Bytes in memory.
        disk_limit: Bytes at all.
        fold_batchnorm: See `FeatureCache`.
    """

    folder: str | None
    dtype: StoreDtype | None
    memory_limit: float
    disk_limit: float
    fold_batchnorm: bool = False

    def estimate(self, probe: Probe, splits: Sequence[Split]) -> float:
        """Return about how many bytes all items take."""
        items = sum(len(split.items) * split.views for split in splits)
        return probe.bytes_per_item * items * (0.5 if self.dtype is not None else 1.0)

    def base(self, trainer: Trainer) -> Path:
        """Return the folder of all caches, the same on all processes."""
        own = Path(trainer.default_root_dir) / _FOLDER if self.folder is None else Path(self.folder).expanduser()
        return Path(trainer.strategy.broadcast(str(own)))

    def uses_files(self, trainer: Trainer, size: float) -> bool:
        """Tell whether so many bytes go to files: several processes share them there, each having run its part."""
        return self.folder is not None or trainer.world_size > 1 or size > self.memory_limit

    def check_size(self, trainer: Trainer, size: float, items: int) -> None:
        """Refuse what passes the limit, or does not fit on the disk.

        Raises:
            CacheRefusedError: Says how much it would be, and what to do.
        """
        what = f"{items} items take about {megabytes(size)}"
        hint = "" if self.dtype else "halve them with `dtype='float16'`, or "
        if size > self.disk_limit:
            raise CacheRefusedError(f"{what}, past `disk_limit` of {megabytes(self.disk_limit)}; {hint}raise it")
        if not self.uses_files(trainer, size):
            return
        place = self.base(trainer)
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free
        if size > free:
            raise CacheRefusedError(f"{what}, and `{there}` has {megabytes(free)} left; {hint}name another `folder`")

    def fill_all(
        self,
        trainer: Trainer,
        module: Any,  # noqa: ANN401 - a TransferModule
        probe: Probe,
        splits: Sequence[Split],
        weights: str,
        facts: Mapping[str, Any],
        folders: list[Path],
    ) -> list[StoredBatches]:
        """Return what stands in for each split: found in the shared folder, or run now.

        Args:
            trainer: Of the fit.
            module: As the probe saw it.
            probe: Of its backbone.
            splits: To be run.
            weights: Hash of those before the cut.
            facts: Plain values that the content depends on, besides weights and records.
            folders: Those that are made for this run alone are added, so that they are removed after it.

        Raises:
            CacheRefusedError: If it does not fit, or a process cannot see what the others wrote.
        """
        size = self.estimate(probe, splits)
        backbone = self._backbone(trainer, module, probe, splits[0])
        base, files = self.base(trainer), self.uses_files(trainer, size)
        left, found = self.memory_limit, []
        for split in splits:
            said = {**facts, "dtype": self.dtype, "views": split.views, "seed": split.seed if split.views > 1 else 0}
            said["folded"] = self.fold_batchnorm
            data = hash_records(split.dataset.records, split.items)
            key = cache_key(probe.cut, weights=weights, data=data, facts=said)
            there = ActivationFiles.open(base / key, key) if self.folder is not None else None
            if not trainer.strategy.reduce_boolean_decision(there is not None, all=True):
                if self.folder is None:
                    folders.append(base / key)
                limits = (0.0 if files else left, self.disk_limit)
                there = self._run(trainer, module, backbone, probe, split, base / key, key, limits)
            assert there is not None  # noqa: S101 - found by all, or run
            left -= there.nbytes
            layout = StoredLayout.from_dict(there.meta["layout"])
            targets, places = split.dataset.targets_of, split.dataset.place_of
            found.append(StoredBatches(there, layout, targets, places, split.views))
        return found

    def _run(
        self,
        trainer: Trainer,
        module: Any,  # noqa: ANN401
        backbone: nn.Module,
        probe: Probe,
        split: Split,
        folder: Path,
        key: str,
        limits: tuple[float, float],
    ) -> ActivationFiles:
        part = folder / part_name(trainer.global_rank, trainer.world_size)
        writer = ActivationWriter(part, memory_limit=limits[0], size_limit=limits[1], dtype=self.dtype, key=key)
        reason, written = "", None
        try:
            written = fill(trainer, module, backbone, probe, split, writer)
        except (TooLargeError, CacheRefusedError, OSError, ValueError) as error:
            # What an input's reader raises is no affair of the cache: the fit will raise it too.
            reason = str(error).rstrip(".")
        agree(trainer, reason)
        if trainer.world_size == 1:
            assert written is not None  # noqa: S101 - or there is a reason
            return ActivationFiles([written])
        trainer.strategy.barrier("feature_cache")
        there = ActivationFiles.open(folder, key)
        agree(trainer, "" if there else f"`{folder}` is not shared by all processes; name a `folder` that is")
        assert there is not None  # noqa: S101
        return there

    def _backbone(self, trainer: Trainer, module: Any, probe: Probe, split: Split) -> nn.Module:  # noqa: ANN401
        own: nn.Module = module.backbone
        if not self.fold_batchnorm:
            return own
        batch = split.collate(split.keys(split.items[:1], 0))
        moved = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        with trainer.precision_plugin.forward_context(), torch.no_grad():
            folded, _ = folded_copy(own, moved.input, probe.cut.layers)
        return folded


def agree(trainer: Trainer, reason: str) -> None:
    """Go on only if no process has a reason not to; all must call it together.

    Raises:
        CacheRefusedError: With this process's reason, or that another one has one.
    """
    if not trainer.strategy.reduce_boolean_decision(not reason, all=True):
        raise CacheRefusedError(reason or "another process has a reason")


def megabytes(size: float) -> str:
    """Return a size for people.

    Example:
        >>> megabytes(5_888_000), megabytes(2.5e9)
        ('5.9 MB', '2.5 GB')
    """
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
