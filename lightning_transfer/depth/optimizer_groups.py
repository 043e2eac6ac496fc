"""Learning rates by depth: the scale of each parameter, and an optimizer's groups split by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_transfer.depth.freezing import is_norm
from lightning_transfer.depth.layers import DepthMap, Index
from lightning_transfer.errors import closest, listing

__all__ = ["SplitGroup", "layer_decay_scales", "set_multipliers", "split_param_groups"]


@dataclass(frozen=True)
class SplitGroup:
    """Where one of an optimizer's groups came from.

    Attributes:
        name: Readable and unique within the optimizer; also stored in the group.
        source: Index of the user's own group that this one is a part of.
        scale: What the user's learning rate is multiplied by.
        depth: Of the layer; None for parameters that are not in the module.
    """

    name: str
    source: int
    scale: float
    depth: int | None


def layer_decay_scales(
    depth_map: DepthMap,
    layer_decay: float | None = None,
    total_ratio: float | None = None,
    head_lr_multiplier: float = 1.0,
) -> dict[str, float]:
    """Compute what each parameter's learning rate is multiplied by.

    A parameter ``d`` fine layers below the head gets ``layer_decay ** d``. Where timm describes the layers,
    these are the scales of its ``param_groups_layer_decay``.

    Args:
        depth_map: From `resolve_depth`.
        layer_decay: Factor from one layer to the next lower one, in ``(0, 1]``.
        total_ratio: Instead of it: the lowest layer's rate over the head's, whatever the number of layers,
            in ``(0, 1]``.
        head_lr_multiplier: Further factor for the head alone; positive.

    Returns:
        Scale by parameter name, for every parameter of the root.

    Raises:
        ValueError: If not exactly one of ``layer_decay`` and ``total_ratio`` is given, or one is out of range.

    Example:
        >>> from lightning_transfer.depth import Layer
        >>> layers = (Layer("stem", 0, ("a",)), Layer("top", 1, ("b",)))
        >>> depth_map = DepthMap(layers, layers, Layer("head", 2, ("c",)), ("",), "structure")
        >>> layer_decay_scales(depth_map, layer_decay=0.5)
        {'a': 0.25, 'b': 0.5, 'c': 1.0}
    """
    decay = _decay(depth_map, layer_decay, total_ratio)
    if not head_lr_multiplier > 0:
        raise ValueError(f"Expected `head_lr_multiplier` above 0, got {head_lr_multiplier}.")
    top = len(depth_map.layers)
    scales = {name: decay ** (top - layer.depth) for layer in depth_map.layers for name in layer.parameters}
    scales.update(dict.fromkeys(depth_map.head.parameters, float(head_lr_multiplier)))
    return scales


def _decay(depth_map: DepthMap, layer_decay: float | None, total_ratio: float | None) -> float:
    if (layer_decay is None) == (total_ratio is None):
        raise ValueError(
            f"Expected exactly one of `layer_decay` and `total_ratio`, got layer_decay={layer_decay} and "
            f"total_ratio={total_ratio}."
        )
    for name, value in (("layer_decay", layer_decay), ("total_ratio", total_ratio)):
        if value is not None and not 0 < value <= 1:
            raise ValueError(f"Expected `{name}` in (0, 1], got {value}. Use 1.0 for one learning rate everywhere.")
    if layer_decay is not None:
        return float(layer_decay)
    ratio = 1.0 if total_ratio is None else float(total_ratio)
    return math.pow(ratio, 1 / max(1, len(depth_map.layers)))


def set_multipliers(
    depth_map: DepthMap, scales: Mapping[str, float], multipliers: Mapping[str, float]
) -> dict[str, float]:
    """Put a user's own numbers in the place of the scales of the layers that they name.

    Args:
        depth_map: From `resolve_depth`.
        scales: From `layer_decay_scales`; layers that nobody names keep theirs.
        multipliers: Number by name of a coarse group, which stands for all layers in it, of a fine layer, which wins
            over its group's number, or ``head``.

    Returns:
        Scale by parameter name, for every parameter of the root.

    Raises:
        ValueError: If a name is none of the map's.

    Example:
        >>> from lightning_transfer.depth import Layer
        >>> groups = (Layer("stem", 0, ("a",)), Layer("top", 1, ("b", "c")))
        >>> layers = (Layer("stem", 0, ("a",)), Layer("top.0", 1, ("b",)), Layer("top.1", 2, ("c",)))
        >>> depth_map = DepthMap(groups, layers, Layer("head", 2, ("d",)), ("",), "structure")
        >>> set_multipliers(depth_map, dict.fromkeys("abcd", 1.0), {"top": 0.5, "top.1": 0.7})
        {'a': 1.0, 'b': 0.5, 'c': 0.7, 'd': 1.0}
    """
    groups = {layer.name: layer for layer in (*depth_map.groups, depth_map.head)}
    layers = {layer.name: layer for layer in depth_map.layers if layer.name not in groups}
    for name in multipliers:
        if name not in groups and name not in layers:
            raise ValueError(
                f"No layer is called {name!r}, given in `multipliers`.{closest(name, [*groups, *layers])} "
                f"Groups: {listing(groups, 40)}." + (f" Layers in them: {listing(layers, 60)}." if layers else "")
            )
    result = dict(scales)
    # Groups first, so that a layer's own number wins whatever the order of the keys.
    for known in (groups, layers):
        for name, layer in known.items():
            if name in multipliers:
                result.update(dict.fromkeys(layer.parameters, float(multipliers[name])))
    return result


def split_param_groups(
    optimizer: Optimizer,
    root: nn.Module,
    depth_map: DepthMap,
    scales: Mapping[str, float],
    *,
    no_decay_norm_and_bias: bool = False,
) -> list[SplitGroup]:
    """Split an optimizer's groups by layer, in place; every option and all state stay.

    Learning rates are left as they are: the caller multiplies them by ``scale``. Parameters are told apart by
    identity. Those that the module does not hold keep the scale 1.

    Args:
        optimizer: Any torch optimizer; its ``param_groups`` list is filled anew.
        root: The module that ``depth_map`` describes.
        depth_map: From `resolve_depth`; its fine ``layers`` are used.
        scales: From `layer_decay_scales`.
        no_decay_norm_and_bias: Biases and the weights of normalisation layers get groups with ``weight_decay=0``.

    Returns:
        One entry for each group of the optimizer now, in the same order.
    """
    owners = _owners(root, depth_map, scales)
    undecayed = _undecayed(root) if no_decay_norm_and_bias else set()
    several = len(optimizer.param_groups) > 1
    splits: list[SplitGroup] = []
    groups: list[dict[str, Any]] = []
    used: set[str] = set()
    for source, group in enumerate(optimizer.param_groups):
        parts: dict[_Key, list[int]] = {}
        for position, value in enumerate(group["params"]):
            layer, depth, scale = owners.get(id(value), ("other", -1, 1.0))
            plain = "weight_decay" in group and id(value) in undecayed
            parts.setdefault(_Key(depth, layer, scale, plain), []).append(position)
        # A group that the user left empty keeps its place.
        for key in sorted(parts) or [_Key(-1, "empty", 1.0, False)]:
            name = key.layer if key.depth < 0 else f"{key.layer}-depth{key.depth}"
            if several or "name" in group:
                name += f"-{group.get('name', f'pg{source + 1}')}"
            part = _part(group, parts.get(key, []))
            if key.plain:
                name += "-no_decay"
                part["weight_decay"] = 0.0
            part["name"] = _unique(name, used)
            groups.append(part)
            splits.append(SplitGroup(part["name"], source, key.scale, None if key.depth < 0 else key.depth))
    # In place: whoever holds the list goes on seeing the optimizer's groups.
    optimizer.param_groups[:] = groups
    return splits


class _Key(NamedTuple):
    """What parameters of one user's group must have in common to stay together."""

    depth: int
    layer: str
    scale: float
    plain: bool


def _owners(root: nn.Module, depth_map: DepthMap, scales: Mapping[str, float]) -> dict[int, tuple[str, int, float]]:
    """Layer name, depth and scale by identity of the parameter."""
    index = Index(root)
    owners: dict[int, tuple[str, int, float]] = {}
    top = len(depth_map.layers)
    for layer in (*depth_map.layers, depth_map.head):
        depth = top if layer is depth_map.head else layer.depth
        for (_, value), name in zip(index.named_parameters(layer), layer.parameters, strict=True):
            owners[id(value)] = (layer.name, depth, scales.get(name, 1.0))
    return owners


def _part(group: Mapping[str, Any], positions: list[int]) -> dict[str, Any]:
    """Copy a group with some of its parameters; options that can be changed in place are no longer shared."""
    part: dict[str, Any] = {}
    for option, value in group.items():
        if option in ("params", "param_names"):
            part[option] = [value[position] for position in positions]
        else:
            part[option] = value.clone() if isinstance(value, Tensor) else copy(value)
    return part


def _unique(name: str, used: set[str]) -> str:
    candidate, number = name, 2
    while candidate in used:
        candidate, number = f"{name}-{number}", number + 1
    used.add(candidate)
    return candidate


def _undecayed(root: nn.Module) -> set[int]:
    """Identities of biases and of all parameters of normalisation layers."""
    found: set[int] = set()
    for module in root.modules():
        norm = is_norm(module)
        found.update(
            id(value)
            for name, value in module.named_parameters(recurse=False)
            if norm or value.ndim <= 1 or name.endswith("bias")
        )
    return found
