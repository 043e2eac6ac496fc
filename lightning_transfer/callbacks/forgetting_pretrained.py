"""The pretrained weights of a run, in a file beside its checkpoints: in memory they would be a second model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import fsspec  # type: ignore[import-untyped]
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_transfer.callbacks.forgetting_store import (
    copy_file,
    exists,
    find_file,
    join,
    open_to_write,
    remove_file,
    store_folders,
)
from lightning_transfer.errors import CheckpointError

__all__ = ["PretrainedFile"]


class PretrainedFile:
    """Weights from before the first step, named by their hash; each node's first process writes the file.

    It stays when the run ends, since a run that goes on needs it again and nothing can make it anew.

    Args:
        name: File name that a checkpoint remembers; None in a fresh run.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._path = ""

    def write(self, trainer: Trainer, weights: Mapping[str, Tensor], batches: Mapping[str, int]) -> None:
        """Write the file into the first checkpoint folder, whole or not at all.

        Args:
            trainer: Says where checkpoints go.
            weights: Name -> tensor of the backbone.
            batches: Name of a BatchNorm -> batches that it had seen.
        """
        self.name = f"forgetting_pretrained-{_digest(weights)[:12]}.pt"
        self._path = join(store_folders(trainer)[0], self.name)
        if trainer.local_rank == 0 and not exists(self._path):
            with open_to_write(self._path) as file:
                torch.save({"weights": dict(weights), "batches": dict(batches)}, file)
        trainer.strategy.barrier("forgetting_pretrained")

    def find(self, trainer: Trainer) -> None:
        """Find the file of a resumed run, and copy it to where this run's checkpoints go.

        Raises:
            CheckpointError: If it is missing: today's weights are not the pretrained ones.
        """
        folders = store_folders(trainer, resumed=True)
        found = find_file(folders, str(self.name))
        if found is None:
            raise CheckpointError(
                f"The pretrained weights for on_alarm='interpolate', `{self.name}`, are missing; looked in "
                f"{', '.join(folders)}. Put the file back beside the checkpoint, or resume with on_alarm='log'."
            )
        self._path = join(store_folders(trainer)[0], str(self.name))
        if trainer.local_rank == 0 and not exists(self._path):
            copy_file(found, self._path)
        trainer.strategy.barrier("forgetting_pretrained")

    def read(self) -> dict[str, Any]:
        """Return ``weights`` and ``batches`` as they were written, on the CPU.

        Raises:
            CheckpointError: If the file has gone.
        """
        if not exists(self._path):
            raise CheckpointError(
                f"The pretrained weights, `{self._path}`, are missing, so nothing can be interpolated."
            )
        with fsspec.open(self._path, "rb") as file:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return content

    def remove(self, trainer: Trainer) -> None:
        """Remove the file from this run's folder."""
        if trainer.local_rank == 0 and exists(self._path):
            remove_file(self._path)


def _digest(weights: Mapping[str, Tensor]) -> str:
    """Hash names and contents, so that runs with other weights in one folder have other files."""
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
