"""Resolve which layer of a module is how deep, from the best evidence there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_transfer.depth.discovery import Found, find_backbones, find_head, named_node
from lightning_transfer.depth.evidence import by_matcher, by_method, by_regexes, matches
from lightning_transfer.depth.execution import by_execution
from lightning_transfer.depth.layers import DepthMap, Layer
from lightning_transfer.depth.modes import modules_by_layer
from lightning_transfer.depth.structure import Order, by_registration, by_structure
from lightning_transfer.depth.tree import Node, build_tree
from lightning_transfer.errors import listing

__all__ = ["resolve_depth"]

Groups = list[tuple[str, list[str]]]


def resolve_depth(
    root: nn.Module,
    *,
    backbone: str | Sequence[str] | None = None,
    head: str | Sequence[str] | None = None,
    layer_groups: Sequence[str] | None = None,
    example_input: Any | None = None,  # noqa: ANN401 - whatever the backbone takes
) -> DepthMap:
    """Find out which layer of a module is how deep.

    The order of evidence: ``layer_groups``; the backbone's own ``layer_groups()``; timm's ``group_matcher``; lists of
    same-typed blocks; the order of execution, if there is an ``example_input``; the order of registration, with a
    warning. Nothing is changed, and no parameter's value is read.

    Args:
        root: A LightningModule, or a bare model.
        backbone: Dotted name or names inside the root; None to find it.
        head: Dotted name or names of the new modules; None to find them, also inside the backbone. What lies outside
            every backbone belongs to the head in any case.
        layer_groups: Regular expressions from stem to top, matched at the start of names relative to the backbone.
        example_input: For a dry forward pass where nothing else decides: a tensor, a tuple or a mapping.

    Returns:
        The layers, each parameter and module of the root exactly once.

    Raises:
        ValueError: If a name or pattern matches nothing, if several modules could be the backbone, or if nothing
            says where the head is.

    Example:
        >>> net = nn.Module()
        >>> net.backbone = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.LayerNorm(4))
        >>> net.head = nn.Linear(4, 2)
        >>> depth_map = resolve_depth(net)
        >>> [(group.name, group.depth, len(group.parameters)) for group in depth_map.groups]
        [('0', 0, 2), ('2', 1, 4)]
        >>> depth_map.head.parameters, depth_map.evidence
        (('head.weight', 'head.bias'), 'structure')
    """
    tree = build_tree(root)
    nodes = find_backbones(tree, backbone)
    inside = {path for node in nodes for path, _, _ in node.all_parameters()}
    outside = {path for path, _, _ in tree.all_parameters()} - inside
    new = set(outside)
    warnings: list[str] = []
    bases: list[Node] = []
    if head is not None:
        for name in [head] if isinstance(head, str) else head:
            new.update(_named(tree, name))
    for node in nodes:
        new.update(path for below in node.walk() if below.outside for path, _, _ in below.all_parameters())
        found = find_head(node, others_are_head=bool(outside)) if head is None else Found()
        base = find_head(node, others_are_head=True).base or node
        bases.append(base)
        if not found.decided:
            raise ValueError(_no_head(node))
        warnings.extend(found.warnings)
        if found.head and _has_weight_layer(tree, outside):
            inner = listing(f"`{part.name}`" for part in found.head)
            warnings.append(
                f"{inner} inside the backbone `{node.name}` counts as pretrained, as there are new layers outside it. "
                f"If it is new too, pass `head=`."
            )
            continue
        new.update(found.parameters)
        new.update(path for part in found.head for path, _, _ in part.all_parameters())

    if inside and inside <= new:
        raise ValueError(
            f"Nothing is left of the backbone {listing(f'`{node.name}`' for node in nodes)}: `head={head!r}` takes in "
            "all of it. Name only the new part."
        )
    orders: list[Order] = []
    evidence = ""
    patterns = _patterns_of(nodes, layer_groups, new)
    for node, base, own in zip(nodes, bases, patterns, strict=True):
        order, how, notes = _order(node, base, new, own, example_input)
        orders.append(order)
        warnings.extend(notes)
        evidence = how if not evidence or evidence == how else f"{evidence}, {how}"
    coarse = _merge([order.groups for order in orders], nodes)
    fine = _merge([order.layers for order in orders], nodes)
    paths = [node.path for node in nodes]
    groups, group_head = _layers(root, tree, paths, coarse)
    layers, _ = _layers(root, tree, paths, fine)
    return DepthMap(
        groups=groups,
        layers=layers,
        head=group_head,
        backbones=tuple(node.wrappers[0] if node.wrappers else node.name for node in nodes),
        evidence=evidence,
        warnings=tuple(warnings),
    )


def _named(tree: Node, name: str) -> list[str]:
    """Paths of the parameters that a user's head name stands for: a module, or one parameter."""
    single = [path for path, full, _ in tree.all_parameters() if name in (path, full)]
    return single or [path for path, _, _ in named_node(tree, name, "head").all_parameters()]


def _has_weight_layer(tree: Node, outside: set[str]) -> bool:
    """Whether there is a layer outside the backbones, not only a loss's weights."""
    for node in tree.walk():
        learned = any(path in outside and value.ndim > 1 for path, _, value in node.parameters)
        if learned and not any(word in node.path.lower() for word in ("loss", "criterion", "metric")):
            return True
    return False


def _no_head(node: Node) -> str:
    children = listing(
        (f"`{child.path}` ({type(child.module).__name__})" for child in node.children if child.has_parameters), limit=12
    )
    where = f"`{node.name}` ({type(node.module).__name__})" if node.name else type(node.module).__name__
    return (
        f"Nothing says which part of {where} is the new head. Its children are: {children or 'none'}. "
        "Pass `head=` with the dotted name or names of what is new."
    )


def _patterns_of(
    nodes: list[Node], layer_groups: Sequence[str] | None, new: set[str]
) -> Sequence[Sequence[str] | None]:
    """With several backbones, leave to each the patterns that match in it; each must match in one at least."""
    if layer_groups is None or isinstance(layer_groups, str) or len(nodes) == 1:
        return [layer_groups] * len(nodes)
    missing = [pattern for pattern in layer_groups if not any(matches(node, pattern, new) for node in nodes)]
    if missing:
        by_regexes(nodes[0], missing[:1], new)
    own = [[pattern for pattern in layer_groups if matches(node, pattern, new)] for node in nodes]
    # A backbone that no pattern matches gets them all, so that the error names one.
    return [patterns or layer_groups for patterns in own]


def _order(
    node: Node,
    base: Node,
    new: set[str],
    layer_groups: Sequence[str] | None,
    example_input: Any | None,  # noqa: ANN401 - whatever the backbone takes
) -> tuple[Order, str, list[str]]:
    """Order one backbone by the first evidence that answers."""
    if all(path in new for path, _, _ in node.all_parameters()):
        return Order([], []), "structure", []
    if layer_groups is not None:
        return by_regexes(node, layer_groups, new), "layer_groups argument", []
    for owner in (node, base):
        if callable(getattr(owner.module, "layer_groups", None)):
            return by_method(node, owner, new), "module.layer_groups()", []
    if callable(getattr(node.module, "group_matcher", None)):
        return by_matcher(node, new), "timm group_matcher", []
    order = by_structure(node, base, new)
    if order is not None:
        return order, "structure", []
    if example_input is not None:
        ran, missed = by_execution(node, new, example_input)
        notes = []
        if missed:
            names = listing(f"`{child.name}`" for child in missed)
            notes.append(f"{names} did not run on the example input, and joined the layer registered before.")
        if ran:
            return by_registration(node, base, new, ran), "execution order", notes
    shown = f"`{node.name}`" if node.name else type(node.module).__name__
    note = (
        f"The depth of {shown} was read off the order in which its children are registered, which need not be the "
        "order in which they run. Check the groups; pass `layer_groups=` or `example_input=` if they are wrong."
    )
    return by_registration(node, base, new), "registration order", [note]


def _merge(parts: list[Groups], nodes: list[Node]) -> Groups:
    """Lay several backbones side by side: what is equally far from its stem has the same depth."""
    if len(parts) == 1:
        return parts[0]
    depth = max(len(part) for part in parts)
    merged: list[tuple[list[str], list[str]]] = [([], []) for _ in range(depth)]
    for part, node in zip(parts, nodes, strict=True):
        for number, (name, paths) in enumerate(part):
            place = round(number * (depth - 1) / max(1, len(part) - 1))
            merged[place][0].append(f"{node.path}.{name}")
            merged[place][1].extend(paths)
    return [(" + ".join(names), paths) for names, paths in merged]


def _layers(root: nn.Module, tree: Node, backbones: list[str], groups: Groups) -> tuple[tuple[Layer, ...], Layer]:
    """Turn paths into layers of current names, each parameter once and at its lowest depth."""
    top = len(groups)
    depth_of_path = {path: depth for depth, (_, paths) in enumerate(groups) for path in paths}
    depth_of: dict[int, int] = {}
    for path, _, value in tree.all_parameters():
        depth = depth_of_path.get(path, top)
        depth_of[id(value)] = min(depth, depth_of.get(id(value), top))
    members: list[list[str]] = [[] for _ in range(top + 1)]
    for name, value in root.named_parameters():
        if id(value) not in depth_of:
            raise ValueError(f"The parameter `{name}` was found in no layer. Pass `layer_groups=` that matches it.")
        members[depth_of[id(value)]].append(name)
    # A group whose tensors are all tied to lower ones is none.
    kept = [depth for depth in range(top) if members[depth]]
    renumbered = {depth: number for number, depth in enumerate(kept)} | {top: len(kept)}
    final = {key: renumbered[depth] for key, depth in depth_of.items()}
    modes = modules_by_layer(root, tree, backbones, final, len(kept))
    names = _unique([groups[depth][0] for depth in kept])
    layers = tuple(
        Layer(name, number, tuple(members[depth]), tuple(modes[number]))
        for number, (name, depth) in enumerate(zip(names, kept, strict=True))
    )
    return layers, Layer("head", len(kept), tuple(members[top]), tuple(modes[len(kept)]))


def _unique(names: list[str]) -> list[str]:
    taken: dict[str, int] = {"head": 1}
    result = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        result.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return result
