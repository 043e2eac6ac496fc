"""The answer to "which layer is how deep?", as plain data."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import nn
from torch.nn import Parameter

__all__ = ["DepthMap", "Index", "Layer", "plain_name"]


def plain_name(name: str) -> str:
    """Drop what ``torch.compile`` adds to a dotted name, so that names from before and after it agree.

    Example:
        >>> plain_name("model._orig_mod.layer1.0.weight")
        'model.layer1.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


@dataclass(frozen=True)
class Layer:
    """One group of parameters and modules, coarse or fine.

    Attributes:
        name: Readable and unique within its map: ``stem``, ``layer1``, ``blocks.3``, ``head``.
        depth: 0 is the layer nearest to the input; the head is one deeper than the last layer.
        parameters: Dotted names inside the root, as ``root.named_parameters()`` gives them.
        modules: Dotted names of the modules whose train or eval mode belongs to this layer.
    """

    name: str
    depth: int
    parameters: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class DepthMap:
    """All layers of a module, in two resolutions, each parameter and module exactly once in each.

    Attributes:
        groups: Coarse, stem to top, without the head. Freezing uses these.
        layers: Fine, stem to top, without the head. Learning rates use these.
        head: New parameters and all that lies outside the backbones; its ``depth`` is ``len(groups)``.
        backbones: Dotted names of the backbones inside the root; an empty name is the root itself.
        evidence: What decided the order, such as ``timm group_matcher``.
        warnings: What the user should know about how the order was found.
    """

    groups: tuple[Layer, ...]
    layers: tuple[Layer, ...]
    head: Layer
    backbones: tuple[str, ...]
    evidence: str
    warnings: tuple[str, ...] = ()

    def named_parameters(self, root: nn.Module, layer: Layer) -> list[tuple[str, Parameter]]:
        """Return the parameters that a layer's names stand for in the root as it is now.

        Args:
            root: The module that the map was made from, or a copy; it may have been compiled since.
            layer: One of ``groups`` or ``layers``, or ``head``.

        Raises:
            KeyError: If the root has no parameter of such a name.
        """
        return Index(root).named_parameters(layer)

    def named_modules(self, root: nn.Module, layer: Layer) -> list[tuple[str, nn.Module]]:
        """Return the modules whose mode belongs to a layer; wrappers added since are among them."""
        return Index(root).named_modules(layer)


class Index:
    """The parameters and modules that a root holds now, by plain name; made once for many layers.

    Args:
        root: The module that a map was made from, or a copy; it may have been compiled since.
    """

    def __init__(self, root: nn.Module) -> None:
        self._parameters = {
            plain_name(name): (name, value) for name, value in root.named_parameters(remove_duplicate=False)
        }
        self._modules: dict[str, list[tuple[str, nn.Module]]] = defaultdict(list)
        for name, module in root.named_modules():
            self._modules[plain_name(name)].append((name, module))

    def named_parameters(self, layer: Layer) -> list[tuple[str, Parameter]]:
        """Return the parameters of a layer, in its order; as `DepthMap.named_parameters`."""
        try:
            return [self._parameters[plain_name(name)] for name in layer.parameters]
        except KeyError as error:
            raise KeyError(
                f"Layer `{layer.name}` holds the parameter {error}, which the module no longer has. Resolve the depth "
                "anew."
            ) from None

    def named_modules(self, layer: Layer) -> list[tuple[str, nn.Module]]:
        """Return the modules of a layer; as `DepthMap.named_modules`."""
        names = dict.fromkeys(plain_name(name) for name in layer.modules)
        return [found for name in names for found in self._modules.get(name, ())]
