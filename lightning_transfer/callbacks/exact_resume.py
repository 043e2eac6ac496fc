"""Save what Lightning leaves out of its checkpoints, so that a resumed fit goes on as the uninterrupted one would."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

__all__ = ["ExactResume", "random_states", "restore_random_states"]


class ExactResume(Callback):
    """Make a resumed fit bit-exact where its data loader and its operations are.

    Into each checkpoint that holds callbacks' states go

    - the random states of Python, NumPy, torch and the device, of every process;
    - the metrics that were logged last, which monitors and plateau schedulers read before the next validation;
    - the gradients of an accumulation that is under way (one process only; with several it warns).

    In ``on_train_start`` they come back: until then Lightning draws numbers for the loaders' workers, and other
    callbacks may draw theirs, so give this callback last. Lightning leaves out a plateau scheduler's step at the end of
    an epoch that was resumed, or whose last checkpoint the fit goes on from; it is made up for here.

    It asks for a training loader that resumes in mid-epoch, as that of `BaseDataModule`. What it cannot bring back:
    running means of metrics logged with ``on_epoch=True`` (after a mid-epoch resume they cover the rest of the epoch),
    the state of a ``Metric`` of the training stage, and global random states inside the loaders' workers.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ExactResume()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        self._saved: dict[str, Any] = {}
        self._plateau_due = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit; a checkpoint is read after this."""
        self._saved, self._plateau_due = {}, False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the states as plain values and tensors; all processes take part."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        checkpoint["callbacks"][self.state_key] = {
            "random": _of_all_processes(trainer, random_states(trainer.strategy.root_device)),
            "metrics": {name: value.detach().cpu().clone() for name, value in trainer.callback_metrics.items()},
            "gradients": _unfinished_gradients(trainer, pl_module),
            # While an epoch's last hooks run, it is processed but not completed; plateau schedulers follow.
            "plateau_due": epochs.processed > epochs.completed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts."""
        self._saved = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put everything back as it was when the checkpoint was made."""
        saved, self._saved = self._saved, {}
        if not saved:
            return
        device = trainer.strategy.root_device
        trainer.callback_metrics.update({name: value.to(device) for name, value in saved["metrics"].items()})
        for name, parameter in pl_module.named_parameters():
            if name in saved["gradients"]:
                parameter.grad = saved["gradients"][name].to(parameter)
        if getattr(trainer.fit_loop, "restarted_on_epoch_end", False):
            # Counted in steps (`max_steps`), Lightning runs the end of the epoch again, and would count it twice.
            progress: Any = trainer.fit_loop.epoch_progress
            progress.current.processed -= 1
            progress.total.processed -= 1
        else:
            self._plateau_due = saved["plateau_due"]
            self._make_up_for_plateau_step(trainer, pl_module)
        states = saved["random"]
        if len(states) == trainer.world_size:
            restore_random_states(states[trainer.global_rank], device)
        else:
            rank_zero_warn(
                f"The checkpoint holds the random states of {len(states)} processes, and this run has "
                f"{trainer.world_size}: dropout and the like go on from the seed, not from where they stood."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for the plateau step of the epoch before, when all its metrics are known."""
        self._make_up_for_plateau_step(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether Lightning will leave out the plateau step: it does so in the epoch that it resumed in."""
        self._plateau_due = trainer.fit_loop.restarting and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for the plateau step of the last epoch, for a fit that goes on later."""
        self._make_up_for_plateau_step(trainer, pl_module)

    def _make_up_for_plateau_step(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._plateau_due or not module.automatic_optimization:
            return
        self._plateau_due = False
        for config in trainer.lr_scheduler_configs:
            # `current_epoch` is the next one by now, so it is the number of epochs that are done.
            due = config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
            value = trainer.callback_metrics.get(str(config.monitor))
            if config.reduce_on_plateau and due and value is not None:
                module.lr_scheduler_step(config.scheduler, value)


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the global random states as values that load with ``weights_only=True``.

    Args:
        device: Where the model is; its state is among them if it is a CUDA device.

    Example:
        >>> before = random_states(torch.device("cpu"))
        >>> first = random.random(), np.random.rand(), torch.rand(()).item()
        >>> restore_random_states(before, torch.device("cpu"))
        >>> first == (random.random(), np.random.rand(), torch.rand(()).item())
        True
    """
    name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    states = {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Put back what `random_states` returned; the state of a CUDA device only onto a CUDA device."""
    random.setstate(states["python"])
    name, keys, place, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def _of_all_processes(trainer: Trainer, states: dict[str, Any]) -> list[dict[str, Any]]:
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return [states]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, states)
    return gathered


def _unfinished_gradients(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Return the gradients of batches whose optimizer step is still to come."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    finished = batches.current.ready % trainer.accumulate_grad_batches == 0 or batches.is_last_batch
    if finished or not module.automatic_optimization:
        return {}
    if trainer.world_size > 1:
        rank_zero_warn(
            f"This checkpoint falls between two of the {trainer.accumulate_grad_batches} batches of an optimizer step. "
            "The gradients so far are each process's own and are not saved: a run resumed from here misses them. "
            "Validate and save every multiple of `accumulate_grad_batches`."
        )
        return {}
    named = module.named_parameters()
    return {name: value.grad.detach().cpu().clone() for name, value in named if value.grad is not None}
