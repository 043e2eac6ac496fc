"""Which head ``model.head`` asks for: known before the parser is made, because each head has options of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.errors import closest

__all__ = ["LINEAR", "find_head"]

LINEAR = "linear"
"""Name of the head that every recipe has."""

_OPTION = "--model.head"


def find_head(recipe: Recipe, configs: Sequence[str], words: Sequence[str]) -> str:
    """Return the head's name; the last of the configs and options counts.

    Args:
        recipe: Its ``heads`` are known.
        configs: Files, or whole configs as JSON.
        words: Options of the command line.

    Raises:
        UsageError: If there is no such head.

    Example:
        >>> recipe = Recipe("toy", "json", "json:a", "json:b", heads={"normal_only": "json:c"})
        >>> find_head(recipe, ['{"model": {"head": "normal_only"}}'], [])
        'normal_only'
    """
    found = LINEAR
    for head in (*_in_configs(configs), *_in_words(words)):
        found = LINEAR if head is None else str(head)
    known = (LINEAR, *recipe.heads)
    if found not in known:
        raise UsageError(f"No head `{found}` (`model.head`).{closest(found, known)} Heads: {', '.join(known)}.")
    return found


def _in_configs(configs: Sequence[str]) -> Iterator[Any]:
    for name in configs:
        # A checkpoint's own config comes as JSON, which is YAML; no file of that name is asked for.
        text = name if name.lstrip().startswith("{") else _read(name)
        content = yaml.safe_load(text)
        model = content.get("model") if isinstance(content, dict) else None
        if isinstance(model, dict) and "head" in model:
            yield model["head"]


def _read(name: str) -> str:
    path = Path(name)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _in_words(words: Sequence[str]) -> Iterator[str]:
    for place, word in enumerate(words):
        name, has_value, value = word.partition("=")
        if name == _OPTION:
            yield value if has_value else "".join(words[place + 1 : place + 2])
