"""Freeze and open layers so that frozen means frozen, and so that all of it can be taken back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_transfer.depth.layers import DepthMap, Index, Layer, plain_name

__all__ = ["Freezer", "is_norm"]

_NORM_NAME = re.compile(r".*Norm(Act)?(\d+d)?$")


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a normalisation layer, of torch or of a library of its own kind.

    Example:
        >>> is_norm(nn.BatchNorm2d(3)), is_norm(nn.LayerNorm(3)), is_norm(nn.Linear(3, 3))
        (True, True, False)
    """
    if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm):
        return True
    if not _NORM_NAME.match(type(module).__name__):
        return False
    return all(next(child.parameters(), None) is None for child in module.children())


class _EvalHold:
    """Stands in for ``module.train`` on one instance: children still hear the call, the module stays in eval mode.

    It is an attribute of the instance, so it travels with ``deepcopy`` and ``pickle`` and is bound to the copy there.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.wanted: bool = module.training
        self.shadowed: Callable[..., object] | None = module.__dict__.get("train")
        module.__dict__["train"] = self
        module.training = False

    def __call__(self, mode: bool = True) -> nn.Module:
        if self.shadowed is not None:
            self.shadowed(mode)
        else:
            type(self.module).train(self.module, mode)
        self.wanted = self.module.training
        self.module.training = False
        return self.module

    def release(self) -> None:
        """Take the hold away and give the module the mode it would have had."""
        if self.shadowed is None:
            del self.module.__dict__["train"]
        else:
            self.module.__dict__["train"] = self.shadowed
        self.module.training = self.wanted


def _hold_of(module: nn.Module) -> _EvalHold | None:
    hold = module.__dict__.get("train")
    return hold if isinstance(hold, _EvalHold) else None


class Freezer:
    """Freezes the lower layers of a module and opens them again.

    A frozen layer's parameters have ``requires_grad=False`` and all its modules are in eval mode, whatever calls
    ``.train()`` at whatever level: normalisation keeps its statistics, and dropout is off, also where it is a function
    that reads ``self.training``. Parameters that were frozen before are never touched. Every method may be called
    again with no further effect. The head is always open.

    Args:
        root: The module that ``depth_map`` describes.
        depth_map: From `resolve_depth`; its coarse ``groups`` are what is frozen and opened.
        train_bn: Normalisation layers of frozen groups train: their statistics move and their weights learn.
        bn_when_open: ``eval`` keeps the BatchNorm statistics of opened groups as they are; for small batches,
            and for backbones whose BatchNorm was folded into the convolutions.

    Raises:
        ValueError: If ``bn_when_open`` is neither ``train`` nor ``eval``.

    Example:
        >>> from lightning_transfer.depth import resolve_depth
        >>> net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)), nn.Linear(2, 1))
        >>> freezer = Freezer(net, resolve_depth(net, backbone="0", head="1"))
        >>> freezer.apply(1)
        >>> [name for name, value in net.named_parameters() if not value.requires_grad]
        ['0.0.weight', '0.0.bias']
        >>> freezer.restore()
        >>> all(value.requires_grad for value in net.parameters())
        True
    """

    def __init__(
        self,
        root: nn.Module,
        depth_map: DepthMap,
        *,
        train_bn: bool = False,
        bn_when_open: Literal["train", "eval"] = "train",
    ) -> None:
        if bn_when_open not in ("train", "eval"):
            raise ValueError(f"Expected `bn_when_open` to be 'train' or 'eval', got {bn_when_open!r}.")
        self.root = root
        self.depth_map = depth_map
        self.train_bn = train_bn
        self.bn_when_open = bn_when_open
        self._closed: dict[str, nn.Parameter] = {}

    def apply(self, open_groups: int | Literal["all"]) -> None:
        """Open that many groups counted from the head side, and freeze the others.

        Args:
            open_groups: 0 opens the head alone; more than there are, and ``"all"``, opens everything.

        Raises:
            ValueError: If ``open_groups`` is negative.
        """
        total = len(self.depth_map.groups)
        count = total if open_groups == "all" else min(open_groups, total)
        if count < 0:
            raise ValueError(f"Expected `open_groups` of at least 0 or 'all', got {open_groups}.")
        index = Index(self.root)
        for group in self.depth_map.groups[: total - count]:
            self._freeze(index, group)
        for group in self.depth_map.groups[total - count :]:
            self._open(index, group)

    def freeze(self, layer: Layer) -> None:
        """Freeze one layer: its parameters take no gradient, its modules stay in eval mode."""
        self._freeze(Index(self.root), layer)

    def open(self, layer: Layer) -> None:
        """Open one layer: what this object froze takes gradients again, and modules get their mode back."""
        self._open(Index(self.root), layer)

    def enforce(self) -> None:
        """Put held modules back into eval mode where code wrote ``module.training`` without calling ``train()``."""
        for module in self.root.modules():
            if _hold_of(module) is not None and module.training:
                module.training = False

    def enforce_gradients(self) -> None:
        """Close parameters again that other code opened, and drop their gradients; to be called before a step.

        PEFT's ``disable_adapter`` opens every adapter when it ends, also those that were closed before.
        """
        for value in self._closed.values():
            if value.requires_grad:
                value.requires_grad_(False)
                value.grad = None

    def restore(self) -> None:
        """Take everything back: gradients of what this object froze, modes, and the holds on them."""
        index = Index(self.root)
        for group in self.depth_map.groups:
            self._take_gradients(index, group)
            for module in _own_mode(index, group):
                hold = _hold_of(module)
                if hold is not None:
                    hold.release()
        self._closed.clear()

    def _freeze(self, index: Index, layer: Layer) -> None:
        spared: set[int] = set()
        for module in _own_mode(index, layer):
            hold = _hold_of(module)
            if self.train_bn and is_norm(module):
                spared.update(id(value) for value in module.parameters(recurse=False))
                if hold is not None:
                    hold.release()
            elif hold is None:
                _EvalHold(module)
            else:
                module.training = False
        for name, value in index.named_parameters(layer):
            if value.requires_grad and id(value) not in spared:
                value.requires_grad_(False)
                self._closed[plain_name(name)] = value

    def _open(self, index: Index, layer: Layer) -> None:
        self._take_gradients(index, layer)
        for module in _own_mode(index, layer):
            hold = _hold_of(module)
            if self.bn_when_open == "eval" and isinstance(module, _NormBase):
                if hold is None:
                    _EvalHold(module)
                else:
                    module.training = False
            elif hold is not None:
                hold.release()

    def _take_gradients(self, index: Index, layer: Layer) -> None:
        for name, value in index.named_parameters(layer):
            if plain_name(name) in self._closed:
                value.requires_grad_(True)
                del self._closed[plain_name(name)]


def _own_mode(index: Index, layer: Layer) -> list[nn.Module]:
    """Modules that have a mode of their own: a compiled wrapper only mirrors the module in it."""
    return [module for _, module in index.named_modules(layer) if "_orig_mod" not in module._modules]
