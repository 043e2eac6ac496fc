"""Reading weights files safely, and filling networks strictly."""

import logging
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_transfer.backbones.weights_file import extract_head, fill, read_weights
from lightning_transfer.errors import BackboneError


class Foreign:
    """Not a tensor: a class that only this test file knows."""


class Harmful:
    """Would write a file when unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


def network(head: bool = True) -> nn.Sequential:
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), pool=nn.AdaptiveAvgPool2d(1))
    layers |= OrderedDict(flat=nn.Flatten(), fc=nn.Linear(4, 7) if head else nn.Identity())
    return nn.Sequential(layers)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize("format_", ["safetensors", "torch", "old torch"])
def test_the_format_is_told_by_the_content(tmp_path, suffix, format_):
    if suffix == ".safetensors" and format_ != "safetensors":
        pytest.skip("a safetensors suffix is taken at its word")
    state = network().state_dict()
    path = tmp_path / f"weights{suffix}"
    if format_ == "safetensors":
        save_file(dict(state), path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=format_ == "torch")
    read = read_weights(path)
    assert set(read) == set(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "model", "net"])
def test_the_state_dict_in_a_training_checkpoint_is_found(tmp_path, container):
    state = network().state_dict()
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, container: state, "optimizer": {"lr": 0.1}}, path)
    assert set(read_weights(path)) == set(state)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    path, target = tmp_path / "weights.pth", tmp_path / "written"
    torch.save({"state_dict": network().state_dict(), "extra": Harmful(target)}, path)
    with pytest.raises(BackboneError, match=r"weights\.pth` holds more than tensors.*It was not read.*safetensors"):
        read_weights(path)
    assert not target.exists()


def test_a_foreign_class_is_named(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": network().state_dict(), "args": Foreign()}, path)
    with pytest.raises(BackboneError, match="Foreign"):
        read_weights(path)


@pytest.mark.parametrize(
    "content", [b"", b"not weights at all", b"PK\x03\x04 broken", b"\x10\x00\x00\x00\x00\x00\x00\x00{bad"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_named(tmp_path, content, suffix):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=rf"damaged{suffix}` is (empty|damaged|no valid)"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    state = dict(network().state_dict())
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BackboneError, match=rf"cut{suffix}` is (damaged|no valid)"):
        read_weights(path)


def test_a_zip_of_something_else_is_named(tmp_path):
    path = tmp_path / "photos.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.txt", "no weights")
    with pytest.raises(BackboneError, match=r"photos\.pth` is damaged or no torch file"):
        read_weights(path)


def test_a_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"weights": Foreign()}))
    with pytest.raises(BackboneError, match=r"model\.pth"):
        read_weights(path)


def test_a_file_without_tensors_lists_what_it_holds(tmp_path):
    path = tmp_path / "settings.pth"
    torch.save({"epoch": 3, "lr": 0.1}, path)
    with pytest.raises(BackboneError, match="holds no weights: found the keys epoch, lr"):
        read_weights(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BackboneError, match=r"No weights file at .*nowhere\.pth"):
        read_weights(tmp_path / "nowhere.pth")


def test_nan_in_the_weights_is_found(tmp_path):
    state = dict(network().state_dict())
    state["conv.weight"] = state["conv.weight"].clone()
    state["conv.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(BackboneError, match=r"NaN in conv\.weight"):
        read_weights(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.backbone."])
def test_wrapper_prefixes_are_found_and_the_old_head_is_reported(prefix, caplog):
    whole, backbone = network(), network(head=False)
    state = {f"{prefix}{key}": tensor for key, tensor in whole.state_dict().items()}
    report = fill(backbone, state, origin="file", head=["fc"])
    image = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(whole.fc(backbone(image)), whole(image))
    assert report.head == (f"{prefix}fc.weight", f"{prefix}fc.bias")
    assert len(report.kept) + len(report.head) == len(state)
    with caplog.at_level(logging.INFO):
        report.log("file")
    assert f"left out the old head: {prefix}fc.weight, {prefix}fc.bias" in caplog.text
    assert "kept 7 tensors" in caplog.text


def test_what_stands_beside_the_backbone_is_dropped_aloud(caplog):
    backbone = network(head=False)
    state = {f"backbone.{key}": tensor for key, tensor in backbone.state_dict().items()}
    state |= {"head.weight": torch.zeros(2, 4), "loss.weight": torch.zeros(2)}
    report = fill(backbone, state, origin="file")
    assert report.head == ("head.weight",)
    assert report.outside == ("loss.weight",)
    with caplog.at_level(logging.WARNING):
        report.log("file")
    assert "loss.weight" in caplog.text


def test_every_tensor_of_the_file_is_accounted_for():
    backbone = network(head=False)
    state = {f"m.{key}": tensor for key, tensor in network().state_dict().items()} | {"x": torch.zeros(1)}
    report = fill(backbone, state, origin="file", head=["fc"])
    assert sorted([*(report.prefix + key for key in report.kept), *report.head, *report.outside]) == sorted(state)


def test_missing_tensors_are_an_error():
    state = network().state_dict()
    del state["norm.weight"]
    with pytest.raises(BackboneError, match=r"`cut` do not fit `timm/x`: missing 1 of 7 \(norm\.weight\)"):
        fill(network(head=False), state, origin="cut", head=["fc"], architecture="timm/x")


def test_other_shapes_are_an_error():
    state = network().state_dict()
    state["conv.weight"] = torch.zeros(4, 1, 3, 3)
    with pytest.raises(BackboneError, match=r"conv\.weight is \(4, 1, 3, 3\), expected \(4, 3, 3, 3\)"):
        fill(network(head=False), state, origin="file", head=["fc"])


def test_tensors_of_another_network_are_an_error():
    state = network().state_dict() | {"layer9.weight": torch.zeros(1)}
    with pytest.raises(BackboneError, match=r"unknown 1 \(layer9\.weight\)"):
        fill(network(head=False), state, origin="file", head=["fc"])


def test_an_unnamed_head_is_an_error_not_a_silent_drop():
    with pytest.raises(BackboneError, match=r"unknown 2 \(fc\.weight, fc\.bias\)"):
        fill(network(head=False), network().state_dict(), origin="file")


def test_old_files_without_batch_counters_load():
    state = {key: tensor for key, tensor in network().state_dict().items() if "num_batches" not in key}
    assert "norm.num_batches_tracked" not in fill(network(head=False), state, origin="file", head=["fc"]).kept


def test_the_head_is_extracted_frozen():
    whole = network()
    head = extract_head(
        {f"module.{key}": item for key, item in whole.state_dict().items()}, network(head=False), ["fc"]
    )
    assert head is not None
    assert torch.equal(head.weight, whole.fc.weight)
    assert torch.equal(head.bias, whole.fc.bias)
    assert not head.training
    assert not any(item.requires_grad for item in head.parameters())


def test_a_pointwise_convolution_is_a_linear_head_and_a_wider_one_is_none():
    backbone = network(head=False)
    state = dict(backbone.state_dict())
    head = extract_head({**state, "fc.weight": torch.ones(7, 4, 1, 1)}, backbone, ["fc"])
    assert head is not None
    assert head.weight.shape == (7, 4)
    assert extract_head({**state, "fc.weight": torch.ones(7, 4, 3, 3)}, backbone, ["fc"]) is None
    assert extract_head(state, backbone, ["fc"]) is None
