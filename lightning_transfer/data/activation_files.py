"""Tensors of many items, appended batch by batch and read by item: in memory, or mapped from plain files."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_transfer.files import write_json

__all__ = ["FORMAT", "ActivationFiles", "ActivationWriter", "StoreDtype", "TooLargeError"]

FORMAT = 1
HEADER = "header.json"
StoreDtype = Literal["float16", "bfloat16"]


class TooLargeError(Exception):
    """What is written passes the limit; the message says by how much."""


@dataclass(frozen=True)
class _Field:
    """One tensor of each item.

    Attributes:
        dtype: As it was given, and as it is given back.
        stored: As it lies in memory or in the file.
        places: ``(items, 1 + axes)`` int64: where each item begins, counted in elements, and its shape.
        data: All items, one behind the other.
    """

    dtype: torch.dtype
    stored: torch.dtype
    places: Tensor
    data: Tensor

    def take(self, items: Tensor) -> Tensor:
        """Return some items as a batch; where their shapes differ, padded with zeros."""
        places = self.places[items]
        shapes = places[:, 1:]
        largest = shapes.amax(dim=0) if len(items) else shapes.new_zeros(shapes.shape[1])
        size = [int(length) for length in largest]
        if self._is_uniform:
            count = max(1, int(largest.prod()))
            rows = self.data.view(-1, *size)[places[:, 0] // count]
            return rows.to(self.dtype)
        batch = torch.zeros((len(items), *size), dtype=self.stored)
        for row, (start, *shape) in enumerate(places.tolist()):
            count = int(torch.tensor(shape).prod())
            part = self.data[start : start + count].view(shape)
            batch[row][tuple(slice(length) for length in shape)] = part
        return batch.to(self.dtype)

    @cached_property
    def _is_uniform(self) -> bool:
        shapes = self.places[:, 1:]
        return bool((shapes == shapes[:1]).all()) and bool((shapes > 0).all())


class ActivationFiles:
    """What `ActivationWriter` wrote: several parts, each with some of the items.

    Args:
        parts: Of one process each.

    Example:
        >>> writer = ActivationWriter(None, memory_limit=1 << 20, size_limit=1 << 20)
        >>> writer.add([1, 0], [torch.tensor([[1.0], [2.0]])])
        >>> ActivationFiles([writer.finish({})]).take([0, 1, 1])
        [tensor([[2.],
                [1.],
                [1.]])]
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = list(parts)
        size = 1 + max((int(part.items.max()) for part in parts if len(part.items)), default=-1)
        self._part = torch.full((size,), -1)
        self._row = torch.zeros(size, dtype=torch.long)
        for number, part in enumerate(parts):
            self._part[part.items] = number
            self._row[part.items] = torch.arange(len(part.items))

    def __len__(self) -> int:
        return int((self._part >= 0).sum())

    @property
    def nbytes(self) -> int:
        """Size of the tensors, in bytes."""
        return sum(field.data.numel() * field.data.element_size() for part in self._parts for field in part.fields)

    @property
    def in_memory(self) -> bool:
        """Whether no file is read."""
        return all(part.folder is None for part in self._parts)

    @property
    def meta(self) -> Mapping[str, Any]:
        """The plain values that were given to `ActivationWriter.finish`."""
        return self._parts[0].meta

    def take(self, items: Sequence[int]) -> list[Tensor]:
        """Return the tensors of some items, each as a batch in their order.

        Raises:
            KeyError: If an item was never written.
        """
        wanted = torch.tensor(items, dtype=torch.long)
        if len(wanted) and (int(wanted.max()) >= len(self._part) or bool((self._part[wanted] < 0).any())):
            raise KeyError(f"The cache lacks some of the items {list(items)[:5]}: it holds {len(self)}.")
        if len(self._parts) == 1:
            return [field.take(self._row[wanted]) for field in self._parts[0].fields]
        owner = self._part[wanted]
        taken = [
            (torch.nonzero(owner == number)[:, 0], part)
            for number, part in enumerate(self._parts)
            if bool((owner == number).any())
        ]
        batches = []
        for number in range(len(self._parts[0].fields)):
            pieces = [(rows, part.fields[number].take(self._row[wanted[rows]])) for rows, part in taken]
            size = [max(piece.shape[axis] for _, piece in pieces) for axis in range(1, pieces[0][1].ndim)]
            batch = torch.zeros((len(wanted), *size), dtype=pieces[0][1].dtype)
            for rows, piece in pieces:
                padding = [
                    side
                    for length, own in zip(reversed(size), reversed(piece.shape[1:]), strict=True)
                    for side in (0, length - own)
                ]
                batch[rows] = torch.nn.functional.pad(piece, padding)
            batches.append(batch)
        return batches

    @classmethod
    def open(cls, folder: Path, key: str) -> ActivationFiles | None:
        """Return what lies in a folder, mapped, not read; None unless it is whole and of this key."""
        for count in sorted({path.name.rpartition("-of-")[2] for path in folder.glob("part-*-of-*")}):
            if not count.isdigit():
                continue
            found = [_Part.open(folder / part_name(rank, int(count)), key) for rank in range(int(count))]
            parts = [part for part in found if part is not None]
            if parts and len(parts) == len(found):
                return cls(parts)
        return None


@dataclass(frozen=True)
class _Part:
    """The items that one process wrote."""

    fields: list[_Field]
    items: Tensor
    meta: Mapping[str, Any]
    folder: Path | None = None

    @classmethod
    def open(cls, folder: Path, key: str) -> _Part | None:
        try:
            header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
            if header["format"] != FORMAT or header["key"] != key:
                return None
            items = _mapped(folder / "items.bin", torch.int64, header["items"])
            fields = []
            for number, field in enumerate(header["fields"]):
                stored = _dtype(field["stored"])
                data = _mapped(folder / f"{number}.bin", stored, field["elements"])
                places = _mapped(folder / f"{number}.places.bin", torch.int64, header["items"] * field["columns"])
                fields.append(_Field(_dtype(field["dtype"]), stored, places.view(-1, field["columns"]), data))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # not there, not whole, or of somebody else
        return cls(fields, items, header["meta"], folder)


class ActivationWriter:
    """Append the tensors of items; they stay in memory up to a limit, and lie in files past it.

    Nothing is seen under its final name before `finish`: a process that dies leaves a folder with a hidden name, which
    nobody reads.

    Args:
        folder: Of the part; None: in memory alone, which then may not pass its limit.
        memory_limit: Bytes that are kept in memory; with 0 all goes to files.
        size_limit: Bytes past which nothing is written.
        dtype: Of what is stored of floating-point numbers; None keeps theirs.
        key: Of the content; a reader asks for it.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        memory_limit: float,
        size_limit: float,
        dtype: StoreDtype | None = None,
        key: str = "",
    ) -> None:
        self._folder = folder
        self._partial: Path | None = None
        self._memory_limit = memory_limit
        self._size_limit = size_limit
        self._dtype = None if dtype is None else _dtype(dtype)
        self._key = key
        self._items: list[int] = []
        self._places: list[list[Tensor]] = []
        self._chunks: list[list[Tensor]] = []
        self._elements: list[int] = []
        self._dtypes: list[torch.dtype] = []
        self._total = 0

    def add(self, items: Sequence[int], tensors: Sequence[Tensor]) -> None:
        """Append a batch.

        Args:
            items: Number of each.
            tensors: First axis is the batch.

        Raises:
            TooLargeError: If the limit is passed.
        """
        if not self._dtypes:
            self._dtypes = [tensor.dtype for tensor in tensors]
            self._places, self._chunks = [[] for _ in tensors], [[] for _ in tensors]
            self._elements = [0] * len(tensors)
        self._items += items
        for number, tensor in enumerate(tensors):
            flat = self._stored(tensor.detach().cpu())
            count = flat[0].numel() if len(flat) else 0
            starts = self._elements[number] + count * torch.arange(len(flat))
            self._places[number].append(torch.tensor([[int(start), *flat.shape[1:]] for start in starts]))
            # A copy: what a view looks at would else be kept whole.
            chunk = flat.reshape(-1).clone()
            self._chunks[number].append(chunk)
            self._elements[number] += chunk.numel()
            self._total += chunk.numel() * chunk.element_size()
        if self._total > self._size_limit:
            raise TooLargeError(f"{_megabytes(self._total)} of {len(self._items)} items and more to come")
        if self._total > self._memory_limit:
            self._spill()

    def finish(self, meta: Mapping[str, Any]) -> _Part:
        """Return what was written, mapped where it lies in files.

        Args:
            meta: Plain values to find again.
        """
        items = torch.tensor(self._items, dtype=torch.long)
        if self._partial is None and self._memory_limit > 0:
            fields = [
                _Field(dtype, _stored_dtype(dtype, self._dtype), torch.cat(places), torch.cat(chunks))
                for dtype, places, chunks in zip(self._dtypes, self._places, self._chunks, strict=True)
            ]
            return _Part(fields, items, meta)
        self._spill()
        if self._partial is None or self._folder is None:
            raise TooLargeError(f"{_megabytes(self._total)} for {len(items)} items do not fit the memory")
        _write(self._partial / "items.bin", [items])
        header: dict[str, Any] = {"format": FORMAT, "key": self._key, "items": len(items), "meta": dict(meta)}
        header["fields"] = []
        for number, dtype in enumerate(self._dtypes):
            places = torch.cat(self._places[number])
            _write(self._partial / f"{number}.places.bin", [places])
            header["fields"].append(
                {
                    "dtype": _name(dtype),
                    "stored": _name(_stored_dtype(dtype, self._dtype)),
                    "elements": self._elements[number],
                    "columns": places.shape[1],
                }
            )
        for path in self._partial.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        write_json(self._partial / HEADER, header)
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)  # what is there is not whole, or of another content
        os.rename(self._partial, self._folder)
        part = _Part.open(self._folder, self._key)
        if part is None:
            raise OSError(f"`{self._folder}` was written and cannot be read back. Is the disk full?")
        return part

    def discard(self) -> None:
        """Remove what was written so far; nothing after `finish`."""
        self._chunks = []
        if self._partial is not None:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _stored(self, tensor: Tensor) -> Tensor:
        stored = tensor.to(_stored_dtype(tensor.dtype, self._dtype))
        narrower = stored.dtype != tensor.dtype
        if narrower and not bool(torch.isfinite(stored).all()) and bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"A number of {float(tensor.abs().max()):.3g} does not fit into {_name(stored.dtype)}, whose largest "
                f"is {torch.finfo(stored.dtype).max:.3g}. Use `dtype='bfloat16'`, or keep all bits with `dtype=None`."
            )
        return stored

    def _spill(self) -> None:
        if self._folder is None:
            raise TooLargeError(f"{_megabytes(self._total)} of {len(self._items)} items and more to come, in memory")
        if self._partial is None:
            self._partial = self._folder.parent / f".{self._folder.name}.{uuid.uuid4().hex[:8]}.partial"
            self._partial.mkdir(parents=True)
            self._memory_limit = 0
        for number, chunks in enumerate(self._chunks):
            _write(self._partial / f"{number}.bin", chunks)
            chunks.clear()


def part_name(rank: int, count: int) -> str:
    """Return the name of the folder of one process.

    Example:
        >>> part_name(0, 2)
        'part-0-of-2'
    """
    return f"part-{rank}-of-{count}"


def _stored_dtype(dtype: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    return wanted if wanted is not None and dtype.is_floating_point else dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"`{name}` is no dtype of torch.")
    return found


def _write(path: Path, tensors: Sequence[Tensor]) -> None:
    with path.open("ab") as stream:
        for tensor in tensors:
            if tensor.numel():
                stream.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _mapped(path: Path, dtype: torch.dtype, elements: int) -> Tensor:
    size = elements * dtype.itemsize
    if path.stat().st_size != size:
        raise ValueError(f"`{path}` has {path.stat().st_size} bytes, expected {size}.")
    if not elements:
        return torch.empty(0, dtype=dtype)
    return torch.from_file(str(path), shared=False, size=elements, dtype=dtype)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
