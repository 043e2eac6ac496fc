"""What a cache of activations depends on, as one hash: another weight, file, transform or cut is another cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_transfer.backbones.cut import WHOLE, Cut
from lightning_transfer.types import Record

__all__ = ["cache_key", "hash_records", "hash_tensors", "prefix_tensors"]


def prefix_tensors(backbone: nn.Module, cut: Cut) -> dict[str, Tensor]:
    """Return the parameters and buffers that the first half of a backbone may use, by name.

    Those of layers that run in it, and those that lie loose in a module around them, such as a class token.

    Args:
        backbone: Of which the cut was found.
        cut: Where it is cut.
    """
    modules = dict(backbone.named_modules())
    found: dict[str, Tensor] = {}
    for name in sorted({*cut.ran, *(part for layer in cut.ran for part in _around(layer))}):
        for own, value in (*modules[name].named_parameters(recurse=False), *modules[name].named_buffers(recurse=False)):
            found[f"{name}.{own}" if name else own] = value
    if cut.is_whole:
        # Layers whose weights another one reads are never called.
        found |= {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    return found


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the hash of names, shapes and bits.

    Example:
        >>> hash_tensors({"a": torch.zeros(2)}) == hash_tensors({"a": torch.zeros(1, 2)})
        False
    """
    digest = hashlib.sha256()
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)};".encode())
        if plain.numel():
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_records(records: Iterable[Record], items: Sequence[int] | None = None) -> str:
    """Return the hash of what items are read from: ids, labels, texts and arrays, and size and time of files.

    Args:
        records: Of a data set; pieces of one are records too.
        items: Which of them are meant; None: all.
    """
    digest = hashlib.sha256()
    rows = list(records)
    for place in range(len(rows)) if items is None else items:
        record = rows[place]
        for part in (record.id, record.label, record.input, record.mask):
            digest.update(_token(part))
            digest.update(b"\0")
    return digest.hexdigest()


def cache_key(cut: Cut, *, weights: str, data: str, facts: Mapping[str, Any]) -> str:
    """Return the name of a cache: the hash of all that it depends on.

    Args:
        cut: Of the backbone.
        weights: Hash of `prefix_tensors`.
        data: As `hash_records` returned it.
        facts: Plain values: preprocessing, dtype, views, precision.
    """
    said = {"layers": cut.layers, "weights": weights, "data": data, "torch": torch.__version__, **facts}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _token(part: Any) -> bytes:  # noqa: ANN401 - a path, a text, an array, a part of a file
    if isinstance(part, np.ndarray):
        return hashlib.sha256(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes()).digest()
    if isinstance(part, Tensor):
        return hash_tensors({"": part}).encode()
    path = getattr(part, "path", part)
    said = repr(part)
    if isinstance(path, str | Path) and len(str(path)) < 4096:
        try:
            found = Path(path).stat()
            said += f" {found.st_size} {found.st_mtime_ns}"
        except (OSError, ValueError):
            pass  # a text
    return said.encode()


def _around(name: str) -> list[str]:
    """Return the names of the modules that a module lies in."""
    parts = name.split(".")
    return [WHOLE, *(".".join(parts[:count]) for count in range(1, len(parts)))]
