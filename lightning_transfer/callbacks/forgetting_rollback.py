"""Keep the weights and optimizer state of the last good check in a file, and put them back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_transfer.callbacks.forgetting_store import store_folders
from lightning_transfer.errors import CheckpointError
from lightning_transfer.files import atomic

__all__ = ["Rollback", "restore_snapshot", "save_snapshot"]


class Rollback:
    """The last good state of a run, on disk: in memory it would be a second model.

    Each node's first process writes a file, and all its processes read it.

    Args:
        trainer: Its first checkpoint folder takes the file.
        name: File name that a checkpoint remembers; None in a fresh run.
        token: Tells the files of several runs apart.
        repeated: Whether the run was rolled back and no check has been good since.
    """

    def __init__(self, trainer: Trainer, name: str | None, token: str, repeated: bool = False) -> None:
        folder = store_folders(trainer)[0]
        self.name = name
        self.repeated = repeated
        self._folder = Path(tempfile.gettempdir() if "://" in folder else folder)
        self._token = token
        self._path: Path | None = None

    def prepare(self, trainer: Trainer, module: LightningModule, pending: bool) -> None:
        """Find the file of a resumed run, or keep the weights as they are now.

        Raises:
            CheckpointError: If the file is missing while an alarm is pending: today's weights are not good ones.
        """
        if self.name is not None:
            folders = [item for item in store_folders(trainer, resumed=True) if "://" not in item]
            found = next((path for item in folders if (path := Path(item) / str(self.name)).is_file()), None)
            if found is not None:
                self._path = found
                return
            if pending or self.repeated:
                raise CheckpointError(
                    f"The last good weights, `{self.name}`, are missing; looked in {', '.join(folders)}. Put the file "
                    "back, or resume from an older checkpoint."
                )
        self.keep(trainer, module)

    def keep(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the state of a good check, then remove the one before."""
        self.repeated = False
        before = self._path
        self.name = f"forgetting_last_good-{self._token}-step{trainer.global_step}.pt"
        self._path = self._folder / self.name
        if trainer.local_rank == 0:
            save_snapshot(module, trainer.optimizers, self._path)
        trainer.strategy.barrier("forgetting_last_good")
        if before != self._path:
            self._remove(trainer, before)

    def roll_back(self, trainer: Trainer, module: LightningModule) -> None:
        """Put the last good state back; the second time without a good check in between, also stop."""
        if self._path is None:
            raise CheckpointError("There are no last good weights to roll back to.")
        restore_snapshot(module, trainer.optimizers, self._path)
        rank_zero_info(f"ForgettingMonitor: weights and optimizer state are back at `{self.name}`.")
        if self.repeated:
            trainer.should_stop = True
            rank_zero_warn(
                f"ForgettingMonitor rolled back to `{self.name}` twice without a good check in between, and stops: "
                "going on would repeat itself. Use lower learning rates or freeze more."
            )
        self.repeated = True

    def finish(self, trainer: Trainer, pending: bool) -> None:
        """Remove the file of a finished run, unless a resumed one would need it."""
        if not pending and not self.repeated:
            self._remove(trainer, self._path)

    def _remove(self, trainer: Trainer, path: Path | None) -> None:
        """Remove a file of this run's own folder; a resumed run leaves the old run's files alone."""
        if path is not None and path.parent == self._folder and trainer.local_rank == 0:
            path.unlink(missing_ok=True)


def save_snapshot(module: LightningModule, optimizers: Sequence[Optimizer], path: Path) -> None:
    """Write weights, buffers and optimizer state to a file, atomically.

    State is stored by parameter name, so that groups that are added or split later do not matter.
    """
    names = _names(module)
    states = [
        {names[id(parameter)]: state for parameter, state in optimizer.state.items() if id(parameter) in names}
        for optimizer in optimizers
    ]
    content = {"weights": dict(_weights(module)), "optimizers": states}
    with atomic(path) as file:
        torch.save(content, file)


def restore_snapshot(module: LightningModule, optimizers: Sequence[Optimizer], path: Path) -> None:
    """Copy weights, buffers and optimizer state back in place.

    Learning rates and other options of the groups stay as the schedule has them now. The state of parameters that the
    optimizer did not step before is dropped.

    Raises:
        CheckpointError: If the file is missing.
    """
    if not path.is_file():
        raise CheckpointError(f"The last good weights, `{path}`, are missing, so nothing can be rolled back to.")
    content = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, value in _weights(module):
            value.copy_(content["weights"][name])
    names = _names(module)
    for optimizer, states in zip(optimizers, content["optimizers"], strict=True):
        # Not by `load_state_dict`: it would replace the groups, which schedulers and callbacks may hold.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in names:
                    continue
                optimizer.state.pop(parameter, None)
                state = states.get(names[id(parameter)])
                if state is not None:
                    scalars = bool(group.get("capturable") or group.get("fused"))
                    optimizer.state[parameter] = _placed(state, parameter.device, scalars)


def _placed(value: Any, device: torch.device, scalars: bool) -> Any:  # noqa: ANN401 - any tree of state
    """Move state to its parameter's device; step counts only where the optimizer keeps them there."""
    if isinstance(value, Tensor):
        return value.to(device) if value.ndim > 0 or scalars else value
    if isinstance(value, dict):
        return {key: _placed(item, device, scalars) for key, item in value.items()}
    return [_placed(item, device, scalars) for item in value] if isinstance(value, list) else value


def _weights(module: LightningModule) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers by name; ``state_dict`` may be overridden to leave some out."""
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        yield name, value.detach()


def _names(module: LightningModule) -> dict[int, str]:
    """Return the name of each parameter, by identity."""
    return {id(parameter): name for name, parameter in module.named_parameters()}
