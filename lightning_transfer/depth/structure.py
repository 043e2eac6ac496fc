"""Read the order of layers off a module's own structure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from lightning_transfer.depth.freezing import is_norm
from lightning_transfer.depth.tree import Node

__all__ = ["Block", "Order", "by_blocks", "by_registration", "by_structure", "interleave"]

_CONTAINERS = (nn.Sequential, nn.ModuleList)
# Where a stage of a library's own class keeps its blocks; experts of a mixture are not blocks in a row.
_STAGE_LISTS = ("blocks", "layers")


# Attributes that stand for branches side by side, as a part of a name: `text_model`, but not `context`.
_SIDES = re.compile(r"(?:^|_)(decoder|text|visual|vision|image|audio|speech)(?=$|_)")


@dataclass(frozen=True)
class Block:
    """A named subtree that is one layer; ``nodes`` are what it is made of."""

    name: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Order:
    """Layers from the input upwards: name and paths of the parameters of each.

    Attributes:
        groups: Coarse.
        layers: Fine.
    """

    groups: list[tuple[str, list[str]]]
    layers: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class _Stack:
    node: Node
    parent: Node
    blocks: tuple[Node, ...]
    composite: bool


Weighted = Callable[[Node], bool]


def _inner(node: Node) -> nn.Module:
    """The module that an adapter such as LoRA's wraps, else the node's own."""
    base = getattr(node.module, "base_layer", None)
    return base if isinstance(base, nn.Module) else node.module


def _is_leaf(node: Node) -> bool:
    return next(_inner(node).children(), None) is None


def _blocks_of(node: Node, weighted: Weighted, at_least: int = 2) -> tuple[Node, ...]:
    """Children that are blocks in a row: at least two of one type; a norm in a row of layers is no block."""
    if not isinstance(node.module, _CONTAINERS):
        return ()
    children = [child for child in node.children if weighted(child)]
    composite = [child for child in children if not _is_leaf(child)]
    pool = composite or [child for child in children if isinstance(_inner(child), _PLAIN_LAYERS)]
    counts = Counter(type(_inner(child)) for child in pool)
    if not counts:
        return ()
    kind, count = counts.most_common(1)[0]
    if count < at_least:
        return ()
    if isinstance(node.module, nn.ModuleList):
        # Members of a list are of equal standing even where types alternate, as in hybrid transformers.
        return tuple(pool)
    return tuple(child for child in pool if type(_inner(child)) is kind)


_PLAIN_LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Bilinear, nn.LSTM, nn.GRU, nn.RNN,
)  # fmt: skip


def _stacks(node: Node, parent: Node, weighted: Weighted, at_least: int = 2) -> list[_Stack]:
    """Outermost stacks in the order of registration."""
    blocks = _blocks_of(node, weighted, at_least)
    if blocks:
        return [_Stack(node, parent, blocks, not _is_leaf(blocks[0]))]
    found: list[_Stack] = []
    of_kind: dict[type[nn.Module], list[list[_Stack]]] = {}
    for child in node.children:
        if weighted(child):
            inner = _stacks(child, node, weighted, at_least)
            found.extend(inner)
            if not isinstance(child.module, _CONTAINERS) and not _is_leaf(child):
                of_kind.setdefault(type(child.module), []).append(inner)
    for parts in of_kind.values():
        # Three attributes of one type, and no list but in those: they are the blocks, and what is in them is not
        # (GoogLeNet's branches).
        if len(parts) > 2 and sum(map(len, parts)) == len(found):
            return []
    return found


def by_structure(backbone: Node, base: Node, new: set[str]) -> Order | None:
    """Order layers by the outermost lists of same-typed blocks; None if there are none.

    Args:
        backbone: Its parameters are ordered.
        base: Group names are relative to this part of it.
        new: Paths of the head's parameters, which are left out.
    """

    def weighted(node: Node) -> bool:
        return any(path not in new for path, _, _ in node.all_parameters())

    stacks = _stacks(backbone, backbone, weighted)
    stacks = [stack for stack in stacks if "stem" not in stack.node.last.split("_")] or stacks
    if any(stack.composite for stack in stacks):
        stacks = [stack for stack in stacks if stack.composite]
    elif not stacks:
        # A list of one block: a small configuration, or ALBERT, whose layers share their weights.
        stacks = [stack for stack in _stacks(backbone, backbone, weighted, 1) if stack.composite]
    if not stacks:
        return None
    branches = _branches(stacks, backbone)
    coarse = interleave([[block for stack in branch for block in _coarse(stack, branch)] for branch in branches])
    fine = interleave(
        [[inner for stack in branch for node in stack.blocks for inner in _fine(node, weighted)] for branch in branches]
    )
    parallel = len(branches) > 1

    def order(nodes: list[Node]) -> list[tuple[str, list[str]]]:
        blocks = [
            Block(base.relative(node.path) if node.path.startswith(base.path) else node.path, (node,)) for node in nodes
        ]
        return by_blocks(backbone, blocks, new, parallel=parallel)

    return Order(order(coarse), order(fine))


def _branches(stacks: list[_Stack], backbone: Node) -> list[list[_Stack]]:
    """Tell encoder from decoder, and one modality's tower from another's; all else is one after the other."""
    branches: dict[str, list[_Stack]] = {}
    for stack in stacks:
        parts = backbone.relative(stack.node.path).split(".")
        sides = [found.group(1) for part in parts if (found := _SIDES.search(part))]
        side = "decoder" if "decoder" in sides else sides[0] if sides else ""
        branches.setdefault(side, []).append(stack)
    return list(branches.values())


def _coarse(stack: _Stack, branch: list[_Stack]) -> list[Node]:
    """Stages where several stacks of blocks stand side by side (``layer1`` to ``layer4``), else blocks."""
    kind = type(stack.blocks[0].module)
    siblings = [o for o in branch if o.parent is stack.parent and type(o.blocks[0].module) is kind]
    return [stack.node] if len(siblings) > 1 and stack.composite else list(stack.blocks)


def _fine(node: Node, weighted: Weighted) -> list[Node]:
    """Blocks inside a stage; the block itself where it is one."""
    if isinstance(node.module, _CONTAINERS):
        inner = [child for child in node.children if weighted(child) and not _is_leaf(child)]
        same = Counter(type(child.module) for child in inner)
        if inner and len(same) == 1:
            return inner
        return [node]
    for child in node.children:
        if child.last in _STAGE_LISTS and weighted(child):
            blocks = _blocks_of(child, weighted)
            if blocks and not _is_leaf(blocks[0]) and len({type(block.module) for block in blocks}) == 1:
                return list(blocks)
    return [node]


def interleave(branches: Sequence[Sequence[Node]]) -> list[Node]:
    """Merge branches that run side by side, by relative depth; the first wins a tie.

    Example:
        >>> first, second = (Node("a", "a", nn.Identity()), Node("b", "b", nn.Identity())), ()
        >>> [node.path for node in interleave([first, second])]
        ['a', 'b']
    """
    keyed = [
        ((position + 1) / len(branch), number, node)
        for number, branch in enumerate(branches)
        for position, node in enumerate(branch)
    ]
    return [node for _, _, node in sorted(keyed, key=lambda item: item[:2])]


def by_blocks(
    backbone: Node, blocks: Sequence[Block], new: set[str], *, parallel: bool = False
) -> list[tuple[str, list[str]]]:
    """Give every parameter to a block; what lies between blocks joins the one before it.

    What comes before the first block, embeddings wherever they are registered, and in a parallel branch what comes
    before its own first block, is the stem.

    Args:
        backbone: Its parameters are distributed.
        blocks: From the input upwards.
        new: Paths that are left out.
        parallel: There are branches side by side.
    """
    position = {id(node): number for number, block in enumerate(blocks) for node in block.nodes}
    stem_modules: list[Node] = []
    members: dict[int, list[str]] = {number: [] for number in range(-1, len(blocks))}

    def contains(node: Node) -> bool:
        return any(id(below) in position for below in node.walk())

    def give(node: Node, number: int) -> None:
        members[number].extend(path for path, _, _ in node.all_parameters() if path not in new)

    def distribute(node: Node, before: int) -> int:
        """Return the layer that whatever follows the node joins."""
        if id(node) in position:
            give(node, position[id(node)])
            return position[id(node)]
        members[-1].extend(path for path, _, _ in node.parameters if path not in new)
        last = before
        for child in node.children:
            if not child.has_parameters:
                continue
            if contains(child):
                last = distribute(child, -1 if parallel else last)
            else:
                if isinstance(child.module, nn.Embedding):
                    last = -1
                give(child, last)
                if last == -1:
                    stem_modules.append(child)
        return last

    if contains(backbone):
        distribute(backbone, -1)
    if blocks and not stem_modules:
        # Lone parameters, such as a mask token, are no layer.
        members[0] = members[-1] + members[0]
        members[-1] = []
    names = ["stem", *(block.name for block in blocks)]
    return [(name, members[number]) for number, name in enumerate(names, start=-1) if members[number]]


def by_registration(backbone: Node, base: Node, new: set[str], order: Sequence[Node] | None = None) -> Order:
    """Take children with weights as layers, in the order of registration or in the one given."""
    node = backbone
    while order is None:
        weighted = [c for c in node.children if any(path not in new for path, _, _ in c.all_parameters())]
        if len(weighted) != 1 or any(path not in new for path, _, _ in node.parameters):
            order = [child for child in weighted if not _is_norm_like(child)] or weighted
            break
        node = weighted[0]
    blocks = [
        Block(base.relative(child.path) if child.path.startswith(base.path) else child.path, (child,))
        for child in order
    ]
    if not blocks:
        blocks = [Block(backbone.last or "backbone", (backbone,))]
    groups = by_blocks(backbone, blocks, new)
    return Order(groups, [(name, list(paths)) for name, paths in groups])


def _is_norm_like(node: Node) -> bool:
    return is_norm(node.module)
