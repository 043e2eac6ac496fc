"""Run the frozen layers once over the data, and train on what they gave."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_transfer.backbones.cut import Cut
from lightning_transfer.callbacks.backbone_freeze_unfreeze import BackboneFreezeUnfreeze
from lightning_transfer.callbacks.cache_conditions import (
    CacheRefusedError,
    check_cut,
    check_frozen,
    check_module,
    check_trainer,
    check_transforms,
    loaders_of,
)
from lightning_transfer.callbacks.cache_fill import Split, probe_cut
from lightning_transfer.callbacks.cache_groups import RunGroups
from lightning_transfer.callbacks.cache_key import hash_tensors, prefix_tensors
from lightning_transfer.callbacks.cache_place import CachePlace, agree, megabytes
from lightning_transfer.callbacks.cache_stages import choose_frozen, segments
from lightning_transfer.callbacks.forgetting_random import isolated_rng
from lightning_transfer.data.activation_files import StoreDtype

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["FeatureCache"]

_GB = 1e9


@dataclass
class _Active:
    """What is in use.

    Attributes:
        cut: Of the module's backbone.
        frozen: Layer groups before it.
        datasets: That batches are made from, in place of files.
        parameters: Before the cut.
        versions: Of the weights before the cut, which change with each writing.
        content: Their hash.
        folders: To be removed afterwards.
    """

    cut: Cut
    frozen: int
    datasets: list[Any]
    parameters: list[Tensor]
    versions: dict[str, tuple[int, int]]
    content: str
    folders: list[Path] = field(default_factory=list)


class FeatureCache(Callback):
    """Runs the frozen layers of a `TransferModule` once over each split, and trains on what they gave.

    Most epochs of a fine-tuning run through layers that do not change. Before the first epoch in which it pays, this
    callback runs the first, frozen part of the backbone over training and validation data, and keeps its output; from
    then on no file is decoded and nothing of that part is run. Order, batches, samplers, targets and index stay what
    they were, and so do the losses, to rounding. When a layer group opens, the run goes back to the inputs by itself,
    or to a shorter part that stays frozen for long enough.

    Where what is frozen trains in some way, is in train mode, or inputs are changed at random, nothing is kept, and one
    line says why. Give it after `BackboneFreezeUnfreeze`; without one, what is frozen at the begin counts. Nothing is
    saved in checkpoints: a resumed fit fills its cache anew, or finds it in ``folder``.

    Args:
        when: ``auto`` keeps what can be kept, where it pays; ``always`` stops the fit with the reason where nothing can
            be kept from its first epoch on; ``never`` does nothing.
        views: Changed copies of each training input, where training changes inputs at random; each epoch chooses one of
            them for each input, by the sampler's seed. None keeps nothing of such data.
        dtype: ``float16`` or ``bfloat16`` halve what is stored, and round it; None keeps all bits.
        folder: Where to keep and to look for activations, named by a hash of all that they depend on; several runs may
            share it. None: memory, and past its limit files in the run's folder, removed with the fit.
        memory_limit: Gigabytes of activations that are kept in memory.
        disk_limit: Gigabytes that may be kept at all.
        min_epochs: Epochs that a part must stay frozen for; the first of them costs the pass. Each further view, and
            ``limit_train_batches``, ask for more.
        fold_batchnorm: Fold BatchNorm into the convolutions for that pass: faster, equal to about 1e-5.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> callbacks = [BackboneFreezeUnfreeze("lp_ft", unfreeze_at_epoch=10), FeatureCache(dtype="float16")]
        >>> trainer = Trainer(max_epochs=12, callbacks=callbacks, logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        when: Literal["auto", "always", "never"] = "auto",
        *,
        views: int | None = None,
        dtype: StoreDtype | None = None,
        folder: str | None = None,
        memory_limit: float = 1.0,
        disk_limit: float = 20.0,
        min_epochs: int = 2,
        fold_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        if when not in ("auto", "always", "never"):
            raise ValueError(f"Expected `when` to be 'auto', 'always' or 'never', got {when!r}.")
        if views is not None and views < 1:
            raise ValueError(f"Expected `views` of at least 1 or None, got {views}. 4 is a good start.")
        if dtype not in (None, "float16", "bfloat16"):
            raise ValueError(f"Expected `dtype` 'float16', 'bfloat16' or None, got {dtype!r}.")
        for name, value in (("memory_limit", memory_limit), ("disk_limit", disk_limit)):
            if value < 0:
                raise ValueError(f"Expected `{name}` of at least 0 gigabytes, got {value}.")
        if min_epochs < 1:
            raise ValueError(f"Expected `min_epochs` of at least 1, got {min_epochs}. The first one costs as much.")
        self.when = when
        self.views = views
        self.dtype = dtype
        self.folder = folder
        self.memory_limit = memory_limit
        self.disk_limit = disk_limit
        self.min_epochs = min_epochs
        self.fold_batchnorm = fold_batchnorm
        self._active: _Active | None = None
        self._epoch = -1

    @property
    def cut(self) -> Cut | None:
        """Where the backbone is cut now; None while the run reads its inputs."""
        return None if self._active is None else self._active.cut

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start each fit clean; refuse an order of callbacks in which the stage would be known too late."""
        self._epoch = -1
        callbacks: list[Any] = list(trainer.callbacks)  # type: ignore[attr-defined]
        later = [item for item in callbacks[callbacks.index(self) :] if isinstance(item, BackboneFreezeUnfreeze)]
        if later and stage == "fit" and self.when != "never":
            raise MisconfigurationException(
                "`FeatureCache` stands before `BackboneFreezeUnfreeze` in the list of callbacks, so it would not know "
                "what is open in an epoch. Put it behind."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fill the cache, also of a fit that is resumed within an epoch."""
        self._prepare(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fill the cache where a stage begins, and leave it where one ends."""
        self._prepare(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Stop a fit in which other code opened a layer before the cut in the middle of an epoch."""
        if self._active is not None and any(value.requires_grad for value in self._active.parameters):
            raise MisconfigurationException(
                f"A layer before {self._active.cut.describe()} was opened in the middle of epoch "
                f"{trainer.current_epoch}, which trains on what that layer gave while it was frozen. Open layers at "
                "the begin of an epoch, or leave `FeatureCache` out (`cache_features: never`)."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module its inputs back, and remove what was kept for this fit alone."""
        self._release(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Do so after a failed fit, too."""
        self._release(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Do so where no training took place."""
        self._release(pl_module)

    def plan(self, trainer: Trainer, module: LightningModule) -> list[str]:
        """Say what a fit will keep and from when to when, with its size, or why nothing; only two items are run.

        Args:
            trainer: Whose loaders are set up.
            module: With its head, before anything is frozen.
        """
        if self.when == "never":
            return ["Feature cache: off"]
        try:
            with isolated_rng():
                return [f"Feature cache: {text}" for text in self._plan(trainer, module)]
        except CacheRefusedError as error:
            return [f"Feature cache: not used, {error}."]

    @property
    def _place(self) -> CachePlace:
        limits = (self.memory_limit * _GB, self.disk_limit * _GB)
        return CachePlace(self.folder, self.dtype, *limits, fold_batchnorm=self.fold_batchnorm)

    def _plan(self, trainer: Trainer, module: Any) -> list[str]:  # noqa: ANN401 - a TransferModule
        splits = self._splits(trainer, module)
        groups, needed = RunGroups.of(trainer, module), self._needed(trainer, splits)
        parts = segments(groups.open_at, groups.total, end=groups.end, min_epochs=needed)
        if not parts:
            raise CacheRefusedError(groups.describe_none(needed, 0))
        said = []
        for part in parts:
            probe = probe_cut(trainer, module, splits[0], groups.trains(module, part.frozen))
            size = self._place.estimate(probe, splits)
            self._place.check_size(trainer, size, _count(splits))
            where = "in files" if self._place.uses_files(trainer, size) else "in memory"
            said.append(f"{_epochs(part.begin, part.end)} on {probe.cut.describe()}, about {megabytes(size)} {where}")
        return said

    def _prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Go on with what is kept, leave it where the stage is over, and keep what pays from here on; once an epoch."""
        epoch = trainer.current_epoch
        if self.when == "never" or epoch == self._epoch:
            return
        first, self._epoch = self._epoch < 0, epoch
        news = first
        if self._active is not None:
            ended = self._why_ended(trainer, module)
            if not ended:
                return
            self._release(module)
            self._say(f"epoch {epoch}: {ended}: back to the inputs.")
            news = True
        try:
            with isolated_rng():
                self._begin(trainer, module)
        except CacheRefusedError as error:
            if self.when == "always" and first:
                raise MisconfigurationException(
                    f"`FeatureCache(when='always')` keeps nothing: {error}. Mend it, or use `when='auto'`."
                ) from error
            if news:  # in later epochs it is the same, or that fewer epochs are left
                self._say(f"not used: {error}.")

    def _begin(self, trainer: Trainer, module: Any) -> None:  # noqa: ANN401 - a TransferModule
        """Choose what to keep, fill the cache, and put it in the place of the inputs.

        Raises:
            CacheRefusedError: If nothing is kept, with the reason; on all processes alike.
        """
        started, epoch = time.perf_counter(), trainer.current_epoch
        reason, probe, splits, frozen, lasts = "", None, list[Split](), 0, 0.0
        try:
            splits = self._splits(trainer, module)
            groups, needed = RunGroups.of(trainer, module), self._needed(trainer, splits)
            frozen, lasts = choose_frozen(groups.open_at, groups.total, epoch=epoch, end=groups.end, min_epochs=needed)
            if not frozen:
                raise CacheRefusedError(groups.describe_none(needed, epoch))
            if groups.depth_map is not None:
                check_frozen(module, groups.depth_map, groups.depth_map.groups[:frozen])
            probe = probe_cut(trainer, module, splits[0], groups.trains(module, frozen))
            check_cut(module.backbone, probe.cut)
            self._place.check_size(trainer, self._place.estimate(probe, splits), _count(splits))
        except CacheRefusedError as error:
            reason = str(error)
        agree(trainer, reason)
        assert probe is not None  # noqa: S101 - or there is a reason
        kept = prefix_tensors(module.backbone, probe.cut)
        parameters: list[Tensor] = [value for value in kept.values() if isinstance(value, nn.Parameter)]
        datasets = [split.dataset for split in splits]
        self._active = _Active(probe.cut, frozen, datasets, parameters, _versions(kept), hash_tensors(kept))
        try:
            said = (self._active.content, _facts(trainer, module), self._active.folders)
            stored = self._place.fill_all(trainer, module, probe, splits, *said)
        except BaseException:
            self._release(module)
            raise
        for dataset, batches in zip(datasets, stored, strict=True):
            batches.is_current = lambda: self._is_same(module)
            dataset.stored = batches
        module.cut = probe.cut
        size = sum(batches.files.nbytes for batches in stored)
        where = "in memory" if all(batches.files.in_memory for batches in stored) else "in files"
        self._say(
            f"{_epochs(epoch, epoch + lasts)} train on {probe.cut.describe()}: "
            f"{' + '.join(str(len(split.items)) for split in splits)} items, {megabytes(size)} {where}, after "
            f"{time.perf_counter() - started:.1f} s."
        )

    def _splits(self, trainer: Trainer, module: LightningModule) -> list[Split]:
        """Return the splits to run, training first, where their data and the module allow it."""
        check_trainer(trainer)
        check_module(module)
        loaders = loaders_of(trainer)
        check_transforms(loaders, self.views)
        seed = int(getattr(getattr(trainer, "datamodule", None), "split_seed", 0))
        found = []
        for name, loader in loaders.items():
            split = Split(name, loader)
            views = self.views if self.views is not None and split.dataset.is_random else 1
            found.append(Split(name, loader, views, seed))
        return [split for split in found if len(split.items)]

    def _needed(self, trainer: Trainer, splits: list[Split]) -> float:
        """Return the epochs from which on it pays: as many more as it takes of them to run all items, in all views."""
        share = max(1, len(splits[0].loader)) / max(1.0, float(trainer.num_training_batches))
        return self.min_epochs + math.ceil(splits[0].views * max(1.0, share)) - 1

    def _why_ended(self, trainer: Trainer, module: Any) -> str:  # noqa: ANN401 - a TransferModule
        """Say why what is kept is of no use in this epoch; empty if it is."""
        active = self._active
        if active is None:
            return ""
        opened = RunGroups.of(trainer, module).opened(active.frozen, trainer.current_epoch)
        if opened:
            return f"{opened} opens"
        if any(value.requires_grad for value in active.parameters):
            return f"a layer before {active.cut.describe()} trains"
        try:
            check_cut(module.backbone, active.cut)
        except CacheRefusedError as error:
            return str(error)
        return "" if self._is_same(module) else "weights before the cut have changed"

    def _is_same(self, module: Any) -> bool:  # noqa: ANN401 - a TransferModule
        """Tell whether the weights before the cut are those that the cache was filled with; hashed only if written."""
        active = self._active
        if active is None:
            return True
        tensors = prefix_tensors(module.backbone, active.cut)
        versions = _versions(tensors)
        if versions == active.versions:
            return True
        if hash_tensors(tensors) != active.content:
            return False
        active.versions = versions  # written to, with the same numbers
        return True

    def _release(self, module: Any) -> None:  # noqa: ANN401 - a TransferModule
        active, self._active = self._active, None
        if active is None:
            return
        for dataset in active.datasets:
            dataset.stored = None
        module.cut = None
        for folder in active.folders:
            shutil.rmtree(folder, ignore_errors=True)
            if folder.parent.is_dir() and not any(folder.parent.iterdir()):
                folder.parent.rmdir()

    def _say(self, text: str) -> None:
        rank_zero_info(f"FeatureCache: {text}")


def _versions(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Return what changes when a tensor is written to, or replaced."""
    return {name: (value.data_ptr(), value._version) for name, value in tensors.items()}


def _facts(trainer: Trainer, module: Any) -> dict[str, Any]:  # noqa: ANN401 - a TransferModule
    """Return what activations depend on besides weights and records."""
    schema = module.schema
    return {
        "preprocessing": None if schema is None else schema.to_dict()["preprocessing"],
        "classes": None if schema is None else schema.classes,
        "card": module.card.to_dict(),
        "module": type(module).__name__,
        "precision": str(trainer.precision),
        "device": trainer.strategy.root_device.type,
    }


def _count(splits: list[Split]) -> int:
    return sum(len(split.items) * split.views for split in splits)


def _epochs(begin: int, end: float) -> str:
    """Put a range of epochs into words.

    Example:
        >>> _epochs(0, 10), _epochs(3, 4), _epochs(2, math.inf)
        ('epochs 0 to 9', 'epoch 3', 'epochs from 2 on')
    """
    if end == math.inf:
        return f"epochs from {begin} on"
    return f"epoch {begin}" if end - begin == 1 else f"epochs {begin} to {int(end) - 1}"
