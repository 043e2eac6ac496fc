"""The callback that fills a run's folder while Lightning sets up and trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_transfer.cli.run_folder import environment
from lightning_transfer.cli.speech_facts import speech_facts
from lightning_transfer.cli.tracking import log_config, write_run_ids
from lightning_transfer.data import BaseDataModule
from lightning_transfer.errors import DataError
from lightning_transfer.files import write_json, write_text

__all__ = ["RunFolderCallback"]


class RunFolderCallback(Callback):
    """Write ``config.yaml``, ``environment.json`` and ``data.json`` before the first step.

    Every process learns the folder of the first one in ``setup``: only then they can talk to each other. The files are
    written by the first process, each whole or not at all.

    Args:
        folder: Made by the first process; the other processes may not know it yet.
        config: Resolved config as YAML, a valid ``--config``.
        command: Words of the command line, for ``environment.json``.
        only_plan: Stop the fit before its first step, when its plan is known.
        check_data: Check the data when they are read, and stop the fit if they are wrong.

    Attributes:
        plan: What the fit will do, as plain values; written to ``plan.json``.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        command: Sequence[str] = (),
        *,
        only_plan: bool = False,
        check_data: bool = False,
    ) -> None:
        self.folder = folder
        self.config = config
        self.command = tuple(command)
        self.only_plan = only_plan
        self.check_data = check_data
        self.plan: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Share the folder's path, then write what is known before training, and check the data."""
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))
        if trainer.is_global_zero:
            self._write_facts(trainer, stage)
        if self.check_data and stage == "fit":
            from lightning_transfer.cli.check_data import check_fit

            problem = check_fit(trainer, pl_module, self.folder) if trainer.is_global_zero else ""
            # To all processes: one that went on alone would wait for ever.
            problem = trainer.strategy.broadcast(problem)
            if problem:
                raise DataError(problem)

    def _write_facts(self, trainer: Trainer, stage: str) -> None:
        write_text(self.folder / "config.yaml", self.config)
        write_json(self.folder / "environment.json", environment(self.command, _device(trainer)))
        if stage == "fit" and not self.only_plan:
            log_config(trainer.loggers, yaml.safe_load(self.config), self.folder)
            write_run_ids(trainer.loggers, self.folder)
        datamodule = getattr(trainer, "datamodule", None)
        schema = getattr(datamodule, "schema", None)
        if schema is not None:
            skipped = datamodule.list_skipped("fit") if isinstance(datamodule, BaseDataModule) else []
            reasons = {skip.record.id: skip.reason for skip in skipped}
            write_json(self.folder / "data.json", {**_data(schema), **_speech(datamodule, schema), "skipped": reasons})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the plan: this callback comes first, so nothing is frozen yet."""
        from lightning_transfer.cli.plan_facts import backbone_facts, recommendation_facts, stages_and_groups

        if self.only_plan:
            # Says how many steps there will be. A fit that trains loads its data after the checkpoint, not before.
            trainer.fit_loop.setup_data()
        schema = getattr(getattr(trainer, "datamodule", None), "schema", None)
        self.plan = {
            "max_epochs": trainer.max_epochs,
            "backbone": backbone_facts(pl_module),
            "data": {} if schema is None else schema.to_dict()["counts"],
            "notes": getattr(pl_module, "plan_notes", list)(),
            **stages_and_groups(trainer, pl_module, memory=self.only_plan),
        }
        if self.only_plan:
            from lightning_transfer.cli.feature_cache import cache_notes

            self.plan["notes"] = [*self.plan["notes"], *cache_notes(trainer, pl_module)]
            self.plan |= recommendation_facts(trainer, pl_module, schema)
            # The fit loop then skips itself; epochs and steps, which schedulers count on, stay as they are.
            trainer.limit_train_batches = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the plan: all callbacks have split and scaled the optimizers' groups by now."""
        from lightning_transfer.cli.plan_facts import mark_unreached

        mark_unreached(trainer, pl_module, self.plan["stages"])
        self._write_plan(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the plan of a fit that was only planned, before other callbacks put the groups back."""
        if self.only_plan:
            self._write_plan(trainer)

    def _write_plan(self, trainer: Trainer) -> None:
        from lightning_transfer.cli.plan_facts import rates

        self.plan["learning_rates"] = rates(trainer)
        if trainer.is_global_zero:
            write_json(self.folder / "plan.json", self.plan)


def _device(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    return f"{name}{processes}"


def _speech(datamodule: Any, schema: Any) -> dict[str, Any]:  # noqa: ANN401 - any datamodule
    """Return hours, speakers and accents of each split where speech is recognised; nothing elsewhere."""
    if getattr(schema, "task", "") != "transcription":
        return {}
    return {"speech": speech_facts(getattr(datamodule, "records", ()), getattr(schema, "columns", ()))}


def _data(schema: Any) -> dict[str, Any]:  # noqa: ANN401 - a Schema, or a recipe's own with `to_dict`
    values: dict[str, Any] = schema.to_dict()
    counts = values.get("counts") or {}
    return {"num_records": {split: sum(classes.values()) for split, classes in counts.items()}, **values}
