"""Quantise an exported model to 8 bits, for speed and size; it stands beside the float model and never replaces it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.export.facts import to_properties
from lightning_transfer.export.packages import import_package
from lightning_transfer.export.program import INPUT

__all__ = ["METHOD", "TEXT_METHOD", "quantise", "quantise_texts"]

METHOD = "static QDQ: weights int8 by channel, activations uint8 in the ranges (min to max) of training samples"
"""Static, because the dynamic form of a convolution measures ranges anew for each image and has no fast kernel on CPUs.
By channel, since folded BatchNorm gives the channels ranges of their own. Activations unsigned: on an x86 CPU with VNNI
that took half the time of signed ones, which were slower than float (ResNet of 1.2 M parameters, 32 images of 64 px,
one thread: 14.5, 31.4 and 28.0 ms), with the same decisions. On x86 CPUs without VNNI such sums can saturate."""

TEXT_METHOD = "dynamic: weights of matrix products int8 by channel, activations uint8 in the range of each batch"
"""Dynamic, because the ranges of a transformer's activations differ from text to text by far more than those of images,
and a matrix product, unlike a convolution, has a fast kernel for it. Embeddings stay float: they are no product."""


def quantise(
    model: Path,
    target: Path,
    samples: Iterable[NDArray[Any]],
    facts: Mapping[str, Any],
    operations: Sequence[str] | None = None,
) -> None:
    """Write the 8-bit twin of an ONNX model.

    Args:
        model: The float model.
        target: To write to.
        samples: Batches ``(N, C, H, W)`` of training images, prepared; they set the ranges of the activations.
        facts: Of the float model; stored in the twin with ``quantisation``.
        operations: ONNX names of what is quantised; None takes all that onnxruntime can.
    """
    quantization = import_package("onnxruntime.quantization")
    with _prepared(model, quantization) as prepared:
        quantization.quantize_static(
            str(prepared), str(target), _reader(quantization, samples),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            per_channel=True, calibrate_method=quantization.CalibrationMethod.MinMax,
            op_types_to_quantize=None if operations is None else list(operations),
        )  # fmt: skip
    _state(target, facts, METHOD)


def quantise_texts(model: Path, target: Path, facts: Mapping[str, Any]) -> None:
    """Write the 8-bit twin of an ONNX model of texts, or of speech, whose convolutions stay float; it needs no samples.

    Args:
        model: The float model.
        target: To write to.
        facts: Of the float model; stored in the twin with ``quantisation``.
    """
    quantization, onnx = import_package("onnxruntime.quantization"), import_package("onnx")
    with _prepared(model, quantization) as prepared:
        shaped = onnx.load(str(prepared))
        # It turns layers into products with transposed weights, and stumbles over what was noted of their shapes.
        del shaped.graph.value_info[:]
        onnx.save(shaped, str(prepared))
        quantization.quantize_dynamic(
            str(prepared), str(target), op_types_to_quantize=["MatMul"], per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            # Products of two activations (attention) have no weights to shrink.
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
    _state(target, facts, TEXT_METHOD)


@contextmanager
def _prepared(model: Path, quantization: Any) -> Iterator[Path]:  # noqa: ANN401 - a module
    """Give the model with its shapes known and its constants folded; the quantiser's remarks stay unsaid."""
    before = logging.getLogger().level
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            logging.getLogger().setLevel(logging.ERROR)  # it logs to the root
            quantization.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
            yield prepared
        finally:
            logging.getLogger().setLevel(before)


def _state(target: Path, facts: Mapping[str, Any], method: str) -> None:
    onnx = import_package("onnx")
    written = onnx.load(str(target))
    onnx.helper.set_model_props(written, to_properties({**facts, "quantisation": method}))
    onnx.save(written, str(target))


def _reader(quantization: Any, samples: Iterable[NDArray[Any]]) -> Any:  # noqa: ANN401 - of onnxruntime
    """Return the samples in the form that the quantiser asks for, one batch a call."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest: Iterator[NDArray[Any]] = iter(samples)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._rest, None)
            return None if batch is None else {INPUT: np.ascontiguousarray(batch)}

    return Reader()
