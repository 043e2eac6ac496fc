"""Which module's train or eval mode belongs to which layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from lightning_transfer.depth.tree import Node

__all__ = ["modules_by_layer"]


def modules_by_layer(
    root: nn.Module, tree: Node, backbones: Collection[str], depth_of: Mapping[int, int], head: int
) -> list[list[str]]:
    """Give every module to one layer, also those without parameters.

    A module with parameters belongs to its lowest layer, so that a container is open only when all in it is. A
    container that holds the head follows the user's mode instead, as does the root of a LightningModule: both may
    have code that asks for ``self.training``. A module without parameters joins the layer before it, or the head
    where only the head follows: dropout before a classifier is the classifier's. Dropout at the end of a container of
    several layers may be used at its beginning too, as in T5, and belongs to the container. All modules outside the
    backbones are the head's.

    Args:
        root: The module itself.
        tree: Of the root.
        backbones: Paths of the backbones.
        depth_of: Layer by identity of the parameter.
        head: The head's depth.

    Returns:
        Dotted names for each depth from 0 to ``head``.
    """
    names = {id(module): name for name, module in root.named_modules()}
    chosen: dict[str, int] = {}

    def depths(node: Node) -> list[int]:
        return [depth_of[id(value)] for _, _, value in node.all_parameters()]

    def give(node: Node, depth: int) -> None:
        own = names.get(id(node.module))
        for name in (*node.wrappers, *(() if own is None else (own,))):
            chosen[name] = min(depth, chosen.get(name, depth))

    def joined(children: list[Node], number: int, own: int) -> int:
        """Layer that a child without parameters joins."""
        before = [found for found in map(depths, children[:number]) if found]
        after = [found for found in map(depths, children[number + 1 :]) if found]
        if after and set(after[0]) == {head}:
            return head
        if not before:
            return min(after[0]) if after else own
        if set(before[-1]) == {head}:
            return head
        if not after and "drop" in type(children[number].module).__name__.lower():
            return own
        return max(depth for depth in before[-1] if depth != head)

    def visit(node: Node, around: int, inside: bool) -> None:
        inside = inside or node.path in backbones
        below = depths(node)
        if not below:
            own = around
        else:
            own = head if head in below else min(below)
        give(node, own if inside else head)
        for number, child in enumerate(node.children):
            at = own if not below or depths(child) else joined(node.children, number, own)
            visit(child, at, inside)

    visit(tree, head, False)
    if callable(getattr(root, "training_step", None)) and callable(getattr(root, "configure_optimizers", None)):
        chosen[""] = head
    members: list[list[str]] = [[] for _ in range(head + 1)]
    for name, _ in root.named_modules():
        members[chosen.get(name, head)].append(name)
    return members
