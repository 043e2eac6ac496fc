"""Experiment trackers (MLflow, Weights & Biases) that a config names: one run of theirs for one run folder of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.files import write_json

__all__ = ["TRACKING_FILE", "continue_runs", "log_config", "log_scores", "write_run_ids"]

TRACKING_FILE = "tracking.json"
"""In a run folder: class of each tracker -> its own name for the run."""

# Options by which a logger goes on with a run that exists.
_CONTINUE: Mapping[str, Mapping[str, Any]] = {
    "MLFlowLogger": {"run_id": None},
    "WandbLogger": {"id": None, "resume": "allow"},
}
# Files beside our own, which hold all of this already.
_LOCAL = (CSVLogger, TensorBoardLogger)


def log_config(loggers: Sequence[Logger], config: Mapping[str, Any], folder: Path) -> None:
    """Give each tracker the resolved config, a value for each dotted name, and the place of the run folder.

    Options of the loggers stay at home: they may hold keys.
    """
    flat = {name: value for name, value in _flat(config).items() if not name.startswith("trainer.logger")}
    for logger in _trackers(loggers):
        logger.log_hyperparams({"run_folder": str(folder), **flat})


def log_scores(loggers: Sequence[Logger], scores: Mapping[str, Mapping[str, Any]], stage: str) -> None:
    """Give each tracker the results of a verb, each with the ends of its interval; what is n/a is left out.

    Args:
        loggers: Of the trainer.
        scores: Name -> ``value``, ``low`` and ``high``, as in ``metrics.json``.
        stage: Begins each name: ``test_macro_f1``, ``test_macro_f1_low``.
    """
    ends = (("value", ""), ("low", "_low"), ("high", "_high"))
    found = {
        f"{stage}_{name}{suffix}": float(item[key])
        for name, item in scores.items()
        for key, suffix in ends
        if item.get(key) is not None
    }
    for logger in _trackers(loggers):
        try:
            logger.log_metrics(found)
        except Exception as error:  # a tracker that does not answer must not cost the results
            rank_zero_warn(f"{type(logger).__name__} did not take the {stage} scores: {type(error).__name__}: {error}")


def write_run_ids(loggers: Sequence[Logger], folder: Path) -> None:
    """Remember what each tracker calls the run, so that ``test`` goes on with it; no file without trackers."""
    ids = {type(logger).__name__: str(logger.version) for logger in _trackers(loggers) if logger.version is not None}
    if ids:
        write_json(folder / TRACKING_FILE, ids)


def continue_runs(loggers: Any, folder: Path) -> None:  # noqa: ANN401 - what a config holds: none, one or a list
    """Make the trackers of a config go on with the runs that the fit of this folder began, in place.

    Args:
        loggers: ``trainer.logger`` of a parsed config, not instantiated.
        folder: The run folder; without the file nothing changes.
    """
    path = folder / TRACKING_FILE
    if not path.is_file():
        return
    ids = json.loads(path.read_text(encoding="utf-8"))
    for entry in loggers if isinstance(loggers, list) else [loggers]:
        name = str(getattr(entry, "class_path", "")).rpartition(".")[2]
        if name in ids and name in _CONTINUE:
            for option, value in _CONTINUE[name].items():
                entry.init_args[option] = ids[name] if value is None else value


def _trackers(loggers: Sequence[Logger]) -> list[Logger]:
    return [logger for logger in loggers if not isinstance(logger, _LOCAL)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = str(value) if isinstance(value, list | tuple) else value
    return flat
