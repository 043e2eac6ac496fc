import logging
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import lightning_transfer
from lightning_transfer.export import ExportError, exported_network
from lightning_transfer.export.facts import to_properties
from lightning_transfer.export.program import OPSET, read_program, trace, write_onnx, write_program
from tests.unit.export.export_toys import SIZE, normal_only

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
