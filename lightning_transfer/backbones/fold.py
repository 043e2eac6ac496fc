"""BatchNorm of a frozen network folded into the convolutions before it: the same function, with fewer operations."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lightning_transfer.backbones.find_cut import evaluating

__all__ = ["folded_copy"]


def folded_copy(
    backbone: nn.Module,
    input: Any,  # noqa: ANN401 - as the backbone takes it
    keep: Collection[str] = (),
) -> tuple[nn.Module, int]:
    """Return a copy in eval mode, with each BatchNorm folded into the convolution that it follows; and how many are.

    Which one follows which is seen in a forward, not read off names: folded is a norm whose input is a convolution's
    output itself. Numbers differ by rounding: outputs of a network in float32 by about 1e-5 of their size. Norms that
    begin with another layer, or whose convolution is used twice, stay as they are.

    Args:
        backbone: Stays as it is. Its norms must hold running statistics.
        input: Of a few items.
        keep: Names of layers whose own outputs are wanted; such a convolution stays as it is.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
        >>> folded, count = folded_copy(net, torch.zeros(1, 3, 8, 8))
        >>> count, type(folded[1]).__name__
        (1, 'Identity')
    """
    pairs = _pairs(backbone, input)
    copied = copy.deepcopy(backbone)
    for part in copied.modules():
        # Not by `eval()`: copies of modules that are held in a mode would remember it.
        part.training = False
    modules = dict(copied.named_modules())
    pairs = [(conv, norm) for conv, norm in pairs if conv not in keep]
    for conv, norm in pairs:
        _put(copied, conv, fuse_conv_bn_eval(modules[conv], modules[norm]))
        _put(copied, norm, _rest_of(modules[norm]))
    return copied, len(pairs)


def _pairs(backbone: nn.Module, input: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    """Return the names of convolutions, each with that of the norm which takes its output as it is."""
    made: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no identity is used twice
    found: list[tuple[str, str]] = []
    runs: Counter[str] = Counter()
    handles = []

    def note_conv(name: str, output: Tensor) -> None:
        runs[name] += 1
        kept.append(output)
        made[id(output)] = name

    def note_norm(name: str, args: tuple[Any, ...]) -> None:
        runs[name] += 1
        if args and id(args[0]) in made:
            found.append((made[id(args[0])], name))

    for name, module in backbone.named_modules():
        if isinstance(module, _ConvNd) and not module.transposed:
            handles.append(module.register_forward_hook(lambda _, __, output, name=name: note_conv(name, output)))
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(lambda _, args, name=name: note_norm(name, args)))
    try:
        with evaluating(backbone):
            backbone(input)
    finally:
        for handle in handles:
            handle.remove()
    return [(conv, norm) for conv, norm in found if runs[conv] == 1 and runs[norm] == 1]


def _rest_of(norm: nn.Module) -> nn.Module:
    """Return what a norm does besides: timm's own end with a dropout and an activation."""
    layers = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*layers) if layers else nn.Identity()


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(root.get_submodule(parent), last, module.eval())
