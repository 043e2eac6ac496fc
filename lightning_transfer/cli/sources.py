"""What a command starts from: a run folder, a checkpoint, configs. Torch is imported to read a checkpoint only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.heads import find_model_option
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.errors import closest, listing

__all__ = ["Source", "find_run", "find_source"]

_NEEDS_TRAINED = ("validate", "test", "predict", "export")
_MAY_EXPAND = ("fit", "plan", "check-data")
_KEYWORDS = ("best", "last", "hpc")


@dataclass(frozen=True)
class Source:
    """What a command starts from.

    Attributes:
        run: Run folder that the results go into; None makes a new one.
        checkpoint: File whose weights are loaded; then no pretrained weights are read.
        configs: For ``--config``, lowest first: files, or a checkpoint's own config as JSON.
        name: Of a new run folder.
        payload: What a checkpoint of ours holds beside the weights.
    """

    run: Path | None = None
    checkpoint: Path | None = None
    configs: tuple[str, ...] = ()
    name: str = "run"
    payload: Mapping[str, Any] = field(default_factory=dict)


def find_source(recipe: Recipe, arguments: Arguments) -> Source:
    """Find the run folder, the checkpoint and the configs that a command means.

    The order of the configs is the order of precedence: a checkpoint's own config, the run's, then those of the
    command line; options follow in the parser.

    Raises:
        UsageError: If something that was named is not there, or a verb lacks a trained model.
        CheckpointError: If the checkpoint is unreadable.
    """
    run, checkpoint = _place(recipe, arguments)
    wanted = arguments.ckpt_path or _from_configs(arguments)
    if wanted is not None:
        checkpoint = _checkpoint(wanted, recipe, arguments.verb)
        if run is None and arguments.verb != "fit":
            run = _run_of(checkpoint)
    if checkpoint is None and arguments.verb in _NEEDS_TRAINED:
        raise UsageError(_needs_trained(recipe, arguments, run))
    payload = _read(checkpoint, recipe, arguments) if checkpoint is not None else {}
    before = _run_of(checkpoint) if checkpoint is not None and not arguments.configs else None
    configs: list[str] = []
    if checkpoint is None and arguments.verb in _MAY_EXPAND:
        found = find_model_option("expand_from", arguments.configs, arguments.rest)
        if found is not None:
            old = _checkpoint(str(found), recipe, "test")
            configs.append(json.dumps(_config_to_expand(old, whole=not arguments.configs)))
            name = _name(arguments, old, None if arguments.configs else _run_of(old))
            return Source(None, None, (*configs, *arguments.configs), name)
    if payload.get("config"):
        own = payload["config"]
        configs.append(json.dumps({key: own[key] for key in ("model", "data", "evaluation") if key in own}))
    if run or before:
        # A fit that goes on without a config means the config of the run before.
        configs.append(str((run or before or Path()) / "config.yaml"))
    configs += arguments.configs
    return Source(run, checkpoint, tuple(configs), _name(arguments, checkpoint, before), payload)


def find_run(recipe: Recipe, verb: str, word: str) -> Path:
    """Return the run folder that a word means: the folder itself, or that of a checkpoint in it. Reads nothing.

    Raises:
        UsageError: If the word is empty, or means no run.
    """
    if not word:
        raise UsageError(f"`{verb}` needs a run folder: `{recipe.command} {verb} RUN`.{_runs(recipe)}")
    run, checkpoint = _place(recipe, Arguments(verb, (word,)))
    if run is None:
        raise UsageError(f"The checkpoint `{checkpoint}` lies in no run folder, and `{verb}` reads the run's files.")
    return run


def _place(recipe: Recipe, arguments: Arguments) -> tuple[Path | None, Path | None]:
    """Return the run folder and the checkpoint that the word behind the verb means."""
    if not arguments.places:
        return None, None
    word = arguments.places[0]
    path = Path(word)
    if path.is_file():
        if path.suffix in (".yaml", ".yml"):
            raise UsageError(f"`{word}` is a config: write `--config {word}`.")
        return _run_of(path), path
    if not path.is_dir():
        near = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"No run folder or checkpoint `{word}`.{closest(path.name, near)}{_runs(recipe)}")
    if not (path / "config.yaml").is_file():
        raise UsageError(f"`{word}` is no run folder: it has no `config.yaml`.{_runs(recipe, path)}")
    model = path / "model.ckpt"
    return path, model if model.is_file() else None


def _run_of(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, if it still does."""
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        if (folder / "config.yaml").is_file() and (folder / "environment.json").is_file():
            return folder
    return None


def _checkpoint(word: str, recipe: Recipe, verb: str) -> Path:
    path = Path(word)
    if path.is_dir() and not (path / ".metadata").is_file():
        options = [path / "checkpoints" / "last.ckpt", path / "model.ckpt"]
        if verb != "fit":
            options.reverse()
        path = next((item for item in options if item.is_file()), path)
    if path.is_file():
        return path
    if word in _KEYWORDS:
        raise UsageError(
            f"Expected a file for `ckpt_path`, got the keyword `{word}`. A new run has no checkpoints yet: name one, "
            f"such as `RUN/checkpoints/last.ckpt`.{_runs(recipe)}"
        )
    if path.is_dir():
        raise UsageError(f"`{word}` has no `checkpoints/last.ckpt` and no `model.ckpt`: nothing to start from.")
    near = [item.name for item in path.parent.glob("*.ckpt")] if path.parent.is_dir() else []
    found = f" In `{path.parent}`: {listing(near)}." if near else ""
    raise UsageError(f"No checkpoint `{word}`.{closest(path.name, near) or found}")


def _from_configs(arguments: Arguments) -> str | None:
    """Return the ``ckpt_path`` of the last config that sets it; the files were checked before."""
    wanted = None
    for name in arguments.configs:
        if Path(name).is_file():
            content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
            wanted = content.get("ckpt_path", wanted)
    return None if wanted is None else str(wanted)


def _read(path: Path, recipe: Recipe, arguments: Arguments) -> Mapping[str, Any]:
    from lightning_transfer.modules.transfer import CHECKPOINT_KEY, read_checkpoint

    checkpoint = read_checkpoint(path)
    if arguments.verb == "fit" and not checkpoint.get("optimizer_states"):
        raise UsageError(
            f"`{path}` holds a finished model without the optimizer's state, so a fit cannot go on from it. Use "
            f"`{path.parent / 'checkpoints' / 'last.ckpt'}`."
        )
    payload: Mapping[str, Any] = checkpoint[CHECKPOINT_KEY]
    return payload


def _config_to_expand(checkpoint: Path, *, whole: bool) -> dict[str, Any]:
    """Return the config of a model that gets more classes: without what belongs to its old classes and weights.

    Args:
        checkpoint: Of that model.
        whole: Whether the trainer's options of its run count too, as no other config says any.
    """
    from lightning_transfer.modules.expansion import Expansion

    own = Expansion.read(checkpoint).payload.get("config") or {}
    config = {key: dict(own[key] or {}) for key in ("model", "data", "evaluation") if key in own}
    run = _run_of(checkpoint)
    if whole and run is not None:
        config = {**yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")), **config}
    for section, names in {"model": ("weights", "card", "class_weights"), "data": ("classes",)}.items():
        for name in names:
            config.get(section, {}).pop(name, None)
    return config


def _needs_trained(recipe: Recipe, arguments: Arguments, run: Path | None) -> str:
    verb = arguments.verb
    if run is not None:
        last = run / "checkpoints" / "last.ckpt"
        way = f" `{recipe.command} {verb} {last}` uses the last checkpoint." if last.is_file() else ""
        return f"`{run}` has no `model.ckpt`: its fit did not finish.{way}"
    return f"`{verb}` needs a trained model: `{recipe.command} {verb} RUN` or `{verb} CHECKPOINT`.{_runs(recipe)}"


def _runs(recipe: Recipe, folder: Path | None = None) -> str:
    """Name the newest run folders, to choose from."""
    root = folder or Path("runs") / recipe.name
    found = sorted(root.glob("*/config.yaml"), key=lambda file: file.stat().st_mtime, reverse=True)
    return f" Newest runs: {listing((str(file.parent) for file in found), 3)}." if found else ""


def _name(arguments: Arguments, checkpoint: Path | None, before: Path | None) -> str:
    """Name a run after its last config, the one that makes it different."""
    config = Path(arguments.configs[-1]) if arguments.configs else before and before / "config.yaml"
    if config:
        # A run's saved config has no name of its own: its folder has one, less the time.
        own = re.sub(r"-\d{8}-\d{6}(-\d+)?$", "", config.resolve().parent.name)
        return own if config.name == "config.yaml" else config.stem
    return checkpoint.stem if checkpoint is not None else arguments.verb
