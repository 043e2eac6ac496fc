"""Options of the model that are known before the parser is made, such as its head, which has options of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.errors import closest

__all__ = ["LINEAR", "find_head", "find_model_option"]

LINEAR = "linear"
"""Name of the head that every recipe has."""


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
    head = find_model_option("head", configs, words)
    found = LINEAR if head is None else str(head)
    known = (LINEAR, *recipe.heads)
    if found not in known:
        raise UsageError(f"No head `{found}` (`model.head`).{closest(found, known)} Heads: {', '.join(known)}.")
    return found


def find_model_option(name: str, configs: Sequence[str], words: Sequence[str]) -> Any:  # noqa: ANN401 - as written
    """Return an option below ``model`` before anything is parsed; the last of the configs and words counts.

    Args:
        name: Without ``model.``.
        configs: As `find_head`.
        words: As `find_head`.

    Example:
        >>> find_model_option("size", ['{"model": {"size": 3}}'], ["--model.size=5"])
        '5'
    """
    found = None
    for value in (*_in_configs(name, configs), *_in_words(f"--model.{name}", words)):
        found = value
    return found


def _in_configs(option: str, configs: Sequence[str]) -> Iterator[Any]:
    for name in configs:
        # A checkpoint's own config comes as JSON, which is YAML; no file of that name is asked for.
        text = name if name.lstrip().startswith("{") else _read(name)
        content = yaml.safe_load(text)
        model = content.get("model") if isinstance(content, dict) else None
        if isinstance(model, dict) and option in model:
            yield model[option]


def _read(name: str) -> str:
    path = Path(name)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _in_words(option: str, words: Sequence[str]) -> Iterator[str]:
    for place, word in enumerate(words):
        name, has_value, value = word.partition("=")
        if name == option:
            yield value if has_value else "".join(words[place + 1 : place + 2])
