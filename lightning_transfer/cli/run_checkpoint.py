"""The default checkpoints of a run: best and last, and a resumed run still knows the best of the run before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from lightning_transfer.files import atomic

__all__ = ["RunCheckpoint"]


class RunCheckpoint(ModelCheckpoint):
    """Keep the best checkpoint by the module's monitor, and ``last.ckpt``, the state to go on from.

    ``last.ckpt`` is written at the end of each epoch, after each validation within an epoch, and every so many steps if
    asked. (Lightning's ``save_last=True`` writes it only together with a new best.) It is not written after a step
    that validation or the end of the epoch follows at once: a fit resumed there would skip both, and those write
    it themselves.

    A resumed run has a folder of its own. Lightning would then forget the best score so far, and the resumed run could
    end with a worse model than the uninterrupted one. This one brings the best checkpoints along, as copies.

    Args:
        folder: ``RUN/checkpoints``.
        monitor: Logged metric that decides; None keeps the latest.
        mode: ``min`` or ``max``.
        every_n_steps: Optimizer steps between two writings within an epoch; None for none.
        at_epoch_end: Whether the best is sought at the end of each epoch, rather than of each validation: for a metric
            that is known only then.

    Raises:
        ValueError: If ``every_n_steps`` is smaller than 1.

    Example:
        >>> RunCheckpoint("runs/demo/checkpoints", "val_macro_f1", "max", every_n_steps=50).every_n_steps
        50
    """

    def __init__(
        self,
        folder: str | Path,
        monitor: str | None = None,
        mode: str = "min",
        every_n_steps: int | None = None,
        *,
        at_epoch_end: bool = False,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(
                f"Expected `checkpoint.every_n_train_steps` of at least 1, got {every_n_steps}. Use null for "
                "checkpoints at the end of epochs alone."
            )
        super().__init__(
            dirpath=folder,
            filename="best-{epoch}",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=True if at_epoch_end else None,
        )
        self.every_n_steps = every_n_steps
        self._step = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count steps from here."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.ckpt`` where the steps say so."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # Several batches may make one step: the one that completes it counts.
        before, self._step = self._step, trainer.global_step
        if self.every_n_steps is None or self._step == before or self._step % self.every_n_steps:
            return
        if not _more_follows_at_once(trainer, batch_idx):
            self._write_last(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, and ``last.ckpt`` where the epoch goes on."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._write_last(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, and ``last.ckpt``."""
        super().on_train_epoch_end(trainer, pl_module)
        self._write_last(trainer)

    def _write_last(self, trainer: Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False) or trainer.state.fn != TrainerFn.FITTING:
            return
        # Set before saving, because it is part of the state.
        self.last_model_path = str(Path(self.dirpath or ".") / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        # Said, since Lightning remarks on it otherwise, once an epoch.
        trainer.save_checkpoint(self.last_model_path, weights_only=False)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the best checkpoints of the run before, and go on from their scores."""
        if self.dirpath is None or state_dict["dirpath"] == self.dirpath:
            super().load_state_dict(state_dict)
            return
        moved: dict[str, str] = {}
        for old in {*state_dict["best_k_models"], state_dict["best_model_path"]}:
            if old and Path(old).is_file():
                moved[old] = str(Path(self.dirpath) / Path(old).name)
        if not getattr(rank_zero_only, "rank", 0):
            Path(self.dirpath).mkdir(parents=True, exist_ok=True)
            for old, new in moved.items():
                with atomic(new) as part:
                    shutil.copyfile(old, part)
        known = {moved[old]: score for old, score in state_dict["best_k_models"].items() if old in moved}
        if not known:
            # The old run is gone: the best of this one will do.
            return
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": known,
                "best_model_path": moved.get(state_dict["best_model_path"], ""),
                "kth_best_model_path": moved.get(state_dict["kth_best_model_path"], next(iter(known))),
                "last_model_path": "",
            }
        )


def _more_follows_at_once(trainer: Trainer, batch_idx: int) -> bool:
    """Tell whether validation, the end of the epoch or that of the fit comes right after this batch."""
    loop = trainer.fit_loop
    if loop.epoch_loop.batch_progress.is_last_batch or trainer.should_stop:
        return True
    every, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if not trainer.enable_validation or not every or every == float("inf"):
        return False
    if epochs is None:  # counted over epochs
        return bool((loop.total_batch_idx + 1) % every == 0)
    return bool((trainer.current_epoch + 1) % epochs == 0 and (batch_idx + 1) % every == 0)
