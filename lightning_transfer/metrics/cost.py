"""What training will need: memory of weights, gradients, optimizer and saved activations, before any step is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TrainingMemory", "saved_activation_bytes", "tensors_of", "trainable_memory"]


@dataclass(frozen=True)
class TrainingMemory:
    """Estimated bytes of one training process.

    Attributes:
        parameters: All parameters and buffers.
        gradients: Of the parameters that train.
        optimizer_state: Of the parameters that train.
        activations: Saved for the backward pass, for the whole batch.

    Example:
        >>> TrainingMemory(parameters=8, gradients=4, optimizer_state=8, activations=20).total
        40
    """

    parameters: int
    gradients: int
    optimizer_state: int
    activations: int

    @property
    def total(self) -> int:
        """Sum of the four; the allocator's reserve and the kernels' workspace come on top."""
        return self.parameters + self.gradients + self.optimizer_state + self.activations


def saved_activation_bytes(module: nn.Module, example_input: Any) -> float:  # noqa: ANN401 - tensor, tuple or dict
    """Return the bytes that autograd keeps for the backward pass, for each sample of the example.

    It depends on what requires a gradient now: below the deepest open layer nothing is kept. Each storage counts once;
    parameters and buffers do not count. The module, its buffers and the random state are left as they were.

    Args:
        module: Called with the example, in the modes that it has.
        example_input: A tensor, or a dict (passed as one argument) or tuple (passed as several) of tensors; the first
            axis of the first tensor is the batch.

    Raises:
        ValueError: If the example holds no tensor, or an empty batch.

    Example:
        >>> layers = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> saved_activation_bytes(layers, torch.zeros(5, 8))  # the input of each layer: 8 and 4 floats
        48.0
    """
    first = next(tensors_of(example_input), None)
    if first is None or first.ndim == 0 or len(first) == 0:
        found = type(example_input).__name__ if first is None else f"a tensor of shape {tuple(first.shape)}"
        raise ValueError(f"Expected an example with at least one sample, got {found}. Pass a batch of one or more.")
    own = {_storage(tensor) for tensor in (*module.parameters(), *module.buffers())}
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []
    nothing = torch.empty(0)  # what the graph holds instead: it is never run backward

    def pack(tensor: Tensor) -> Tensor:
        # Held until the end: a freed storage could give its address to the next one. Detached: the graph is not held.
        kept.append(tensor.detach())
        if _storage(tensor) not in own:
            sizes[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return nothing

    devices = [first.device] if first.is_cuda else []
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    own.update(_storage(buffer) for buffer in buffers.values())
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.random.fork_rng(devices=devices), torch.enable_grad(), hooks:
        torch.func.functional_call(module, buffers, arguments)
    return sum(sizes.values()) / len(first)


def trainable_memory(
    module: nn.Module,
    example_input: Any = None,  # noqa: ANN401 - tensor, tuple or dict
    *,
    batch_size: int = 1,
    optimizer_states: float = 2.0,
) -> TrainingMemory:
    """Estimate what training needs with the parameters that require a gradient now.

    Args:
        module: In the state (frozen, open) of the stage in question.
        example_input: As for `saved_activation_bytes`; None leaves activations out.
        batch_size: Samples of one step on one device.
        optimizer_states: Numbers kept for each trained parameter: 2 for Adam, 1 for momentum, 0 for plain SGD.

    Raises:
        ValueError: If ``batch_size`` is smaller than 1, or ``optimizer_states`` negative.

    Example:
        >>> layer = nn.Linear(3, 1, bias=False)
        >>> trainable_memory(layer, torch.zeros(1, 3), batch_size=10)
        TrainingMemory(parameters=12, gradients=12, optimizer_state=24, activations=120)
    """
    if batch_size < 1:
        raise ValueError(f"Expected `batch_size` of at least 1, got {batch_size}.")
    if optimizer_states < 0:
        raise ValueError(f"Expected `optimizer_states` of at least 0, got {optimizer_states}. 2 is for Adam.")
    gradients = sum(_nbytes(item) for item in module.parameters() if item.requires_grad)
    per_sample = 0.0 if example_input is None else saved_activation_bytes(module, example_input)
    return TrainingMemory(
        parameters=sum(_nbytes(item) for item in (*module.parameters(), *module.buffers())),
        gradients=gradients,
        optimizer_state=round(gradients * optimizer_states),
        activations=round(per_sample * batch_size),
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def tensors_of(value: Any) -> Iterator[Tensor]:  # noqa: ANN401 - any tree of containers
    """Yield the tensors in nested mappings, tuples and lists, in order.

    Example:
        >>> [len(item) for item in tensors_of({"ids": torch.zeros(2), "more": [torch.zeros(3), "text"]})]
        [2, 3]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_of(item)
