"""Run a module on a probe without disturbing it, and read its features."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_transfer.callbacks.forgetting_batches import input_of
from lightning_transfer.callbacks.forgetting_compare import Outputs
from lightning_transfer.callbacks.forgetting_random import isolated_rng
from lightning_transfer.depth import resolve_depth
from lightning_transfer.depth.tree import build_tree
from lightning_transfer.errors import closest, listing

__all__ = [
    "FeatureReader",
    "call_with",
    "find_reader",
    "read_outputs",
    "undisturbed",
]


@dataclass(frozen=True)
class FeatureReader:
    """Where features and source scores come from. It holds names, because modules may be wrapped while training.

    Attributes:
        backbone: Dotted name inside the LightningModule; None if ``feature_fn`` does it all.
        inner_heads: Dotted names of the modules of the new head inside the backbone: features are what enters the
            first of them.
        head: The source head, by dotted name or as a module of the user's.
        feature_fn: The user's own way to the features.
    """

    backbone: str | None
    inner_heads: tuple[str, ...] = ()
    head: str | nn.Module | None = None
    feature_fn: Callable[[Any, Any], Any] | None = None

    def head_module(self, module: nn.Module) -> nn.Module | None:
        """Return the source head as it is now."""
        return _submodule(module, self.head, "head") if isinstance(self.head, str) else self.head

    def __call__(self, module: LightningModule, batch: Any) -> Outputs:  # noqa: ANN401 - any batch
        """Return features and scores of one batch, on the CPU, in at least float32."""
        if self.feature_fn is not None:
            features = _pooled(self.feature_fn(module, batch), None)
        else:
            inputs = input_of(batch)
            features = _pooled(self._backbone_output(module, inputs), inputs)
        head, logits = self.head_module(module), None
        if head is not None:
            weight = next(head.parameters(), features)
            # The source head may be no part of the module; it stays where it is, and the features come to it.
            entering = features.to(weight.device) if isinstance(self.head, nn.Module) else features
            if isinstance(self.head, nn.Module) and not torch.is_autocast_enabled(weight.device.type):
                entering = entering.to(weight.dtype)
            logits = _on_cpu(head(entering))
        return Outputs(_on_cpu(features), logits)

    def _backbone_output(self, module: nn.Module, inputs: Any) -> Any:  # noqa: ANN401
        """Run the backbone; where the new head lies inside it, return what entered the head."""
        backbone = _submodule(module, self.backbone or "", "backbone")
        captured: list[Any] = []

        def capture(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured.append(args[0] if args else next(iter(kwargs.values())))

        with ExitStack() as stack:
            for name in self.inner_heads:
                handle = _submodule(module, name, "head").register_forward_pre_hook(capture, with_kwargs=True)
                stack.callback(handle.remove)
            output = call_with(backbone, inputs)
        if self.inner_heads and not captured:
            raise MisconfigurationException(
                f"`{self.backbone or type(module).__name__}` did not call its head `{listing(self.inner_heads)}`, so "
                "the features before it are unknown. Pass `feature_fn=(module, batch) -> features`."
            )
        return captured[0] if captured else output


def find_reader(
    module: LightningModule,
    backbone: str | Sequence[str] | None,
    head: str | nn.Module | None,
    feature_fn: Callable[[Any, Any], Any] | None,
    downstream_head: str | Sequence[str] | None = None,
) -> FeatureReader:
    """Find where the features of a module come from.

    Raises:
        MisconfigurationException: If a name is no submodule, or several backbones were found.
    """
    if isinstance(head, str):
        _submodule(module, head, "head")
    if feature_fn is not None:
        return FeatureReader(None, (), head, feature_fn)
    if isinstance(backbone, str):
        _submodule(module, backbone, "backbone")
    try:
        depth = resolve_depth(module, backbone=backbone, head=downstream_head)
    except ValueError as error:
        if isinstance(backbone, str) and downstream_head is None:
            return FeatureReader(backbone, (), head, None)  # Nothing says that a head is inside: its output counts.
        raise MisconfigurationException(
            f"ForgettingMonitor did not find where the features are: {error} Here `head` is the source task's: pass "
            "`downstream_head=NAME` of what is new, `backbone=NAME` of what returns features, or "
            "`feature_fn=(module, batch) -> features`."
        ) from error
    if len(depth.backbones) != 1:
        raise MisconfigurationException(
            f"Found {len(depth.backbones)} backbones ({listing(depth.backbones)}); ForgettingMonitor watches one. Pass "
            "`backbone=NAME`, or `feature_fn=(module, batch) -> features`."
        )
    name = depth.backbones[0]
    # Modules that hold new parameters and nothing of the backbone: a wrapper around both is no head.
    kept = [item for layer in depth.groups for item in layer.parameters]
    # PEFT's prompt encoder is new, too, but it stands before the backbone.
    beside = {node.name for node in build_tree(module).walk() if node.outside}
    heads = tuple(
        item
        for item in depth.head.modules
        if item != name
        and item not in beside
        and item.startswith(f"{name}." if name else "")
        and any(parameter.startswith(f"{item}.") for parameter in depth.head.parameters)
        and not any(parameter.startswith(f"{item}.") for parameter in kept)
    )
    return FeatureReader(name, heads, head, None)


@contextmanager
def undisturbed(module: nn.Module, *others: nn.Module | None) -> Iterator[None]:
    """Put modules into eval mode without gradients; on exit everything is bitwise as it was.

    Flags are set one by one, because ``train()`` may be overridden to merge adapters or to hold frozen layers.
    Gradients are off by ``no_grad``, not ``inference_mode``: a table that a model builds and keeps in its first
    forward would be an inference tensor, and the next training step could not save it for backward. Compiled code runs
    eagerly, so that nothing is compiled again for eval mode.
    """
    modules = {id(item): item for root in (module, *others) if root is not None for item in root.modules()}
    modes = [(item, item.training) for item in modules.values()]
    buffers = [
        (item, name, value, value.detach().clone())
        for item in modules.values()
        for name, value in item._buffers.items()
        if value is not None
    ]
    eager = torch.compiler.set_stance("force_eager") if _is_compiling() else nullcontext()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    with isolated_rng(), torch.no_grad(), eager:
        try:
            # The fastest algorithm may change from one check to the next, and with it the last digits.
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
            for item, _ in modes:
                item.training = False
            yield
        finally:
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
            for item, training in modes:
                item.training = training
            for item, name, value, content in buffers:
                item._buffers[name] = value
                if not torch.equal(value, content):
                    value.copy_(content)


def read_outputs(reader: FeatureReader, module: LightningModule, trainer: Trainer, batches: Iterable[Any]) -> Outputs:
    """Run batches through the module in the trainer's precision, as a validation step would.

    ``on_before_batch_transfer`` and ``on_after_batch_transfer`` are not called, since they often augment at random.
    """
    precision = trainer.precision_plugin
    features, logits = [], []
    for batch in batches:
        moved = module.transfer_batch_to_device(precision.convert_input(batch), module.device, 0)
        with precision.forward_context():
            outputs = reader(module, moved)
        if outputs.features is not None:
            features.append(outputs.features)
        if outputs.logits is not None:
            logits.append(outputs.logits)
    return Outputs(torch.cat(features), torch.cat(logits) if logits else None)


def _submodule(module: nn.Module, name: str, argument: str) -> nn.Module:
    """Return a submodule by its dotted name, or say which names there are."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        known = [item for item, _ in module.named_modules() if item]
        raise MisconfigurationException(
            f"No submodule `{name}` in {type(module).__name__} for `{argument}`.{closest(name, known)} "
            f"There are: {listing(item for item in known if '.' not in item)}."
        ) from None


def call_with(backbone: nn.Module, inputs: Any) -> Any:  # noqa: ANN401 - what a network takes and returns
    """Pass the input as the backbone takes it: a dict by keyword where ``forward`` names its keys."""
    if not isinstance(inputs, Mapping):
        return backbone(inputs)
    # A plain PeftModel takes anything and hands it on.
    base = getattr(backbone, "get_base_model", lambda: backbone)()
    parameters = inspect.signature(base.forward).parameters
    named = {key: value for key, value in inputs.items() if key in parameters}
    if named:
        return backbone(**named)
    if any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values()) and len(parameters) == 1:
        return backbone(**inputs)
    return backbone(next(iter(inputs.values())) if len(inputs) == 1 else inputs)


def _pooled(output: Any, inputs: Any) -> Tensor:  # noqa: ANN401
    """Return features of shape ``(N, F)``: maps are averaged over space, tokens and frames without padding."""
    if getattr(output, "_fields", ()) == ("features", "lengths"):
        # Our own `Frames`; importing its home would import transformers.
        features: Tensor = output.features
        lengths: Tensor = output.lengths
        real = torch.arange(features.shape[1], device=lengths.device) < lengths[:, None]
        total = features.masked_fill(~real[:, :, None], 0.0).sum(1)
        return total / lengths.clamp_min(1)[:, None].to(total.dtype)
    if not isinstance(output, Tensor):
        if getattr(output, "last_hidden_state", None) is not None:
            output = output.last_hidden_state
        elif isinstance(output, Mapping):
            output = output.get("last_hidden_state", next(iter(output.values())))
        elif isinstance(output, tuple | list) and output:
            output = output[0]
    if not isinstance(output, Tensor):
        raise MisconfigurationException(
            f"Features must be a tensor, got {type(output).__name__}. Pass `feature_fn=(module, batch) -> features`."
        )
    if output.ndim == 3:
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        if isinstance(mask, Tensor) and mask.shape == output.shape[:2]:
            weights = mask.to(output.dtype)[..., None]
            return (output * weights).sum(1) / weights.sum(1).clamp_min(1)
        return output.mean(1)
    return output.unsqueeze(1) if output.ndim == 1 else output.flatten(2).mean(2) if output.ndim > 2 else output


def _on_cpu(value: Tensor) -> Tensor:
    """Move to the CPU; half precision becomes float32, which holds it exactly."""
    dtype = value.dtype if value.dtype == torch.float64 else torch.float32
    return value.detach().to(device="cpu", dtype=dtype)


def _is_compiling() -> bool:
    """Tell whether something was compiled; asking for the stance would import the compiler."""
    return "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
