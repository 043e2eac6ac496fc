"""Write a network as ``torch.export`` program and as ONNX, with a batch of any size and no trace of this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from lightning_transfer.export.facts import to_properties
from lightning_transfer.export.packages import ExportError, import_package
from lightning_transfer.silence import silenced

__all__ = ["FACTS_FILE", "INPUT", "OPSET", "OUTPUT", "SPEECH_OUTPUTS", "TEXT_INPUTS", "TEXT_OUTPUTS", "read_program"]
__all__ += ["trace", "trace_speech", "trace_texts", "write_onnx", "write_program"]

INPUT, OUTPUT = "images", "logits"
"""Names in the ONNX graph of images."""

TEXT_INPUTS, TEXT_OUTPUTS = ("input_ids", "attention_mask"), (OUTPUT, "features")
"""Names in the ONNX graph of texts."""

SPEECH_OUTPUTS = (OUTPUT, "lengths")
"""Names in the ONNX graph of speech: logits ``(N, frames, L)``, and how many of its frames are of each recording."""

OPSET = 18
"""What torch's exporter writes without conversion; onnxruntime 1.14 and TensorRT 10 read it."""

FACTS_FILE = "lightning_transfer.json"
"""Name of the facts inside a ``.pt2`` file."""

_BATCH, _SEQUENCE, _TIME, _FRAMES = "batch", "sequence", "time", "frames"
_EXAMPLE_TOKENS = 16
# Samples, and rows of features: about a second, whose length is no other number of a network.
_EXAMPLE_SAMPLES, _EXAMPLE_ROWS = 16_003, 47
_SPEECH_INPUTS = ("input_values", "input_features")
# How torch makes a view of a tensor depends on this, what comes out does not; it is false for a batch of one.
_NEEDLESS = "Ne(Mod("
# They warn of what they cope with.
_EXPORTERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
# Protocol buffers end at 2 GiB; what is larger gets a second file beside it.
_EMBEDDED_BYTES = 2**31 - 2**24


def trace(network: nn.Module, size: tuple[int, int, int]) -> ExportedProgram:
    """Return the network as a program for batches of any size.

    Args:
        network: In eval mode, as `exported_network` returns it.
        size: Channels, height and width of its images.

    Raises:
        ExportError: If the network cannot be traced, such as one whose steps depend on the pixels' values.

    Example:
        >>> program = trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval(), (3, 2, 2))
        >>> program.module()(torch.zeros(5, 3, 2, 2)).shape
        torch.Size([5, 2])
    """
    # Two images: a batch of one would be taken for a constant.
    example = torch.zeros(2, *size)
    return _traced(network, (example,), ({0: Dim(_BATCH)},))


def trace_texts(network: nn.Module, max_length: int) -> ExportedProgram:
    """Return the network as a program for batches of any size, and texts of any length up to ``max_length``.

    Args:
        network: In eval mode, as `exported_network` returns it.
        max_length: Tokens, special ones included.

    Raises:
        ExportError: If the network cannot be traced.
    """
    tokens = min(_EXAMPLE_TOKENS, max_length)
    ids, mask = torch.zeros(2, tokens, dtype=torch.int64), torch.ones(2, tokens, dtype=torch.int64)
    # One text is shorter, so that its padding is seen.
    mask[1, tokens // 2 :] = 0
    axes = {0: Dim(_BATCH), 1: Dim(_SEQUENCE, max=max_length)}
    return _traced(network, (ids, mask), (axes, axes))


def trace_speech(network: nn.Module, features: int | None) -> ExportedProgram:
    """Return the network as a program for batches of any size, and sound of any length that it can take.

    Args:
        network: In eval mode, as `exported_network` returns it.
        features: Values in a row of ``input_features``; None for samples, ``input_values``.

    Raises:
        ExportError: If the network cannot be traced, or only for one length.
    """
    steps = _EXAMPLE_SAMPLES if features is None else _EXAMPLE_ROWS
    sound = torch.zeros(2, steps) if features is None else torch.zeros(2, steps, features)
    mask = torch.ones(2, steps, dtype=torch.int64)
    # One recording is shorter, so that its padding is seen.
    mask[1, steps // 2 :] = 0
    # The network itself says what is too short or too long for it: convolutions end, tables of positions too.
    axes = {0: Dim.AUTO, 1: Dim.AUTO}
    program = _traced(network, (sound, mask), (axes, axes), deferred=True)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs:
            for size in node.meta["val"].shape[:2]:
                only = _only_value(program, size)
                if only is not None:
                    raise ExportError(
                        f"torch.export cannot trace the network for sound of any length: `{node.name}` would always "
                        f"have {only} steps."
                    )
    return program


def _only_value(program: ExportedProgram, size: Any) -> int | None:  # noqa: ANN401 - a number, or torch's symbol of one
    """Return the one value that an axis may have; None where it is free."""
    if isinstance(size, int):
        return size
    bounds = program.range_constraints.get(size.node.expr)
    return int(bounds.lower) if bounds is not None and bounds.lower == bounds.upper else None


def _traced(
    network: nn.Module, example: tuple[Tensor, ...], free: tuple[dict[int, Any], ...], *, deferred: bool = False
) -> ExportedProgram:
    try:
        with torch.no_grad(), silenced(*_EXPORTERS):
            program = torch.export.export(
                network, example, dynamic_shapes=free, strict=False,
                prefer_deferred_runtime_asserts_over_guards=deferred,
            )  # fmt: skip
    except Exception as error:  # torch raises many kinds
        raise ExportError(f"torch.export cannot trace the network: {_first_lines(error)}") from error
    for part in program.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            for node in list(part.graph.nodes):
                # Lines of source code, with the folders of this machine.
                node.meta.pop("stack_trace", None)
                if node.target is torch.ops.aten._assert_scalar.default and _NEEDLESS in str(node.args[1]):
                    part.graph.erase_node(node)
    return program


def write_program(program: ExportedProgram, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a ``.pt2`` file, which holds the facts as `FACTS_FILE` too."""
    with silenced(*_EXPORTERS):
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(facts, ensure_ascii=False)})


def read_program(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a ``.pt2`` file and its facts.

    Read only files that you trust: torch unpickles parts of them.
    """
    extra = {FACTS_FILE: ""}
    with silenced(*_EXPORTERS):
        program = torch.export.load(path, extra_files=extra)
    facts: dict[str, Any] = json.loads(extra[FACTS_FILE])
    return program.module(), facts


def write_onnx(program: ExportedProgram, path: Path, facts: Mapping[str, Any]) -> None:
    """Write ONNX in one file, from 2 GB on with the weights in ``path.data`` beside it.

    Args:
        program: Of `trace`, `trace_texts` or `trace_speech`.
        path: To write to.
        facts: Of `exported_facts`; stored in ``metadata_props``.

    Raises:
        ExportError: If an operation of the network has no form in ONNX, or a package is missing.
    """
    onnx = import_package("onnx")
    import_package("onnxscript")
    inputs, outputs = _names(program)
    try:
        with torch.no_grad(), silenced(*_EXPORTERS):
            exported = torch.onnx.export(
                program.run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: _global_max}),
                dynamo=True, input_names=list(inputs), output_names=list(outputs), opset_version=OPSET, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises many kinds
        raise ExportError(f"torch.onnx.export cannot write the network: {_first_lines(error)}") from error
    if exported is None:  # only for the exporter without dynamo
        raise ExportError("torch.onnx.export returned nothing.")
    model: Any = exported.model
    _clean(model)
    model.metadata_props.update(to_properties(facts))
    model.producer_name = f"lightning-transfer {facts['version']}, pytorch"
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    exported.save(str(path), external_data=size > _EMBEDDED_BYTES)
    onnx.checker.check_model(str(path))


def _names(program: ExportedProgram) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names of inputs and outputs: those of speech are what the network calls its arguments."""
    given = tuple(program.graph_signature.user_inputs)
    if given[0] in _SPEECH_INPUTS:
        return given, SPEECH_OUTPUTS
    return (TEXT_INPUTS, TEXT_OUTPUTS) if len(given) == len(TEXT_INPUTS) else ((INPUT,), (OUTPUT,))


def _global_max(images: Tensor, size: list[int]) -> Any:  # noqa: ANN401 - a pair of tensors, or NotImplemented
    """Say in operations that ONNX has what it has no single one for."""
    if list(size) != [1, 1]:
        return NotImplemented
    highest = images.amax(dim=(-2, -1), keepdim=True)
    return highest, torch.zeros_like(highest, dtype=torch.int64)  # places, which pooling networks do not read


def _clean(model: Any) -> None:  # noqa: ANN401 - onnx_ir.Model
    """Remove what the exporter notes of the source code, and give the free axes their names."""
    for graph in model.graphs():
        graph.metadata_props.clear()
        graph.doc_string = None
        values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            values += node.outputs
        for value in values:
            value.metadata_props.clear()
            value.doc_string = None
    speech = any(value.name in _SPEECH_INPUTS for value in model.graph.inputs)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape[0] = _BATCH
        if value in model.graph.inputs and value.name != INPUT:
            value.shape[1] = _TIME if speech else _SEQUENCE
        elif speech and value.name == OUTPUT:
            value.shape[1] = _FRAMES
    model.metadata_props.clear()
    model.doc_string = None


def _first_lines(error: Exception, limit: int = 300) -> str:
    """Return what is said first, and by the error that it came from: torch's own texts fill pages."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text if len(text) <= limit else text[:limit] + '...'}"
