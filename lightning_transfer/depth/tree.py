"""A module seen without its wrappers: ``torch.compile``, data parallel and PEFT add names, not depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn
from torch.nn import Parameter

__all__ = ["Node", "build_tree"]

# Class name -> the child that it wraps.
_WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}


@dataclass
class Node:
    """One module with its children and own parameters, wrappers taken off.

    Attributes:
        path: Dotted name without wrapper parts.
        name: Dotted name in the root as it is.
        module: The innermost module, the one that a wrapper wraps.
        wrappers: Dotted names of the wrappers around it.
        children: In the order of registration.
        parameters: ``(path, name, parameter)`` of its own parameters.
        outside: Lies in a wrapper beside the wrapped module, such as PEFT's prompt encoder.
    """

    path: str
    name: str
    module: nn.Module
    wrappers: list[str] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    parameters: list[tuple[str, str, Parameter]] = field(default_factory=list)
    outside: bool = False

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def all_parameters(self) -> Iterator[tuple[str, str, Parameter]]:
        """Yield ``(path, name, parameter)`` of the whole subtree in the order of registration."""
        for node in self.walk():
            yield from node.parameters

    @property
    def has_parameters(self) -> bool:
        """Whether there is any parameter in the subtree."""
        return next(self.all_parameters(), None) is not None

    @property
    def size(self) -> int:
        """Number of distinct scalar weights in the subtree."""
        return sum({id(value): _numel(value) for _, _, value in self.all_parameters()}.values())

    @property
    def last(self) -> str:
        """Last part of the path: the attribute's name."""
        return self.path.rsplit(".", 1)[-1]

    def find(self, path: str) -> Node | None:
        """Return the node at a path, or at a name with wrapper parts; None if there is none."""
        return next((node for node in self.walk() if path in (node.path, node.name, *node.wrappers)), None)

    def relative(self, path: str) -> str:
        """Return a path below this node relative to it."""
        return path[len(self.path) + 1 :] if self.path else path


def _numel(value: Parameter) -> int:
    return 0 if nn.parameter.is_lazy(value) else value.numel()


def _wrapped_child(module: nn.Module) -> str | None:
    kind = type(module)
    children = {key for key, child in module._modules.items() if child is not None}
    for base in kind.__mro__:
        wrapped = _WRAPPERS.get(base.__name__)
        if wrapped is not None and wrapped in children:
            return wrapped
    # FSDP2 puts a subclass of its own in the place of a module's class.
    if any(base.__module__.split(".")[0] == "peft" for base in kind.__mro__):
        # PeftModel.base_model is the tuner, or the model itself for prompt learning; the tuner's `model` is the model.
        if "base_model" in children:
            return "base_model"
        if "model" in children and hasattr(module, "peft_config"):
            return "model"
    return None


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def build_tree(module: nn.Module, path: str = "", name: str = "", _above: tuple[int, ...] = ()) -> Node:
    """Build the tree of a module; a module that is registered twice appears twice.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> [node.path for node in build_tree(net).walk()]
        ['', '0', '1']
    """
    wrappers: list[str] = []
    beside: list[Node] = []
    parameters: list[tuple[str, str, Parameter]] = []

    def own(holder: nn.Module, at: str) -> None:
        for key, value in holder._parameters.items():
            if value is not None:
                parameters.append((_join(path, key), _join(at, key), value))

    above = (*_above, id(module))
    while (wrapped := _wrapped_child(module)) is not None:
        wrappers.append(name)
        own(module, name)
        for key, child in module._modules.items():
            if key != wrapped and child is not None and id(child) not in above:
                node = build_tree(child, _join(path, key), _join(name, key), above)
                for below in node.walk():
                    below.outside = True
                beside.append(node)
        module, name = module.get_submodule(wrapped), _join(name, wrapped)
        above = (*above, id(module))
    own(module, name)
    children = [
        build_tree(child, _join(path, key), _join(name, key), above)
        for key, child in module._modules.items()
        if child is not None and id(child) not in above
    ]
    return Node(path, name, module, wrappers, children + beside, parameters)
