"""Maps of intermediate layers of a backbone: which layers a method on patches should read, and their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.errors import BackboneError, closest, listing

__all__ = ["gradient_maps", "mid_level_layers", "read_maps"]


def mid_level_layers(backbone: nn.Module, input_size: Sequence[int]) -> tuple[str, str]:
    """Return the names of two layers of middle depth, found by one forward of zeros.

    Deep layers know the classes of the pretraining, early ones only edges; defects show in between (Roth et al. 2022,
    arXiv 2106.08265, section 3.1). Where a network lowers its resolution by stages, these are the ends of the two
    stages before the coarsest: ``layer2`` and ``layer3`` of a ResNet, as in the paper. A stack of transformer blocks
    keeps one resolution: there they are the blocks at a half and at three quarters of the depth.

    Args:
        backbone: Maps images to pooled features; its modes and weights stay as they are.
        input_size: ``(channels, height, width)`` of the images; a square shows best which axes are the picture's.

    Raises:
        BackboneError: If the network has no two such layers; name them yourself then.

    Example:
        >>> from lightning_transfer.backbones import load_backbone
        >>> mid_level_layers(load_backbone("torchvision/resnet18", weights="random")[0], (3, 64, 64))
        ('layer2', 'layer3')
    """
    parameter = next(backbone.parameters())
    zeros = torch.zeros(1, *input_size, dtype=parameter.dtype, device=parameter.device)
    names = [name for name, _ in backbone.named_modules() if name]
    modes = {part: part.training for part in backbone.modules()}
    try:
        with torch.no_grad(), _recorded(backbone, names) as found:
            backbone.eval()(zeros)
    finally:
        for part, training in modes.items():
            part.training = training
    grids = {name: grid for name, output in found.items() if (grid := _grid(output, (input_size[1], input_size[2])))}
    stages = _stages(backbone, grids)
    last_of = {grids[name]: name for name in stages}  # later ones win
    ordered = [name for _, name in sorted(last_of.items(), reverse=True)]
    if len(ordered) >= 3:
        return ordered[-3], ordered[-2]
    if len(ordered) == 2:
        return ordered[0], ordered[1]
    blocks = _blocks(backbone, grids)
    if len(blocks) >= 3:
        return blocks[math.ceil(len(blocks) / 2) - 1], blocks[math.ceil(len(blocks) * 3 / 4) - 1]
    raise BackboneError(
        f"`{type(backbone).__name__}` shows no two layers of middle depth with a map of the image. "
        f"Name them in `layers`. Modules with maps: {listing(grids, 12) or 'none'}."
    )


def read_maps(
    backbone: nn.Module, layers: Sequence[str], images: Tensor, run: Callable[[], Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Run the backbone once; return its pooled features, and the outputs of the named layers as maps.

    Args:
        backbone: Maps images to pooled features ``(N, F)``.
        layers: Dotted names inside the backbone. Outputs ``(N, C, h, w)``, ``(N, h, w, C)`` and, of square images,
            tokens ``(N, T, C)`` with any class or register tokens before those of the patches.
        images: ``(N, channels, H, W)``.
        run: Runs the backbone in another way than by calling it with the images, such as from a cache.

    Returns:
        Features ``(N, F)``, and one map ``(N, C, h, w)`` for each layer, in the order of ``layers``.

    Raises:
        BackboneError: If a layer does not exist, did not run, or its output is no map of the image.

    Example:
        >>> from lightning_transfer.backbones import load_backbone
        >>> backbone, _ = load_backbone("torchvision/resnet18", weights="random")
        >>> features, maps = read_maps(backbone, ["layer2", "layer3"], torch.zeros(2, 3, 64, 96))
        >>> features.shape, [tuple(item.shape) for item in maps]
        (torch.Size([2, 512]), [(2, 128, 8, 12), (2, 256, 4, 6)])
    """
    with _recorded(backbone, layers) as found:
        features: Tensor = backbone(images) if run is None else run()
    size = (images.shape[2], images.shape[3])
    maps = []
    for name in layers:
        item = _as_map(found[name], size) if name in found else None
        if item is None:
            what = f"an output of shape {tuple(_tensor(found[name]).shape)}" if name in found else "no output"
            raise BackboneError(
                f"The layer `{name}` gives {what}, which is no map of an image of {size[0]} x {size[1]} pixels. "
                "Name layers that keep the picture's rows and columns; tokens need square images."
            )
        maps.append(item)
    return features, maps


def gradient_maps(backbone: nn.Module, images: Tensor, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the last map of the images that a score depends on place by place, and the score's gradient there.

    Usually the output of the last stage. Where a transformer is read by its class token, the patches of the last block
    no longer matter; then it is the last layer whose patches do.

    Args:
        backbone: Maps images to pooled features ``(N, F)``; it may be frozen, and its modes stay as they are.
        images: ``(N, channels, H, W)``.
        score: Maps the features to one number for each image, ``(N,)``.

    Returns:
        Both ``(N, C, h, w)``, detached.

    Raises:
        BackboneError: If no layer keeps a map of the image that the score depends on.
    """
    size = (images.shape[2], images.shape[3])
    names = [name for name, _ in backbone.named_modules() if name]
    with torch.enable_grad(), _recorded(backbone, names) as found:
        # Through the images, so that the outputs of a frozen backbone have gradients.
        total = score(backbone(images.detach().clone().requires_grad_(True))).sum()
        grids = {name: grid for name, output in found.items() if (grid := _grid(output, size))}
        # Whole stages and blocks alone: inside an attention there are axes that only look like rows and columns.
        chosen = {*_stages(backbone, grids), *_blocks(backbone, grids)}
        for name, output in reversed(found.items()):
            kept = _tensor(output)
            if name not in chosen or not kept.requires_grad:
                continue
            [gradient] = torch.autograd.grad(total, kept, retain_graph=True, allow_unused=True)
            item, slope = _as_map(kept, size), None if gradient is None else _as_map(gradient, size)
            if item is not None and slope is not None and bool(slope.any()):
                return item.detach(), slope.detach()
    raise BackboneError(
        f"No layer of `{type(backbone).__name__}` keeps a map of an image of {size[0]} x {size[1]} pixels on which the "
        "score depends."
    )


@contextmanager
def _recorded(backbone: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect the outputs of modules by name, in the order in which they end, while the block runs."""
    modules = dict(backbone.named_modules())
    missing = [name for name in layers if name not in modules]
    if missing:
        top = [name for name in modules if name and name.count(".") <= 1]
        raise BackboneError(
            f"The backbone has no layer `{missing[0]}`.{closest(missing[0], modules)} Layers: {listing(top, 20)}."
        )
    found: dict[str, Any] = {}

    def keep(name: str, output: Any) -> None:  # noqa: ANN401 - whatever the layer returns
        found.pop(name, None)  # of a module that runs twice, the last output counts
        found[name] = output

    handles = [
        modules[name].register_forward_hook(lambda _, __, output, name=name: keep(name, output)) for name in layers
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensor(output: Any) -> Tensor:  # noqa: ANN401
    """Return the first tensor of what a layer gave; blocks of transformers return tuples."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else torch.empty(0)


def _as_map(output: Any, size: tuple[int, int]) -> Tensor | None:  # noqa: ANN401
    """Return an output as ``(N, C, h, w)``, or None if it keeps no place in the image."""
    found = _tensor(output)
    if found.ndim == 4:
        channels_last = _misfit(found.shape[1:3], size) < _misfit(found.shape[2:4], size)
        return found.permute(0, 3, 1, 2) if channels_last else found
    if found.ndim == 3 and size[0] == size[1] and found.shape[1] >= 4:
        side = math.isqrt(found.shape[1])
        # The largest square of tokens is the picture; what comes before are class and register tokens.
        patches = found[:, -side * side :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], side, side)
    return None


def _misfit(grid: Sequence[int], size: tuple[int, int]) -> float:
    """Return how far the proportions of a grid are from those of the image."""
    return abs(math.log(grid[0] / grid[1]) - math.log(size[0] / size[1]))


def _grid(output: Any, size: tuple[int, int]) -> tuple[int, int] | None:  # noqa: ANN401
    """Return height and width of a map; None of anything else, and of what was pooled to a single place."""
    item = _as_map(output, size)
    if item is None or item.shape[2] * item.shape[3] <= 1:
        return None
    return item.shape[2], item.shape[3]


def _stages(module: nn.Module, grids: dict[str, tuple[int, int]], prefix: str = "") -> list[str]:
    """Return the outermost modules that end with a map, in order; sequences of several resolutions are taken apart."""
    found: list[str] = []
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        inside = _stages(child, grids, f"{full}.") if full not in grids or isinstance(child, nn.Sequential) else []
        several = len({grids[item] for item in inside}) > 1
        found += inside if full not in grids or several else [full]
    return found


def _blocks(backbone: nn.Module, grids: dict[str, tuple[int, int]]) -> list[str]:
    """Return the longest stack of modules with maps."""
    stacks = [
        [f"{name}.{child}" for child, _ in module.named_children() if f"{name}.{child}" in grids]
        for name, module in backbone.named_modules()
        if name and isinstance(module, nn.Sequential | nn.ModuleList)
    ]
    return max(stacks, key=len, default=[])
