"""Time models beside each other: the same images or texts, the same number of threads, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_transfer.export.packages import import_package
from lightning_transfer.export.program import INPUT, OUTPUT

__all__ = ["BATCH_SIZES", "THREADS", "measure_latency", "measure_real_time", "timed_run"]

BATCH_SIZES = (1, 32)

THREADS = 1
"""Of torch and of onnxruntime: two pools of waiting threads in one process, or another program on the same cores, would
slow the one or the other by far more than they differ."""

_RUNS, _LEAST_RUNS, _WARM_UP = 50, 10, 3
_CLOCK = time.perf_counter


_TURNS, _LEAST_TURNS = 40, 3


def timed_run(path: Path) -> Callable[[Any], NDArray[Any]]:
    """Open an ONNX file on the CPU with one thread, to be timed; it takes images, or the inputs by name."""
    onnxruntime = import_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: Any) -> NDArray[Any]:  # noqa: ANN401 - an array, or arrays by name
        given = dict(inputs) if isinstance(inputs, Mapping) else {INPUT: inputs}
        logits: NDArray[Any] = session.run([OUTPUT], given)[0]
        return logits

    return run


def measure_latency(
    runs: Mapping[str, Callable[[Any], object]],
    inputs: NDArray[Any] | Callable[[int], Sequence[Any]],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seconds: float = 10.0,
) -> list[dict[str, Any]]:
    """Return median and 95th percentile of the time of one batch on one thread, for each batch size and model.

    The models take turns, so that whatever else the machine does meets all of them alike. Each runs 50 times; fewer,
    but at least 10 times, where that takes longer than ``seconds`` for all of them together.

    Args:
        runs: Name -> model.
        inputs: Images, prepared ``(N, C, H, W)``; repeated where a batch is larger. Or what returns the batches of a
            size: texts differ in length, so many of them are timed, each turn of the models the next.
        batch_sizes: Items of a batch.
        seconds: For each batch size.

    Returns:
        Rows with ``batch_size``, ``runs``, and ``p50_ms_<name>`` and ``p95_ms_<name>``; for all names but the first
        ``speedup_<name>``, the median of the first over that of the name.

    Example:
        >>> rows = measure_latency({"eager": lambda images: images.sum()}, np.zeros((1, 3, 8, 8)), batch_sizes=[2])
        >>> list(rows[0])
        ['batch_size', 'runs', 'p50_ms_eager', 'p95_ms_eager']
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return [
            _measure(runs, inputs(size) if callable(inputs) else [_repeated(inputs, size)], size, seconds)
            for size in batch_sizes
        ]
    finally:
        torch.set_num_threads(threads)


def measure_real_time(
    runs: Mapping[str, Callable[[Any], object]],
    batches: Callable[[int], Sequence[tuple[Any, float]]],
    *,
    batch_sizes: Sequence[int],
    seconds: float = 20.0,
) -> list[dict[str, Any]]:
    """Return how many seconds of computing a second of sound takes, on one thread, for each batch size and model.

    The models take turns, each turn a batch. All batches are run once, 40 at most; fewer, but at least 3, where that
    takes longer than ``seconds`` for all models together.

    Args:
        runs: Name -> model.
        batches: Returns the batches of a size, each with the seconds of sound in it, padding not counted.
        batch_sizes: Recordings, or pieces of them, in a batch.
        seconds: For each batch size.

    Returns:
        Rows with ``batch_size``, ``runs``, ``seconds_of_sound``, and ``real_time_factor_<name>``; for all names but the
        first ``speedup_<name>``.

    Example:
        >>> batches = lambda size: [(np.zeros((size, 9)), 2.0 * size)]
        >>> rows = measure_real_time({"eager": lambda sound: sound.sum()}, batches, batch_sizes=[1])
        >>> list(rows[0])
        ['batch_size', 'runs', 'seconds_of_sound', 'real_time_factor_eager']
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return [_real_time(runs, batches(size), size, seconds) for size in batch_sizes]
    finally:
        torch.set_num_threads(threads)


def _real_time(
    runs: Mapping[str, Callable[[Any], object]], batches: Sequence[tuple[Any, float]], size: int, limit: float
) -> dict[str, Any]:
    for run in runs.values():
        run(batches[0][0])
    taken, sound, done = dict.fromkeys(runs, 0.0), 0.0, 0
    begin = _CLOCK()
    while done < min(_TURNS, max(_LEAST_TURNS, len(batches))) and (done < _LEAST_TURNS or _CLOCK() - begin < limit):
        inputs, length = batches[done % len(batches)]
        for name, run in runs.items():
            start = _CLOCK()
            run(inputs)
            taken[name] += _CLOCK() - start
        sound, done = sound + length, done + 1
    row: dict[str, Any] = {"batch_size": size, "runs": done, "seconds_of_sound": sound}
    row |= {f"real_time_factor_{name}": total / sound for name, total in taken.items()}
    first, *others = runs
    row |= {f"speedup_{name}": taken[first] / taken[name] if taken[name] else float("inf") for name in others}
    return row


def _repeated(images: NDArray[Any], size: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))


def _measure(
    runs: Mapping[str, Callable[[Any], object]], batches: Sequence[Any], size: int, seconds: float
) -> dict[str, Any]:
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for turn in range(_WARM_UP):
            run(batches[turn % len(batches)])
    begin, done = _CLOCK(), 0
    while done < _RUNS and (done < _LEAST_RUNS or _CLOCK() - begin < seconds):
        for name, run in runs.items():
            start = _CLOCK()
            run(batches[done % len(batches)])
            taken[name].append(1e3 * (_CLOCK() - start))
        done += 1
    row: dict[str, Any] = {"batch_size": size, "runs": done}
    for name, times in taken.items():
        row[f"p50_ms_{name}"], row[f"p95_ms_{name}"] = (float(np.percentile(times, q)) for q in (50, 95))
    first, *others = runs
    for name in others:
        slower, faster = row[f"p50_ms_{first}"], row[f"p50_ms_{name}"]
        row[f"speedup_{name}"] = slower / faster if faster else float("inf")
    return row
