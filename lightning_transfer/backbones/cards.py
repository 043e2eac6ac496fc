"""Read card files, check them, and join them with what a library knows of its own weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from lightning_transfer.errors import BackboneError, closest
from lightning_transfer.types import BackboneCard

__all__ = ["card_values", "complete", "find_card", "front_matter", "join", "read_card", "read_json"]

_KEYS = tuple(item.name for item in fields(BackboneCard))
_CHOICES: dict[str, tuple[str, ...]] = {
    "modality": ("image", "text", "audio"),
    "padding": ("torch", "tf_same"),
    "batchnorm": ("live", "folded"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"),
    "pooling": ("", "mean", "cls"),
}


def read_card(path: str | Path) -> dict[str, Any]:
    """Read a card file and check every key and value.

    Args:
        path: A YAML file whose keys are the fields of `BackboneCard`; none is compulsory here.

    Returns:
        The values, sequences as tuples.

    Raises:
        BackboneError: If the file is missing or no YAML, or a key is unknown, or a value is wrong.
    """
    file = Path(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BackboneError(f"Cannot read the card `{file}`: {error.strerror}. Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BackboneError(f"The card `{file}` is no valid YAML: {error}") from error
    if not isinstance(values, Mapping):
        raise BackboneError(f"The card `{file}` must hold `key: value` lines, found {type(values).__name__}.")
    return {str(key): _checked(str(key), value, file) for key, value in values.items()}


def card_values(card: BackboneCard | str | Path | None) -> dict[str, Any]:
    """Turn any form of the ``card`` argument into the values that it states.

    Example:
        >>> card_values(BackboneCard(name="a", architecture="timm/resnet18"))["architecture"]
        'timm/resnet18'
        >>> card_values(None)
        {}
    """
    if card is None:
        return {}
    if isinstance(card, BackboneCard):
        return {key: getattr(card, key) for key in _KEYS}
    if isinstance(card, str | Path):
        return read_card(card)
    raise TypeError(f"Expected `card` to be a BackboneCard, a path or None, got {type(card).__name__}.")


def find_card(weights: Path) -> Path | None:
    """Find the card beside a weights file: ``<name of the file>.yaml`` before ``card.yaml``."""
    for candidate in (weights.with_suffix(".yaml"), weights.parent / "card.yaml"):
        if candidate.is_file():
            return candidate
    return None


def join(base: BackboneCard, *layers: Mapping[str, Any]) -> BackboneCard:
    """Lay card values over a library's own card; the later layer wins, mappings are replaced as a whole.

    Example:
        >>> base = BackboneCard(name="a", architecture="timm/resnet18", licence="mit")
        >>> join(base, {"licence": "unknown"}, {"licence": "bsd"}).licence
        'bsd'
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer
    return replace(base, **values)


def complete(card: BackboneCard, module: nn.Module, num_features: int) -> BackboneCard:
    """Fill in the counts that the network itself answers.

    Args:
        card: The card so far; counts of 0 are unknown.
        module: The backbone, without head.
        num_features: Width of its pooled features.

    Raises:
        BackboneError: If the card states other counts: it belongs to another network.
    """
    truth = {"num_features": num_features, "num_parameters": sum(item.numel() for item in module.parameters())}
    for key, count in truth.items():
        stated = getattr(card, key)
        if stated not in (0, count):
            raise BackboneError(
                f"The card of `{card.name}` states `{key}: {stated}`, but `{card.architecture}` has {count}. "
                f"The card belongs to another network, or the library changed it; correct or leave out `{key}`."
            )
    channels = card.input_size[0] if card.input_size else None
    for key in ("mean", "std"):
        values = getattr(card, key)
        if values is not None and channels is not None and len(values) != channels:
            raise BackboneError(
                f"The card of `{card.name}` has {len(values)} values in `{key}`, but `input_size` has {channels} "
                f"channels. Give one value for each channel."
            )
    return replace(card, num_features=truth["num_features"], num_parameters=truth["num_parameters"])


def front_matter(readme: Path) -> dict[str, Any]:
    """Read the YAML block at the top of a model card; where it is unreadable, nothing is known."""
    if not readme.is_file():
        return {}
    parts = readme.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        values = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; a missing file is an empty one.

    Raises:
        BackboneError: If the file is damaged.
    """
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"`{file}` is no valid JSON: {error}.") from error
    return values if isinstance(values, dict) else {}


def _checked(key: str, value: Any, file: Path) -> Any:  # noqa: ANN401 - any YAML value
    """Check one line of a card."""
    if key not in _KEYS:
        raise BackboneError(
            f"Unknown key `{key}` in the card `{file}`.{closest(key, _KEYS)} Known keys: {', '.join(_KEYS)}."
        )
    where = f"Expected `{key}` in the card `{file}` to be"
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            hint = closest(str(value), _CHOICES[key])
            choices = ", ".join(f"`{item}`" for item in _CHOICES[key])
            raise BackboneError(f"{where} one of {choices}, got `{value}`.{hint}")
        return value
    if key in ("architecture_config", "processor"):
        if not isinstance(value, Mapping):
            raise BackboneError(f"{where} a mapping, got `{value}`.")
        return dict(value)
    if key in ("num_features", "num_parameters"):
        if not _is_int(value) or value < 1:
            raise BackboneError(f"{where} a positive whole number, got `{value}`.")
        return value
    if key == "input_size":
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 3 or not all(_is_int(item) and item > 0 for item in value):
            raise BackboneError(f"{where} three positive whole numbers [channels, height, width], got `{value}`.")
        return tuple(value)
    if key in ("mean", "std"):
        if value is None:
            return None
        numbers = isinstance(value, list) and value and all(_is_int(item) or isinstance(item, float) for item in value)
        if not numbers or (key == "std" and min(value) <= 0):
            sign = "positive numbers" if key == "std" else "numbers"
            raise BackboneError(f"{where} a list of {sign}, one for each channel, got `{value}`.")
        return tuple(float(item) for item in value)
    if not isinstance(value, str) or not value.strip():
        raise BackboneError(f"{where} a text, got `{value}`. Put it in quotes.")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
