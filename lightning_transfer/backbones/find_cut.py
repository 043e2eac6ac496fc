"""Find the place where a backbone can be cut, and prove that the rest needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.cut import WHOLE, Cut, Form
from lightning_transfer.errors import BackboneError, closest, listing
from lightning_transfer.types import Activations

__all__ = ["activations_of", "evaluating", "find_cut"]

_TRIES = 24
"""Layers that are tried as a cut, the latest first. The inside of a residual block never serves."""
_CLOSE = 1e-4
"""Largest difference between the network and its two halves, as a share of the largest number."""


@dataclass(frozen=True)
class _Call:
    """One run of a module: when it began and ended, counted in such events, and what it gave."""

    name: str
    start: int
    end: int
    output: Any


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part into eval mode while the block runs, without a word to what holds modes, and no gradients."""
    modes = {part: part.training for part in module.modules()}
    try:
        for part in modes:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def find_cut(
    backbone: nn.Module,
    input: Any,  # noqa: ANN401 - tensor or dict of tensors
    trains: Collection[int],
    *,
    rows: int,
    reads: Sequence[str] = (),
) -> Cut:
    """Return the latest place at which a backbone can be cut, before the first layer that trains.

    One forward notes which modules run when. Of those that end before any training parameter is used, the latest is
    tried first: everything before it is replaced by NaN, and the rest must give what the whole network gave.

    Nobody's tool has both halves: timm's ``forward_intermediates`` and torchvision's feature extractors give the first
    alone, and `torch.fx` traces neither transformers' models nor what depends on a mask.

    Args:
        backbone: Modes, weights, gradients and random states stay as they are.
        input: Of a few items, as the backbone takes it.
        trains: Identities of the parameters that train, or will, while the cut is in use.
        rows: Items in the input.
        reads: Names of layers whose outputs somebody outside the backbone reads, as a decoder of masks does.

    Raises:
        BackboneError: If there is no such place; says which layers were tried.

    Example:
        >>> from lightning_transfer.backbones import load_backbone
        >>> backbone, _ = load_backbone("torchvision/resnet18", weights="random")
        >>> images = torch.randn(2, 3, 64, 64)
        >>> find_cut(backbone, images, {id(value) for value in backbone.layer4.parameters()}, rows=2).layers
        ('layer3',)
        >>> find_cut(backbone, images, set(), rows=2).is_whole
        True
    """
    modules = dict(backbone.named_modules())
    missing = [name for name in reads if name not in modules]
    if missing:
        raise BackboneError(f"The backbone has no layer `{missing[0]}`.{closest(missing[0], modules)}")
    with evaluating(backbone):
        calls = _record(backbone, input)
        whole = calls[-1].output
        first_use = _first_use(backbone, calls, trains)
        counts = Counter(call.name for call in calls)
        candidates = [
            call
            for call in sorted(calls, key=lambda call: -call.end)
            if call.end < first_use
            and counts[call.name] == 1
            and _has_rows(call.output, rows)
            and not any(_is_inside(name, call.name) for name in reads)
        ]
        weighted = {name for name, module in modules.items() if any(True for _ in module.parameters())}
        tried = []
        for candidate in candidates[:_TRIES]:
            cut = _cut_at(candidate, calls, reads, input, weighted, rows)
            tried.append(candidate.name)
            if cut is not None and _holds(cut, backbone, input, whole) and not _learns(cut, backbone, input, trains):
                return cut
    if not candidates:
        raise BackboneError(
            f"`{type(backbone).__name__}` has no layer that ends before the first one that trains, so nothing of it "
            "can be kept."
        )
    raise BackboneError(
        f"`{type(backbone).__name__}` cannot be cut before the layers that train: what comes after "
        f"{listing((f'`{name or type(backbone).__name__}`' for name in tried), 4)} reads more than its output."
    )


def activations_of(
    cut: Cut,
    layers: Sequence[Tensor],
    input: Any,  # noqa: ANN401 - tensor or dict of tensors
    also: Mapping[str, Tensor] | None = None,
) -> Activations:
    """Return what is kept of a batch: the layers' outputs, and what of its input somebody still reads.

    Args:
        cut: Of the backbone.
        layers: As `Cut.prefix` gave them.
        input: Of the batch.
        also: Parts of the input that the module around the backbone reads.
    """
    parts: Mapping[str, Tensor] = {"": input} if isinstance(input, Tensor) else input
    given: dict[str, Tensor] = {}
    sizes: dict[str, Tensor] = {}
    if not cut.is_whole:
        for name, part in parts.items():
            # Ids and masks are small, and code between the layers looks at them; pixels and waves are neither.
            if cut.reads_input and not part.is_floating_point():
                given[name] = part
            else:
                sizes[name] = torch.tensor([part.shape[1:]] * len(part))
    given |= also or {}
    return Activations(tuple(layers), given, {name: item for name, item in sizes.items() if name not in given})


def _record(backbone: nn.Module, input: Any) -> list[_Call]:  # noqa: ANN401
    """Run the backbone, and return the calls of its modules in the order in which they end; it is the last itself."""
    calls: list[_Call] = []
    begun: list[int] = []
    clock = iter(range(1 << 62))

    def leave(name: str) -> Callable[..., None]:
        return lambda _module, _args, output: calls.append(_Call(name, begun.pop(), next(clock), output))

    handles = []
    for name, module in backbone.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _module, _args: begun.append(next(clock))))
        handles.append(module.register_forward_hook(leave(name)))
    try:
        backbone(input)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _first_use(backbone: nn.Module, calls: Sequence[_Call], trains: Collection[int]) -> float:
    """Return when a training parameter is first used: when a module begins that holds it, but calls none that does."""
    modules = dict(backbone.named_modules())
    called = {call.name for call in calls}
    users: set[str] = set()
    for name, value in backbone.named_parameters(remove_duplicate=False):
        if id(value) not in trains:
            continue
        # An attention may use the weights of a layer that it never calls.
        owner = name.rpartition(".")[0]
        while owner not in called and owner:
            owner = owner.rpartition(".")[0]
        users.add(owner)
    assert users <= set(modules)  # noqa: S101
    return min((call.start for call in calls if call.name in users), default=float("inf"))


def _has_rows(output: Any, rows: int) -> bool:  # noqa: ANN401
    tensors = Form.split(output)
    return bool(tensors) and all(tensor.ndim and len(tensor) == rows for tensor in tensors)


def _is_inside(name: str, outer: str) -> bool:
    return name != outer and (outer == WHOLE or name.startswith(f"{outer}."))


def _cut_at(
    candidate: _Call,
    calls: Sequence[_Call],
    reads: Sequence[str],
    input: Any,  # noqa: ANN401 - tensor or dict of tensors
    weighted: Collection[str],
    rows: int,
) -> Cut | None:
    """Return the cut behind one call; None where a layer that is read runs both before and after it."""
    before = {call.name: call for call in calls if call.end <= candidate.end}
    after = {call.name for call in calls if call.end > candidate.end}
    kept = [call for name, call in before.items() if name in reads and name != candidate.name] + [candidate]
    if any(call.name in after for call in kept):
        return None
    names = [call.name for call in kept]
    # What also runs later, such as an activation that is shared, is left as it is; so is what holds a kept layer.
    done = [
        name
        for name in before
        if name not in after and name not in names and not any(_is_inside(kept_name, name) for kept_name in names)
    ]
    outermost = [
        name for name in done if not any(_is_inside(name, other) for other in (*done, *names) if other != name)
    ]
    steps = None

    def skips(call: _Call) -> bool:
        # Of networks for sequences, tables of positions run again: they cost little, and every layer may read them.
        return isinstance(input, Tensor) or (call.name in weighted and _has_rows(call.output, rows))

    if not isinstance(input, Tensor):
        first = Form.split(candidate.output)[0]
        steps = first.shape[1] if first.ndim > 2 else None
    return Cut(
        layers=tuple(names),
        forms=tuple(Form.of(call.output) for call in kept),
        skipped={name: Form.of(before[name].output) for name in outermost if skips(before[name])},
        # The root's mode rules code between the layers, such as a dropout that is a function.
        ran=tuple({*before, *(name for name in after if any(_is_inside(item, name) for item in before))}),
        reads_input=candidate.name != WHOLE and not isinstance(input, Tensor),
        steps=steps,
    )


def _holds(cut: Cut, backbone: nn.Module, input: Any, whole: Any) -> bool:  # noqa: ANN401
    """Tell whether the second half, given the first one's outputs and NaN else, gives what the network gave."""
    kept = activations_of(cut, cut.prefix(backbone, input), input)
    try:
        again = cut.suffix(backbone, kept)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # code between the layers does not take what stands in
    ours, theirs = Form.split(again), Form.split(whole)
    return len(ours) == len(theirs) and all(map(_alike, ours, theirs))


def _learns(cut: Cut, backbone: nn.Module, input: Any, trains: Collection[int]) -> bool:  # noqa: ANN401
    """Tell whether a parameter that trains has a say in the first half: its gradient from there would be lost."""
    flags = {value: value.requires_grad for value in backbone.parameters()}
    try:
        for value in flags:
            value.requires_grad_(id(value) in trains and value.is_floating_point())
        with torch.enable_grad():
            return any(tensor.requires_grad for tensor in cut.prefix(backbone, input))
    finally:
        for value, flag in flags.items():
            value.requires_grad_(flag)


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    if not theirs.is_floating_point():
        return torch.equal(ours, theirs)
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    return torch.allclose(ours, theirs, rtol=0.0, atol=_CLOSE * max(scale, 1e-6), equal_nan=False)
