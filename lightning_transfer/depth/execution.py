"""Read the order of layers off one forward pass that changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_transfer.depth.freezing import is_norm
from lightning_transfer.depth.tree import Node

__all__ = ["by_execution"]


def by_execution(backbone: Node, new: set[str], example_input: Any) -> tuple[list[Node], list[Node]]:  # noqa: ANN401 - what the backbone takes
    """Run the backbone once and note which of its children ran first.

    The pass is in eval mode without gradients; modes and random numbers are as before afterwards.

    Args:
        backbone: What to run.
        new: Paths of the head's parameters; modules that hold nothing else are left out.
        example_input: A tensor, a tuple of positional arguments, or a mapping of keyword arguments.

    Returns:
        Children with weights in the order of their first call, and those that were not called.
    """

    def weighted(node: Node) -> bool:
        return any(path not in new for path, _, _ in node.all_parameters())

    nodes = [child for child in backbone.children if weighted(child)]
    holder = backbone
    while len(nodes) == 1 and nodes[0].children and not holder.parameters:
        holder = nodes[0]
        inner = [child for child in holder.children if weighted(child)]
        if not inner:
            break
        nodes = inner
    ran: list[Node] = []
    seen: set[int] = set()
    handles: list[RemovableHandle] = []

    def note(node: Node) -> None:
        if id(node) not in seen:
            seen.add(id(node))
            ran.append(node)

    for node in nodes:
        # A list is never called itself: its members are listened to as well.
        for below in node.walk():
            handles.append(below.module.register_forward_pre_hook(lambda _module, _args, node=node: note(node)))
    modes = {module: module.training for module in backbone.module.modules()}
    try:
        backbone.module.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=_devices(backbone.module)):
            _call(backbone.module, example_input)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    layers = [node for node in ran if not is_norm(node.module)]
    return layers or ran, [node for node in nodes if id(node) not in seen]


def _devices(module: nn.Module) -> list[int]:
    found = {value.device for value in module.parameters() if value.device.type == "cuda"}
    return [device.index for device in found if device.index is not None]


def _call(module: nn.Module, example_input: Any) -> None:  # noqa: ANN401 - what the backbone takes
    if isinstance(example_input, Mapping):
        module(**example_input)
    elif isinstance(example_input, tuple):
        module(*example_input)
    else:
        module(example_input)
