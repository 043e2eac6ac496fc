import logging
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import lightning_transfer
from lightning_transfer.backbones import load_backbone
from lightning_transfer.export import ExportError, exported_network
from lightning_transfer.export.facts import to_properties
from lightning_transfer.export.network import _TextClassifier
from lightning_transfer.export.program import (
    OPSET,
    read_program,
    trace,
    trace_speech,
    trace_texts,
    write_onnx,
    write_program,
)
from lightning_transfer.export.text_batches import padded
from tests.unit.export.export_toys import SIZE, normal_only
from tests.unit.export.speech_toys import KINDS, preprocessing, recogniser, sound
from tests.unit.export.text_toys import tokenizer

IMAGES = torch.randn(40, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def run(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_onnx_says_what_torch_says_for_a_batch_of_any_size(exported, size):
    expected = exported.module(IMAGES[:size]).detach()
    torch.testing.assert_close(run(exported.onnx, IMAGES[:size]), expected, rtol=0, atol=1e-4)


def test_a_memory_of_patches_is_written(tmp_path, exported):
    module = normal_only()
    write_onnx(trace(exported_network(module), (3, *SIZE)), tmp_path / "model.onnx", exported.facts)
    for size in (1, 30):
        found = run(tmp_path / "model.onnx", IMAGES[:size])
        torch.testing.assert_close(found, module(IMAGES[:size]), rtol=1e-4, atol=1e-4)


def test_names_axes_opset_and_facts_are_in_the_file(exported):
    model = onnx.load(exported.onnx)
    onnx.checker.check_model(model, full_check=True)
    [images], [logits] = model.graph.input, model.graph.output
    shape = [item.dim_param or item.dim_value for item in images.type.tensor_type.shape.dim]
    assert (images.name, shape) == ("images", ["batch", 3, *SIZE])
    assert (logits.name, logits.type.tensor_type.shape.dim[0].dim_param) == ("logits", "batch")
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    assert {item.key: item.value for item in model.metadata_props} == to_properties(exported.facts)
    assert not list(exported.folder.glob("model.onnx.data"))
    floats = sum(tensor.numel() for name, tensor in exported.program.state_dict.items())
    assert exported.onnx.stat().st_size < 4 * floats + 50_000


def test_no_file_tells_where_it_was_made(exported, tmp_path):
    write_program(exported.program, tmp_path / "model.pt2", exported.facts)
    package = str(Path(lightning_transfer.__file__).parent).encode()
    for path in (exported.onnx, tmp_path / "model.pt2"):
        content = path.read_bytes()
        for trace_of in (package, b"site-packages", b"stack_trace", str(Path.home()).encode() + b"/"):
            assert trace_of not in content, (path.name, trace_of)


@pytest.mark.parametrize("size", [1, 7])
def test_a_program_reads_back_and_says_the_same(exported, tmp_path, size):
    write_program(exported.program, tmp_path / "model.pt2", exported.facts)
    network, facts = read_program(tmp_path / "model.pt2")
    assert facts == exported.facts
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES[:size]), exported.module(IMAGES[:size]), rtol=0, atol=1e-6)


class Pooled(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, images):
        return nn.functional.adaptive_max_pool2d(images, self.size).flatten(1)


def test_a_global_maximum_is_written_though_onnx_has_none(tmp_path, exported):
    write_onnx(trace(Pooled(1).eval(), (3, *SIZE)), tmp_path / "model.onnx", exported.facts)
    torch.testing.assert_close(run(tmp_path / "model.onnx", IMAGES), IMAGES.amax(dim=(2, 3)), rtol=0, atol=0)


def test_what_onnx_has_no_operation_for_is_an_error_in_one_line(tmp_path, exported):
    with pytest.raises(ExportError, match=r"cannot write the network: .*adaptive_max_pool2d") as caught:
        write_onnx(trace(Pooled((5, 3)).eval(), (3, *SIZE)), tmp_path / "model.onnx", exported.facts)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


class Moody(nn.Module):
    def forward(self, images):
        return images.flatten(1) if images.sum() > 0 else -images.flatten(1)


def test_a_network_whose_steps_depend_on_the_pixels_is_refused():
    with pytest.raises(ExportError, match=r"torch.export cannot trace the network: \w+: "):
        trace(Moody().eval(), (3, *SIZE))


def test_large_weights_get_a_file_of_their_own(tmp_path, exported, monkeypatch):
    monkeypatch.setattr("lightning_transfer.export.program._EMBEDDED_BYTES", 1000)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 50)).eval()
    write_onnx(trace(network, (3, *SIZE)), tmp_path / "model.onnx", exported.facts)
    assert (tmp_path / "model.onnx.data").stat().st_size >= 4 * 3 * SIZE[0] * SIZE[1] * 50
    assert (tmp_path / "model.onnx").stat().st_size < 50_000
    torch.testing.assert_close(run(tmp_path / "model.onnx", IMAGES), network(IMAGES).detach(), rtol=0, atol=1e-4)


def test_log_levels_are_put_back(exported, tmp_path):
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        write_program(exported.program, tmp_path / "model.pt2", exported.facts)
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(before)


def rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[2, *torch.randint(4, 28, (length,), generator=generator).tolist(), 3] for length in lengths]


LENGTHS = [(0,), (1,), (22,), (5, 5, 5), (0, 22, 3, 9), (22,) * 7, tuple(range(20)) * 2]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_texts_of_any_number_and_length_get_the_logits_and_features_of_torch(exported_texts, lengths):
    inputs = padded(rows(*lengths), pad_id=0)
    session = onnxruntime.InferenceSession(str(exported_texts.onnx), providers=["CPUExecutionProvider"])
    logits, features = map(torch.from_numpy, session.run(["logits", "features"], inputs))
    module = exported_texts.module
    with torch.no_grad():
        expected = module.features({name: torch.from_numpy(values) for name, values in inputs.items()})
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, module.head(expected), rtol=1e-4, atol=1e-5)


def test_a_text_does_not_know_what_it_is_padded_with(exported_texts):
    session = onnxruntime.InferenceSession(str(exported_texts.onnx), providers=["CPUExecutionProvider"])
    alone = session.run(["logits"], padded(rows(4), 0))[0]
    for other, pad_id in ((0, 0), (22, 0), (22, 17)):
        together = session.run(["logits"], padded([*rows(4), *rows(other, seed=1)], pad_id))[0]
        assert abs(together[0] - alone[0]).max() < 1e-5


def test_the_graph_of_texts_says_its_free_axes_and_types(exported_texts):
    model = onnx.load(exported_texts.onnx)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "logits": ["batch", 3],
        "features": ["batch", 16],
    }
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {onnx.TensorProto.INT64}
    assert str(Path(lightning_transfer.__file__).parent).encode() not in exported_texts.onnx.read_bytes()


def test_a_program_of_texts_reads_back_and_says_the_same(exported_texts, tmp_path):
    write_program(exported_texts.program, tmp_path / "model.pt2", exported_texts.facts)
    network, facts = read_program(tmp_path / "model.pt2")
    assert facts == exported_texts.facts
    for lengths in ((3,), (0, 22, 3)):
        inputs = {name: torch.from_numpy(values) for name, values in padded(rows(*lengths), 0).items()}
        with torch.no_grad():
            torch.testing.assert_close(network(*inputs.values())[0], exported_texts.module(inputs), rtol=0, atol=1e-6)


_SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_ROBERTA = {**_SHAPE, "max_position_embeddings": 66, "pad_token_id": 1, "type_vocab_size": 1}
FAMILIES = {
    "RobertaConfig": _ROBERTA,
    "XLMRobertaConfig": _ROBERTA,
    "ModernBertConfig": {**_SHAPE, "local_attention": 8, "global_attn_every_n_layers": 2, "pad_token_id": 0,
                         "max_position_embeddings": 64},
    "DistilBertConfig": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64},
    "MPNetConfig": {**_ROBERTA, "bos_token_id": 0},
    "DebertaV2Config": {**_SHAPE, "max_position_embeddings": 64, "pad_token_id": 0, "relative_attention": True,
                        "pos_att_type": ["p2c", "c2p"]},
    "ElectraConfig": {**_SHAPE, "max_position_embeddings": 64, "embedding_size": 16, "pad_token_id": 0},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_of_encoders_too(exported_texts, tmp_path, family):
    """With the padding token of each, which some count their positions by."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, family)(vocab_size=40, **FAMILIES[family])
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer().save(str(tmp_path / "model" / "tokenizer.json"))
    backbone, _ = load_backbone(str(tmp_path / "model"))
    head = nn.Linear(16, 3)
    program = trace_texts(_TextClassifier(backbone, head).eval().requires_grad_(False), 24)
    write_onnx(program, tmp_path / "model.onnx", exported_texts.facts)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for lengths in LENGTHS:
        inputs = padded(rows(*lengths), pad_id=getattr(config, "pad_token_id", None) or 0)
        found = torch.from_numpy(session.run(["logits"], inputs)[0])
        with torch.no_grad():
            expected = head(backbone.eval()({name: torch.from_numpy(values) for name, values in inputs.items()}))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def sounds(module, *seconds):
    spec = preprocessing(module)
    batch = spec.collate([spec.features(sound(length, place)) for place, length in enumerate(seconds)])
    return {name: values.numpy() for name, values in batch.items()}


def check_speech(path, network, module):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for seconds in ((0.1,), (0.2,), (1.0,), (4.1,), (0.5, 2.0), (1.0,) * 3, (3.3, 0.15, 1.1, 0.7, 2.0)):
        inputs = sounds(module, *seconds)
        given = {name: torch.from_numpy(values) for name, values in inputs.items()}
        with torch.no_grad():
            wanted = module(given)
            traced = network(*given.values())
        logits, lengths = map(torch.from_numpy, session.run(["logits", "lengths"], inputs))
        assert lengths.tolist() == traced[1].tolist() == wanted.lengths.tolist()
        for found in (logits, traced[0]):
            for row, expected, length in zip(found, wanted.logits, lengths, strict=True):
                torch.testing.assert_close(row[:length], expected[:length], rtol=1e-4, atol=1e-4)


def test_speech_of_any_number_and_length_gets_the_logits_of_torch(exported_speech, tmp_path):
    write_program(exported_speech.program, tmp_path / "model.pt2", exported_speech.facts)
    network, facts = read_program(tmp_path / "model.pt2")
    assert facts == exported_speech.facts
    check_speech(exported_speech.onnx, network, exported_speech.module)


def test_the_graph_of_speech_says_its_free_axes_and_types(exported_speech):
    model = onnx.load(exported_speech.onnx)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "input_features": ["batch", "time", 40],
        "attention_mask": ["batch", "time"],
        "logits": ["batch", "frames", 12],
        "lengths": ["batch"],
    }
    assert not [node.op_type for node in model.graph.node if "Random" in node.op_type]
    assert str(Path(lightning_transfer.__file__).parent).encode() not in exported_speech.onnx.read_bytes()
    assert [item.version for item in model.opset_import if not item.domain] == [OPSET]


class Fixed(nn.Module):
    """Adds a place of its own to each step, for one number of steps."""

    def forward(self, input_features, attention_mask):
        places = torch.arange(47.0)[None, :, None]
        return input_features + places, attention_mask.sum(dim=1)


def test_a_network_for_one_length_is_refused():
    with pytest.raises(ExportError, match="for sound of any length: `input_features` would always have 47 steps"):
        trace_speech(Fixed().eval(), 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "conformer"])
def test_other_families_of_speech_encoders_too(tmp_path, kind):
    module = recogniser(kind)
    width = 40 if "conformer" in kind else None
    program = trace_speech(exported_network(module), width)
    write_onnx(program, tmp_path / "model.onnx", {"version": "0"})
    write_program(program, tmp_path / "model.pt2", {})
    check_speech(tmp_path / "model.onnx", read_program(tmp_path / "model.pt2")[0], module)
    [given] = [value for value in onnx.load(tmp_path / "model.onnx").graph.input if value.name != "attention_mask"]
    assert given.name == ("input_features" if width else "input_values")
