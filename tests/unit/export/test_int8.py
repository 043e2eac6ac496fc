import json
import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from lightning_transfer.export.int8 import METHOD, TEXT_METHOD, quantise, quantise_texts
from lightning_transfer.export.predict_onnx_speech import Model
from lightning_transfer.export.text_batches import padded
from tests.unit.export.export_toys import SIZE
from tests.unit.export.speech_toys import sound

RNG = np.random.default_rng(0)
BATCHES = [RNG.normal(size=(8, 3, *SIZE)).astype(np.float32) for _ in range(4)]


@pytest.fixture(scope="module")
def twin(exported):
    before = logging.getLogger().level
    path = exported.folder / "model_int8.onnx"
    quantise(exported.onnx, path, iter(BATCHES), exported.facts)
    assert logging.getLogger().level == before
    return path


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


@pytest.mark.parametrize("size", [1, 8])
def test_the_twin_is_near_the_float_model_and_no_copy_of_it(exported, twin, size):
    images = np.concatenate(BATCHES)
    exact = exported.module(torch.from_numpy(images)).detach().numpy()
    found = np.concatenate([run(twin, images[start : start + size]) for start in range(0, len(images), size)])
    assert 1e-4 < np.abs(found - exact).max() < exact.std()
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.97


def test_weights_are_8_bit_by_channel_and_the_file_is_smaller(exported, twin):
    model = onnx.load(twin)
    kinds = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    made_by = {node.output[0]: node for node in model.graph.node}
    assert convolutions
    for node in convolutions:
        weight = made_by[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert kinds[weight.input[0]].data_type == onnx.TensorProto.INT8
        assert list(kinds[weight.input[1]].dims) == [kinds[weight.input[0]].dims[0]]  # a scale for each channel
    assert twin.stat().st_size < 0.5 * exported.onnx.stat().st_size


def test_the_facts_and_the_method_are_in_the_file(exported, twin):
    stored = onnxruntime.InferenceSession(str(twin)).get_modelmeta().custom_metadata_map
    facts = {
        key.removeprefix("lightning_transfer."): json.loads(value)
        for key, value in stored.items()
        if key.startswith("lightning_transfer.")
    }
    assert facts == {**exported.facts, "quantisation": METHOD}


def test_the_ranges_come_from_the_samples(exported, twin, tmp_path):
    """Ranges of black pictures do not cover real ones."""
    quantise(exported.onnx, tmp_path / "black.onnx", [np.zeros((2, 3, *SIZE), np.float32)], exported.facts)
    images = np.concatenate(BATCHES)
    exact = exported.module(torch.from_numpy(images)).detach().numpy()
    errors = {path: np.abs(run(path, images) - exact).mean() for path in (twin, tmp_path / "black.onnx")}
    assert errors[tmp_path / "black.onnx"] > 3 * errors[twin]


def test_only_the_operations_that_are_asked_for(exported, tmp_path):
    quantise(exported.onnx, tmp_path / "model.onnx", BATCHES, exported.facts, ["Conv"])
    model = onnx.load(tmp_path / "model.onnx")
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    [head] = [node for node in model.graph.node if node.op_type == "Gemm"]
    assert stored[head.input[1]] == onnx.TensorProto.FLOAT
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


@pytest.fixture(scope="module")
def text_twin(exported_texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("twin") / "model_int8.onnx"
    quantise_texts(exported_texts.onnx, path, exported_texts.facts)
    return path


def test_products_of_texts_are_8_bit_by_channel_and_the_rest_is_float(exported_texts, text_twin):
    model = onnx.load(text_twin)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    # Six linear layers in each of two blocks, and the head.
    assert len(products) == 13
    for node in products:
        assert stored[node.input[1]].data_type == onnx.TensorProto.INT8
        assert list(stored[node.input[3]].dims) == [stored[node.input[1]].dims[1]]  # a zero point for each channel
    # Products of activations, in attention, are none of weights.
    assert all(node.input[1] not in stored for node in model.graph.node if node.op_type == "MatMul")


def test_the_twin_of_texts_is_near_the_float_model_and_no_copy_of_it(exported_texts, text_twin):
    rng = np.random.default_rng(0)
    rows = [[2, *rng.integers(4, 28, length), 3] for length in rng.integers(0, 22, 60)]
    logits = {}
    for path in (exported_texts.onnx, text_twin):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        logits[path] = session.run(["logits"], padded(rows, 0))[0]
    exact, found = logits.values()
    assert 1e-4 < np.abs(found - exact).max() < exact.std()
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.97
    stored = onnxruntime.InferenceSession(str(text_twin)).get_modelmeta().custom_metadata_map
    assert json.loads(stored["lightning_transfer.quantisation"]) == TEXT_METHOD
    assert json.loads(stored["lightning_transfer.preprocessing"]) == exported_texts.facts["preprocessing"]


def test_recognisers_too_and_their_convolutions_stay_float(exported_speech, tmp_path):
    quantise_texts(exported_speech.onnx, tmp_path / "int8.onnx", exported_speech.facts)
    operations = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert "MatMulInteger" in operations
    assert "Conv" in operations
    assert not any("QLinearConv" in name or name == "ConvInteger" for name in operations)
    exact, rounded = Model(exported_speech.onnx), Model(tmp_path / "int8.onnx")
    assert rounded.facts["quantisation"] == TEXT_METHOD
    inputs = exact.batch([exact.prepared(sound(1.0, seed)) for seed in range(3)])
    ours, theirs = np.concatenate(exact.run(inputs)), np.concatenate(rounded.run(inputs))
    assert 1e-4 < np.abs(ours - theirs).max()
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98
