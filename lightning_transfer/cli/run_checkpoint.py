"""The default checkpoint of a run: best and last, and a resumed run still knows the best of the run before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from lightning_transfer.files import atomic

__all__ = ["RunCheckpoint"]


class RunCheckpoint(ModelCheckpoint):
    """Keep the best checkpoint by the module's monitor, and the last.

    A resumed run has a folder of its own. Lightning would then forget the best score so far, and the resumed run could
    end with a worse model than the uninterrupted one. This one brings the best checkpoints along, as copies.

    Args:
        folder: ``RUN/checkpoints``.
        monitor: Logged metric that decides; None keeps the latest.
        mode: ``min`` or ``max``.

    Example:
        >>> RunCheckpoint("runs/demo/checkpoints", "val_macro_f1", "max").save_last
        True
    """

    def __init__(self, folder: str | Path, monitor: str | None = None, mode: str = "min") -> None:
        super().__init__(dirpath=folder, filename="best-{epoch}", monitor=monitor, mode=mode, save_last=True)

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
