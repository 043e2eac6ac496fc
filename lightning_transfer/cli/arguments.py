"""Sort the words behind a verb, and read the config files once, before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.errors import closest, listing

__all__ = ["SECTIONS", "Arguments", "check_config", "split_arguments"]

SECTIONS = ("seed_everything", "trainer", "model", "data", "checkpoint", "evaluation", "check_data", "ckpt_path")


@dataclass(frozen=True)
class Arguments:
    """The words behind a verb, sorted.

    Attributes:
        verb: The verb.
        places: Words without dashes directly behind the verb: a run folder, a checkpoint, a config's name.
        configs: Values of ``--config``, in order.
        ckpt_path: Value of ``--ckpt_path``; the last one counts.
        rest: All other options, as typed. They come after the configs, so that the command line wins.
        command: Every word of the command line.
        debug: Whether an error shows its trace.
    """

    verb: str
    places: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    ckpt_path: str | None = None
    rest: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    debug: bool = False

    @property
    def wants_help(self) -> bool:
        """Whether a help text is asked for, or the config to be printed: nothing will run."""
        return any(word in ("-h", "--help") or word.startswith("--print_config") for word in self.rest)


def split_arguments(words: Sequence[str]) -> Arguments:
    """Sort the words of a command line that begins with a verb.

    Raises:
        UsageError: If ``--config`` or ``--ckpt_path`` stands without a value.

    Example:
        >>> split_arguments(["fit", "--model.x", "3", "--config", "a.yaml", "--config=b.yaml"]).configs
        ('a.yaml', 'b.yaml')
    """
    places: list[str] = []
    configs: list[str] = []
    rest: list[str] = []
    ckpt_path = None
    debug = False
    waiting = list(words[1:])
    while waiting and not waiting[0].startswith("-"):
        places.append(waiting.pop(0))
    while waiting:
        word = waiting.pop(0)
        name, has_value, value = word.partition("=")
        if name in ("--config", "-c", "--ckpt_path"):
            if not has_value:
                if not waiting or waiting[0].startswith("-"):
                    raise UsageError(f"`{name}` needs a file behind it.")
                value = waiting.pop(0)
            if name == "--ckpt_path":
                ckpt_path = value
            else:
                configs.append(value)
        elif word == "--debug":
            debug = True
        else:
            rest.append(word)
    return Arguments(words[0], tuple(places), tuple(configs), ckpt_path, tuple(rest), tuple(words), debug)


def check_config(name: str, recipe: Recipe) -> None:
    """Read a config file, to find in time what no parser could use.

    Args:
        name: Path of the file.
        recipe: Its own configs are searched for what the user may have meant.

    Raises:
        UsageError: If the file is missing, unreadable, no YAML, or no mapping of sections.
    """
    if "://" in name:
        return
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"Expected a config file, got the folder `{name}`.{_inside(path)}")
    if not path.is_file():
        raise UsageError(f"No config file `{name}`.{_meant(path, recipe)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"`{name}` is no text file: byte {error.start} is not UTF-8. Expected YAML.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"`{name}` is not valid YAML: {_yaml_reason(error)}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"{type(content).__name__} `{str(content)[:60]}`"
        raise UsageError(f"Expected sections ({', '.join(SECTIONS)}) in `{name}`, found {found}.")
    data = content.get("data")
    if isinstance(data, dict) and data.get("check_data") is False and "check_data" not in content:
        # The parser would pass over it: the option of the command decides.
        raise UsageError(f"Write `check_data: false` at the top of `{name}`, not below `data`.")
    for section in ("trainer", "model", "data"):
        if section in content and not isinstance(content[section], dict):
            raise UsageError(
                f"Expected keys below `{section}` in `{name}`, got `{content[section]}`. "
                f"Write `{section}:` and one indented `key: value` a line."
            )


def _inside(folder: Path) -> str:
    found = sorted(item.name for item in folder.glob("*.yaml"))
    return f" Configs in it: {listing(found)}." if found else ""


def _meant(path: Path, recipe: Recipe) -> str:
    """Name the file that was meant: one of the recipe's, or a neighbour."""
    shipped = {item.stem: item for item in recipe.configs.glob("*.yaml")}
    if path.stem in shipped:
        return f" Did you mean `{_short(shipped[path.stem])}`?"
    neighbours = [item.name for item in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    hint = closest(path.name, neighbours) or closest(path.stem, shipped)
    return hint or f" `{recipe.command} configs` lists what comes with the recipe."


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _yaml_reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}."
    return str(error).splitlines()[0]
