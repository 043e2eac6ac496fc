"""How fast a model answers on this device, and how much it takes: forward passes alone, no file is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_transfer.metrics.cost import tensors_of

__all__ = ["Latency", "LatencyRow", "batches", "live_bytes", "measure_latency"]

_MB = 1e6
# Fewer runs have no 95th percentile of their own: it would be the slowest one.
_RUNS_FOR_P95 = 20
_MOST_RUNS = 100
_WARM_UP_SHARE = 0.1


@dataclass(frozen=True)
class LatencyRow:
    """Forward passes of one batch size.

    Attributes:
        batch_size: Items in a pass.
        p50_ms: Median milliseconds of a pass.
        p95_ms: 95th percentile; None for fewer than 20 passes, which have none of their own.
        items_per_s: Throughput: items over the mean time of a pass.
        runs: Passes that were timed, after a warm-up.
    """

    batch_size: int
    p50_ms: float
    p95_ms: float | None
    items_per_s: float
    runs: int


@dataclass(frozen=True)
class Latency:
    """What prediction costs on this device.

    Attributes:
        device: Its name.
        threads: Of torch, on the CPU.
        rows: One for each batch size.
        peak_memory_mb: Largest memory of a pass with the largest batch, in 10^6 bytes.
        peak_memory: What that number is.
        size_mb: Size of the checkpoint on disk, in 10^6 bytes; None if unknown.
        num_parameters: Of the model.
        note: What was timed.
    """

    device: str
    threads: int
    rows: tuple[LatencyRow, ...]
    peak_memory_mb: float
    peak_memory: str
    size_mb: float | None
    num_parameters: int
    note: str = "forward passes on items in memory: no file is read, decoded or resized"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}


def measure_latency(
    module: nn.Module,
    example: Any,  # noqa: ANN401 - what the module takes: a tensor, or a dict of tensors
    batch_sizes: Sequence[int] = (1, 8, 32),
    *,
    device: torch.device | str = "cpu",
    max_seconds: float = 2.0,
    size_bytes: int | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Latency:
    """Time ``module(batch)`` in eval mode, without gradients.

    Each batch size is warmed up for a tenth of its time, so that caches are full and kernels are chosen, then timed
    until the time is over or after 100 passes, at least once. On CUDA each pass is waited for. Modes and device are put
    back.

    The passes take the items in turn, so that the figures are those of short and of long texts alike, and each batch is
    padded to its own longest text, not to that of the example.

    Args:
        module: Takes one argument.
        example: A batch of real items, of which the batches are made; it is repeated where they are larger.
        batch_sizes: Items in a pass, each timed on its own.
        device: Where to compute.
        max_seconds: For each batch size, warm-up included; a single pass may take longer.
        size_bytes: Of the checkpoint.
        context: Around all passes, such as the precision of a trainer.

    Raises:
        ValueError: If there is no batch size, one is smaller than 1, or the example holds no item.

    Example:
        >>> found = measure_latency(nn.Linear(4, 2), torch.zeros(3, 4), [1, 8], max_seconds=0.01)
        >>> [row.batch_size for row in found.rows], found.num_parameters
        ([1, 8], 10)
    """
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"Expected batch sizes of at least 1, got {list(batch_sizes)}.")
    place = torch.device(device)
    home = next((item.device for item in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    modes = {part: part.training for part in module.modules()}
    try:
        module.to(place)
        module.eval()
        with torch.inference_mode(), context():
            sets = {size: [move_data_to_device(item, place) for item in batches(example, size)] for size in batch_sizes}
            rows = tuple(_time(module, sets[size], size, place, max_seconds) for size in batch_sizes)
            peak, what = _peak_memory(module, max(batch_sizes), sets[max(batch_sizes)], place)
    finally:
        module.to(home)
        for part, training in modes.items():
            # Not by `.train()`: frozen parts refuse it, and each part had a mode of its own.
            part.training = training
    return Latency(
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        threads=torch.get_num_threads(),
        rows=rows,
        peak_memory_mb=peak / _MB,
        peak_memory=what,
        size_mb=None if size_bytes is None else size_bytes / _MB,
        num_parameters=sum(item.numel() for item in module.parameters()),
    )


def _time(module: nn.Module, found: Sequence[Any], size: int, device: torch.device, max_seconds: float) -> LatencyRow:
    endless = cycle(found)

    def run() -> float:
        batch = next(endless)
        start = time.perf_counter()
        module(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    begin = time.perf_counter()
    while run() and time.perf_counter() - begin < _WARM_UP_SHARE * max_seconds:
        pass
    seconds = [run()]
    while len(seconds) < _MOST_RUNS and time.perf_counter() - begin + seconds[-1] < max_seconds:
        seconds.append(run())
    p95 = float(np.quantile(seconds, 0.95)) * 1e3 if len(seconds) >= _RUNS_FOR_P95 else None
    return LatencyRow(size, float(np.median(seconds)) * 1e3, p95, size / float(np.mean(seconds)), len(seconds))


def _peak_memory(module: nn.Module, size: int, found: Sequence[Any], device: torch.device) -> tuple[float, str]:
    # The one of the longest texts.
    batch = max(found, key=lambda item: sum(tensor.numel() for tensor in tensors_of(item)))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        module(batch)
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device)), f"allocated on the device, batch of {size}"
    weights = sum(item.numel() * item.element_size() for item in (*module.parameters(), *module.buffers()))
    what = f"weights, and tensors alive at once in a pass, batch of {size}; kernels and Python need more on top"
    return weights + live_bytes(module, batch), what


def live_bytes(module: nn.Module, batch: Any) -> float:  # noqa: ANN401
    """Return the largest number of bytes of tensors that ``module(batch)`` makes and holds at the same time.

    Counted operation by operation, storages once: a resident set size does not show it, as freed memory is used again.
    Weights and the batch itself do not count, nor what kernels need while they run.

    Example:
        >>> layers = nn.Sequential(nn.Linear(8, 4), nn.Tanh())
        >>> with torch.inference_mode():
        ...     live_bytes(layers, torch.zeros(5, 8))  # before and after the activation, 5 times 4 floats each
        160.0
    """
    with _LiveBytes() as live:
        module(batch)
    return float(live.most)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Add up the storages that operations return, as long as anything holds them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[StorageWeakRef, int] = {}
        self.most = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        given = {_reference(item) for item in tensors_of((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for item in tensors_of(result):
            reference = _reference(item)
            # A view of a weight, or of the batch, is no new memory.
            if reference not in given:
                self.alive[reference] = item.untyped_storage().nbytes()
        self.alive = {item: size for item, size in self.alive.items() if not _is_gone(item)}
        self.most = max(self.most, sum(self.alive.values()))
        return result


def _reference(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _is_gone(reference: StorageWeakRef) -> bool:
    return bool(reference.expired())  # type: ignore[no-untyped-call]


def batches(example: Any, size: int) -> list[Any]:  # noqa: ANN401 - as `measure_latency`
    """Return batches of that size, in which every item of the example occurs at least once, in turn.

    Texts (``attention_mask``) lose the padding that their batch does not need, keep their chunks (``chunk_of``), and
    come in a shuffled order that is always the same: loaders sort them by length, and time may run out before all had a
    turn.

    Example:
        >>> batches(torch.arange(3), 2)
        [tensor([0, 1]), tensor([2, 0])]
    """
    count = _count(example)
    order = list(range(count))
    if isinstance(example, Mapping) and "attention_mask" in example:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    starts = range(0, count, size)
    return [_take(example, [order[place % count] for place in range(start, start + size)]) for start in starts]


def _count(example: Any) -> int:  # noqa: ANN401
    """Return the number of items."""
    if isinstance(example, Mapping):
        if "chunk_of" in example:
            return int(example["chunk_of"].max()) + 1
        return min((_count(value) for value in example.values()), default=0)
    if not isinstance(example, Tensor) or example.ndim == 0 or len(example) == 0:
        found = f"a tensor of shape {tuple(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
        raise ValueError(f"Expected an example with at least one item, got {found}.")
    return len(example)


def _take(example: Any, places: Sequence[int]) -> Any:  # noqa: ANN401
    """Return a batch of some items."""
    if not isinstance(example, Mapping):
        return example[list(places)].contiguous()
    rows, owners = list(places), None
    if "chunk_of" in example:
        found = [(example["chunk_of"] == place).nonzero()[:, 0] for place in places]
        rows = torch.cat(found).tolist()
        owners = torch.arange(len(found)).repeat_interleave(torch.tensor([len(item) for item in found]))
    taken = {name: _take(value, rows) for name, value in example.items() if name != "chunk_of"}
    mask = taken.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        # Padding may stand on either side.
        used = mask.any(dim=0).nonzero()[:, 0]
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, mask.shape[1])
        taken = {
            name: value[:, first:last].contiguous() if value.shape[:2] == mask.shape else value
            for name, value in taken.items()
        }
    return taken if owners is None else {**taken, "chunk_of": owners.to(example["chunk_of"].device)}
