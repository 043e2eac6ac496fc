"""The verb ``compare``: several tested runs beside each other. Reads what ``test`` wrote; no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.quiet import drop_noise
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.files import write_json

__all__ = ["compare"]

_JSON = "--json"


def compare(recipe: Recipe, arguments: Arguments) -> int:
    """Print the comparison of the runs with the first of them; with ``--json FILE`` write it too.

    Raises:
        UsageError: If there are fewer than two runs, the file exists, or another option is given.
    """
    usage = f"`{recipe.command} compare RUN RUN ... [{_JSON} FILE]`"
    folders, file = _split(arguments, usage)
    if len(folders) < 2:
        raise UsageError(f"Expected two runs or more, got {len(folders)}: {usage}.")
    if file is not None and file.exists():
        raise UsageError(f"`{file}` exists and is not written over. Give another name.")
    drop_noise()
    from lightning_transfer.evaluation import compare_runs, format_comparison  # only here: torch takes seconds

    comparison = compare_runs(folders)
    print(format_comparison(comparison))
    if file is not None:
        write_json(file, comparison.to_dict())
        print(f"Written: {file}")
    return 0


def _split(arguments: Arguments, usage: str) -> tuple[Sequence[Path], Path | None]:
    """Return the folders and the file; folders may stand behind the option too."""
    folders = [Path(word) for word in arguments.places]
    file = None
    waiting = list(arguments.rest)
    while waiting:
        word = waiting.pop(0)
        name, has_value, value = word.partition("=")
        if name == _JSON:
            if not has_value and not waiting:
                raise UsageError(f"`{_JSON}` needs a file behind it: {usage}.")
            file = Path(value if has_value else waiting.pop(0))
        elif word.startswith("-"):
            raise UsageError(f"`compare` does not take `{word}`: {usage}.")
        else:
            folders.append(Path(word))
    if arguments.configs or arguments.ckpt_path:
        raise UsageError(f"`compare` reads what the runs' tests wrote, and takes no config and no checkpoint: {usage}.")
    return folders, file
