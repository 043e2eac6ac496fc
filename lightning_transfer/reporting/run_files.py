"""The files of a run's folder, read as they are: what is missing is empty, what is broken is named."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_transfer.data.tables import plain_cell
from lightning_transfer.errors import TransferError
from lightning_transfer.reporting.shapes import fitting

__all__ = ["RunFiles"]

# A prediction with a long text is longer than the module's default of 128 KiB.
_LONGEST_CELL = 2**24


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds. Nothing in it is trusted to be complete, or of this version.

    Attributes:
        folder: The run's folder.
        command: How its recipe is started, such as ``python -m recipes.vision``.
        config: ``config.yaml`` of the fit; of the test where there was none.
        environment: ``environment.json``: time, command, versions, device.
        data: ``data.json``: counts, groups, columns, preprocessing, skipped files.
        plan: ``plan.json``: stages, learning rates, backbone.
        fit: ``metrics.json``: what the fit knew at its end.
        cost: ``cost.json``: seconds of each epoch, peak memory.
        check: ``check.json``: findings of the data check.
        export: ``export/export.json``.
        forgetting: ``forgetting.json``: each check of what was forgotten, the sweep of weights, the retention budget.
        curves: Rows of ``logs/csv/metrics.csv``; a cell that is empty or no number is left out of its row.
        kept_epoch: Epoch of the checkpoint that was kept, from 0; None if unknown.
        test: The latest folder of the verb ``test``; None before the first.
        num_tests: Finished tests: the test split was read so often.
        metrics: ``metrics.json`` of the test.
        evaluation: ``evaluation.json`` of the test.
        predictions: Rows of its ``predictions.csv``.
        test_environment: Its ``environment.json``.
        problems: Files that are there and could not be read, with the reason.
    """

    folder: Path
    command: str = "python -m recipes.NAME"
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)
    forgetting: Mapping[str, Any] = field(default_factory=dict)
    curves: tuple[Mapping[str, float], ...] = ()
    kept_epoch: int | None = None
    test: Path | None = None
    num_tests: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    predictions: tuple[Mapping[str, str], ...] = ()
    test_environment: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: str | Path) -> RunFiles:
        """Read a run's folder.

        Raises:
            TransferError: If there is no such folder, or it has no ``config.yaml``.
        """
        run = Path(folder)
        tests = _tests(run)
        test = tests[-1] if tests else None
        # A checkpoint that was tested alone has no fit in its folder.
        config = run / "config.yaml" if test is None or (run / "config.yaml").is_file() else test / "config.yaml"
        if not config.is_file():
            what = "has no `config.yaml`: it is no run folder" if run.is_dir() else "does not exist"
            raise TransferError(f"`{run}` {what}. Give the folder that a run printed as `Run folder:`.")
        problems: list[str] = []
        data = _json(run / "data.json", problems)
        check = _json(run / "check-data" / "check.json", problems) or _json(run / "check.json", problems)
        text = _text(config, problems)
        after: dict[str, Any] = {}
        if test is not None:
            after = {
                "metrics": _json(test / "metrics.json", problems),
                "evaluation": _json(test / "evaluation.json", problems),
                "predictions": tuple(_rows(test / "predictions.csv", problems)),
                "test_environment": _json(test / "environment.json", problems),
            }
            data = data or _json(test / "data.json", problems)
        return cls(
            folder=run,
            command=_command(text),
            config=_yaml(text, config, problems),
            environment=_json(run / "environment.json", problems),
            data=data,
            plan=_json(run / "plan.json", problems),
            cost=_json(run / "cost.json", problems),
            fit=_json(run / "metrics.json", problems),
            check=check,
            export=_json(run / "export" / "export.json", problems),
            forgetting=_json(run / "forgetting.json", problems),
            curves=tuple(_numbers(row) for row in _rows(run / "logs" / "csv" / "metrics.csv", problems)),
            kept_epoch=_kept_epoch(run),
            test=test,
            num_tests=len(tests),
            problems=tuple(problems),
            **after,
        )

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def modality(self) -> str:
        """``image``, ``text`` or ``audio``, as the preprocessing says; empty if it says nothing."""
        kind = str(self.preprocessing.get("kind") or "")
        return "image" if kind == "scan" else kind

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """What turns an input into the network's, as plain values; empty if the run does not say."""
        return _mapping(self.data.get("preprocessing"))

    @property
    def task(self) -> str:
        """``multiclass``, ``binary``, ``multilabel`` or ``transcription``; empty if the run does not say."""
        return str(self.data.get("task") or self.evaluation.get("task") or "")

    def section(self, name: str) -> Mapping[str, Any]:
        """Return a section of the config; empty where it is missing."""
        return _mapping(self.config.get(name))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tests(run: Path) -> list[Path]:
    """Return the finished tests, the latest last: ``test``, ``test-2`` and so on."""
    found = [(int(number or 1), item) for item in run.glob("test*") if (number := _number(item.name)) is not None]
    return [item for _, item in sorted(found) if (item / "metrics.json").is_file()]


def _number(name: str) -> str | None:
    match = re.fullmatch(r"test(?:-(\d+))?", name)
    return None if match is None else match.group(1) or "1"


def _kept_epoch(run: Path) -> int | None:
    epochs = [re.search(r"epoch=(\d+)", item.name) for item in sorted(run.glob("checkpoints/best-*.ckpt"))]
    return next((int(match.group(1)) for match in reversed(epochs) if match), None)


def _command(config: str) -> str:
    match = re.search(r"^# (python -m [\w.]+)", config, flags=re.M)
    return match.group(1) if match else RunFiles.command


def _text(path: Path, problems: list[str]) -> str:
    try:
        # A lone surrogate cannot be written again; no file of ours holds one.
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror or error}")
        return ""


def _yaml(text: str, path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        return _mapping(yaml.safe_load(text))
    except yaml.YAMLError as error:
        problems.append(f"{path.name} is not valid YAML: {str(error).splitlines()[0]}")
        return {}


def _json(path: Path, problems: list[str]) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    name = f"{path.parent.name}/{path.name}"
    try:
        found = json.loads(_text(path, problems))
    except ValueError as error:
        problems.append(f"{name} is not valid JSON: {error}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{name} holds a {type(found).__name__}, not an object")
        return {}
    return fitting(path.stem, _clean(found), problems)


def _clean(value: Any) -> Any:  # noqa: ANN401 - any tree that JSON can hold
    """Replace lone surrogates, which JSON can spell and UTF-8 cannot."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _rows(path: Path, problems: list[str]) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            rows = list(csv.DictReader(stream, restkey="", restval=""))
    except (csv.Error, OSError) as error:
        problems.append(f"{path.parent.name}/{path.name}: {error}")
        return []
    return [{plain_cell(str(key)): plain_cell(str(cell)) for key, cell in row.items() if key} for row in rows]


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for name, cell in row.items():
        try:
            found[name] = float(cell)
        except ValueError:
            continue
    return found
