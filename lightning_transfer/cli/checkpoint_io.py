"""Write checkpoints whole or not at all."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from lightning_transfer.files import atomic

__all__ = ["AtomicCheckpointIO"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a local checkpoint beside its place and rename it: a killed process leaves the old file or the new one.

    Lightning writes into the system's folder for temporary files first. Where that is another file system (``/tmp`` in
    memory, a network disk for the runs), the move from there is a copy, and a process that is killed while it copies
    leaves half a checkpoint under the final name. Addresses such as ``s3://`` are left to Lightning.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     AtomicCheckpointIO().save_checkpoint({"epoch": 3}, f"{folder}/checkpoints/last.ckpt")
        ...     AtomicCheckpointIO().load_checkpoint(f"{folder}/checkpoints/last.ckpt", weights_only=True)
        {'epoch': 3}
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic(path) as part:
            torch.save(checkpoint, part)
