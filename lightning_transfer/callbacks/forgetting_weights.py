"""The backbone's weights between pretrained and fine-tuned: which they are, blending them, and BatchNorm between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_transfer.callbacks.forgetting_batches import count_inputs, input_of
from lightning_transfer.callbacks.forgetting_reading import call_with, undisturbed
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.depth import resolve_depth
from lightning_transfer.depth.layers import DepthMap, plain_name
from lightning_transfer.types import BackboneCard

__all__ = [
    "backbone_tensors",
    "blend",
    "count_batches",
    "find_backbone",
    "has_pretrained_head",
    "recompute_batchnorm",
    "run_module",
    "set_batchnorm",
    "statistics",
]


def find_backbone(
    module: nn.Module, backbone: str | Sequence[str] | None, downstream_head: str | Sequence[str] | None
) -> DepthMap:
    """Find what of a module is pretrained.

    Raises:
        MisconfigurationException: If nothing says what is new: a new head must not be drawn towards its random start.
    """
    try:
        return resolve_depth(module, backbone=backbone, head=downstream_head)
    except ValueError as error:
        text = str(error).replace("`head=`", "`downstream_head=`")
        raise MisconfigurationException(f"on_alarm='interpolate' must know what is pretrained: {text}") from error


def backbone_tensors(module: nn.Module, depth_map: DepthMap) -> dict[str, Tensor]:
    """Return the pretrained parameters and buffers themselves, by plain name: the backbone's.

    The head's are among them only where the module says that its head is pretrained too, by a true
    ``head_is_pretrained``: a recogniser that keeps its alphabet.

    Example:
        >>> backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        >>> net = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(2, 1)})
        >>> [name for name in backbone_tensors(net, resolve_depth(net)) if "1" in name]
        ['backbone.1.weight', 'backbone.1.bias', 'backbone.1.running_mean', 'backbone.1.running_var',
        'backbone.1.num_batches_tracked']
    """
    found: dict[str, Tensor] = {}
    groups = (*depth_map.groups, depth_map.head) if has_pretrained_head(module) else depth_map.groups
    for group in groups:
        for name, parameter in depth_map.named_parameters(module, group):
            found[plain_name(name)] = parameter.detach()
    for group in groups:
        for name, part in depth_map.named_modules(module, group):
            for key, buffer in part._buffers.items():
                if buffer is not None:
                    found[plain_name(f"{name}.{key}")] = buffer
    return found


def has_pretrained_head(module: nn.Module) -> bool:
    """Tell whether the module says that its head is no new one, and has no token that its checkpoint does not know.

    A new token's row begins at random, and must not be drawn back there.
    """
    if getattr(module, "head_is_pretrained", False) is not True:
        return False
    tokens = getattr(getattr(module, "vocabulary", None), "tokens", None)
    card = getattr(module, "card", None)
    known = CTCVocabulary.from_card(card) if tokens is not None and isinstance(card, BackboneCard) else None
    return known is None or set(tokens or ()) <= set(known.tokens)


def blend(pretrained: Tensor, fine_tuned: Tensor, alpha: float) -> Tensor:
    """Return ``(1 - alpha) * pretrained + alpha * fine_tuned``, and what did not change bitwise as it is.

    Integers, such as counts and indices, are the fine-tuned model's.

    Example:
        >>> blend(torch.tensor([1.0, float("inf")]), torch.tensor([3.0, float("inf")]), 0.25).tolist()
        [1.5, inf]
    """
    if not fine_tuned.is_floating_point() or pretrained.shape != fine_tuned.shape:
        return fine_tuned
    wide = torch.promote_types(fine_tuned.dtype, torch.float32)
    first, second = pretrained.to(wide), fine_tuned.to(wide)
    return torch.where(first == second, second, first.lerp(second, alpha)).to(fine_tuned.dtype)


def count_batches(module: nn.Module) -> dict[str, int]:
    """Return how many batches each BatchNorm with statistics has seen in training mode, by plain name."""
    return {name: int(part.num_batches_tracked) for name, part in _batchnorms(module).items()}  # type: ignore[arg-type]


def run_module(trainer: Trainer, module: LightningModule, depth_map: DepthMap, batch: Any) -> None:  # noqa: ANN401
    """Run a batch through the whole module, head included; without a ``forward`` of its own, through the backbones.

    Args:
        trainer: Gives the precision.
        module: Of the fit.
        depth_map: Of the module.
        batch: As the loader gives it.
    """
    precision = trainer.precision_plugin
    moved = module.transfer_batch_to_device(precision.convert_input(batch), module.device, 0)
    # Lightning's own `forward` only raises. Its two packages have different classes.
    whole = not type(module).forward.__module__.endswith("core.module")
    with precision.forward_context():
        for part in [module] if whole else [module.get_submodule(name) for name in depth_map.backbones]:
            call_with(part, input_of(moved))


def recompute_batchnorm(
    module: nn.Module, before: Mapping[str, int], run: Callable[[Any], None], batches: Iterable[Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute the statistics of BatchNorm for the weights as they are: the average over some batches of training data.

    Only where BatchNorm has trained: what was frozen, folded or in eval mode all along keeps its statistics. The
    module is left as it was; all BatchNorms are computed in one pass, as in ``torch.optim.swa_utils.update_bn``.

    Args:
        module: In any mode.
        before: What `count_batches` said before training.
        run: Runs a batch through the module.
        batches: Of training data; one shorter than the first is left out, since each counts the same.

    Returns:
        Plain name of a BatchNorm -> its mean and variance ``(C,)``; one that no batch reached is not among them.
    """
    trained = {
        name: part
        for name, part in _batchnorms(module).items()
        if int(part.num_batches_tracked) != before.get(name, 0)  # type: ignore[arg-type]
    }
    if not trained:
        return {}
    momenta = {name: part.momentum for name, part in trained.items()}
    size, found = None, {}
    with undisturbed(module):
        try:
            for part in trained.values():
                part.reset_running_stats()
                part.momentum = None  # a plain average
                part.training = True
            for batch in batches:
                count = count_inputs(input_of(batch))
                size = count if size is None else size
                if count == size:
                    run(batch)
            for name, part in trained.items():
                if int(part.num_batches_tracked) > 0:  # type: ignore[arg-type]
                    found[name] = _copy(part)
        finally:
            for name, part in trained.items():
                part.momentum = momenta[name]
    return found


def statistics(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Return a copy of each BatchNorm's mean and variance ``(C,)``, by plain name."""
    return {name: _copy(part) for name, part in _batchnorms(module).items()}


def set_batchnorm(module: nn.Module, found: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Put computed statistics in place."""
    parts = _batchnorms(module)
    for name, values in found.items():
        for buffer, value in zip(_statistics(parts[name]), values, strict=True):
            buffer.copy_(value)


def _statistics(part: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the buffers themselves; `_batchnorms` yields none without."""
    return part.running_mean, part.running_var  # type: ignore[return-value]


def _copy(part: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Copy to the CPU, where other processes can take it up whatever their device is."""
    mean, variance = _statistics(part)
    return mean.detach().cpu().clone(), variance.detach().cpu().clone()


def _batchnorms(module: nn.Module) -> dict[str, _BatchNorm]:
    return {
        plain_name(name): part
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.num_batches_tracked is not None
    }
