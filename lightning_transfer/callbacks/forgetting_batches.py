"""What a batch of any project holds: what the model reads, labels, how many; and a hash of many batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, uint8

__all__ = ["count_inputs", "fingerprint", "input_of", "labels_of", "target_of"]

_LABEL_KEYS = ("target", "targets", "label", "labels", "y")


def input_of(batch: Any) -> Any:  # noqa: ANN401 - any batch
    """Return what the model reads of a batch: the first of a tuple or list, a dict without its labels, or the batch.

    Example:
        >>> import torch
        >>> input_of((torch.ones(2), torch.zeros(2)))
        tensor([1., 1.])
        >>> input_of({"pixel_values": 1, "labels": 2})
        {'pixel_values': 1}
    """
    if isinstance(batch, tuple | list) and len(batch) > 0:
        return input_of(batch[0])
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key not in _LABEL_KEYS}
    return batch


def labels_of(batch: Any) -> Tensor | None:  # noqa: ANN401 - any batch
    """Return the class labels of a batch on the CPU, or None where it holds no integer for each input.

    Example:
        >>> import torch
        >>> labels_of((torch.ones(2, 3), torch.tensor([4, 5])))
        tensor([4, 5])
    """
    label = target_of(batch)
    if not isinstance(label, Tensor) or label.ndim != 1 or label.is_floating_point() or label.is_complex():
        return None
    if len(label) != count_inputs(input_of(batch)) or bool((label < 0).any()):
        return None
    return label.detach().cpu().long()


def target_of(batch: Any) -> Any:  # noqa: ANN401 - any batch
    """Return what a batch holds as its target: under a usual name, or second; None where there is nothing.

    Example:
        >>> target_of(("input", "target")), target_of({"pixel_values": 1, "labels": 2}), target_of("input")
        ('target', 2, None)
    """
    if isinstance(batch, Mapping):
        return next((batch[key] for key in _LABEL_KEYS if key in batch), None)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return next((getattr(batch, key) for key in _LABEL_KEYS if key in batch._fields), None)
    return batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None


def count_inputs(value: Any) -> int:  # noqa: ANN401
    """Return the number of inputs in a batch."""
    if isinstance(value, Mapping):
        value = next((item for item in value.values() if isinstance(item, Tensor)), [])
    return len(value)


def fingerprint(batches: list[Any]) -> str:
    """Hash all tensors, numbers and texts of the batches, in order."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:  # noqa: ANN401
        if isinstance(value, Mapping):
            for key in value:
                digest.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, tuple | list):
            for item in value:
                add(item)
        elif isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(uint8).numpy().tobytes())
        elif isinstance(value, str | int | float | bool):
            digest.update(repr(value).encode())

    add(batches)
    return digest.hexdigest()
