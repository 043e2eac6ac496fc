"""The verbs ``configs`` and ``copy``: the recipe's own configs, to look at and to start from. No torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.errors import closest, listing

__all__ = ["configs", "copy", "header"]


def configs(recipe: Recipe, arguments: Arguments) -> int:
    """Print each config of the recipe with the first line of its header."""
    _refuse_more(recipe, arguments, 0)
    found = _shipped(recipe)
    width = max((len(name) for name in found), default=0)
    for name, path in found.items():
        print(f"{name:<{width}}  {header(path)}".rstrip())
    if not found:
        print(f"No configs in `{recipe.configs}`.")
    else:
        print(f"\nRun one:  {recipe.command} fit --config {_display(next(iter(found.values())))}")
        print(f"Copy one: {recipe.command} copy {next(iter(found))} my.yaml")
    return 0


def copy(recipe: Recipe, arguments: Arguments) -> int:
    """Copy a config to a new file, never over an existing one."""
    _refuse_more(recipe, arguments, 2)
    if len(arguments.places) < 2:
        raise UsageError(f"Expected two words: `{recipe.command} copy NAME DEST`, got {list(arguments.places)}.")
    name, target = arguments.places
    found = _shipped(recipe)
    key = name.removesuffix(".yaml")
    if key not in found:
        raise UsageError(f"No config `{name}`.{closest(key, found)} Configs: {listing(found, 20)}.")
    destination = Path(target)
    if destination.is_dir():
        destination = destination / found[key].name
    if not destination.parent.is_dir():
        raise UsageError(f"No folder `{destination.parent}` to copy into. Make it first.")
    try:
        # Exclusive creation: two copies at once cannot both win.
        with destination.open("xb") as stream, found[key].open("rb") as source:
            shutil.copyfileobj(source, stream)
    except FileExistsError as error:
        raise UsageError(f"`{destination}` exists and is not overwritten. Give another name.") from error
    print(f"Copied to {destination}")
    print(f"Run it: {recipe.command} fit --config {destination}")
    return 0


def header(path: Path) -> str:
    r"""Return the first comment line of a config that says something, without its ``#``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "demo.yaml")
        ...     _ = file.write_text("#\n# Find scratches on steel.\nmodel: {}\n")
        ...     header(file)
        'Find scratches on steel.'
    """
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if not line.startswith("#"):
                break
            text = line.strip("# \n")
            if text:
                return text
    return ""


def _shipped(recipe: Recipe) -> dict[str, Path]:
    return {path.stem: path for path in sorted(recipe.configs.glob("*.yaml"))}


def _display(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def _refuse_more(recipe: Recipe, arguments: Arguments, places: int) -> None:
    extra = [*arguments.places[places:], *arguments.rest, *(f"--config {name}" for name in arguments.configs)]
    if extra:
        raise UsageError(f"`{arguments.verb}` does not take `{extra[0]}`. See `{recipe.command} --help`.")
