"""The reference file: found beside the checkpoint wherever that is, whole, and the right one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from lightning_transfer.callbacks.forgetting_compare import Outputs
from lightning_transfer.callbacks.forgetting_probe import Probe
from lightning_transfer.callbacks.forgetting_store import (
    load_reference,
    pack_reference,
    store_folders,
)
from lightning_transfer.errors import CheckpointError

PROBES = [Probe("a", False, [], None, "ab" * 32), Probe("b", True, [], None, "cd" * 32)]
OUTPUTS = {
    "a": Outputs(torch.randn(4, 3), torch.randn(4, 2)),
    "b": Outputs(torch.randn(5, 3).double(), torch.randn(5, 2)),
}
FEATURES = {"a": ("features",), "b": ("features",)}
BOTH = {"a": ("features", "logits"), "b": ("features", "logits")}


def test_round_trip_is_exact_and_named_by_its_hash(tmp_path):
    packed = pack_reference(OUTPUTS, PROBES)
    packed.write([str(tmp_path / "one"), str(tmp_path / "two")])
    assert (tmp_path / "one" / packed.name).read_bytes() == (tmp_path / "two" / packed.name).read_bytes()
    assert set(load_file(tmp_path / "one" / packed.name)) >= {"a.features", "a.logits", "b.features"}
    folders = [str(tmp_path / "none"), str(tmp_path / "two")]
    _, outputs = load_reference(packed.name, packed.sha256, folders, PROBES, BOTH)
    for name, expected in OUTPUTS.items():
        assert torch.equal(outputs[name].features, expected.features)
        assert outputs[name].features.dtype == expected.features.dtype
        assert torch.equal(outputs[name].logits, expected.logits)
    assert pack_reference(OUTPUTS, PROBES).name == packed.name


def test_what_does_not_fit(tmp_path):
    packed = pack_reference({name: Outputs(item.features) for name, item in OUTPUTS.items()}, PROBES)
    folder = [str(tmp_path)]
    with pytest.raises(CheckpointError, match=rf"`{packed.name}`, is missing; looked in {tmp_path}"):
        load_reference(packed.name, packed.sha256, folder, PROBES, FEATURES)
    packed.write(folder)
    with pytest.raises(CheckpointError, match="without a source head"):
        load_reference(packed.name, packed.sha256, folder, PROBES, BOTH)
    with pytest.raises(CheckpointError, match=rf"begins with {packed.sha256[:12]}, the checkpoint's with 000000000000"):
        load_reference(packed.name, "0" * 64, folder, PROBES, FEATURES)
    with pytest.raises(CheckpointError, match=r"no probe `c`; it holds \['a', 'b'\]"):
        load_reference(packed.name, packed.sha256, folder, [Probe("c", False, [], None, "ab")], FEATURES)
    with pytest.raises(CheckpointError, match=r"probe `a` are not those.*now 012345012345"):
        load_reference(packed.name, packed.sha256, folder, [Probe("a", False, [], None, "012345" * 10)], FEATURES)


def trainer(*dirpaths, ckpt_path=None):
    savers = [SimpleNamespace(dirpath=path) for path in dirpaths]
    return SimpleNamespace(checkpoint_callbacks=savers, ckpt_path=ckpt_path, default_root_dir="/root")


def test_folders():
    assert store_folders(trainer("/x", "/y", None, "/x")) == ["/x", "/y"]
    assert store_folders(trainer(None)) == ["/root"]
    resumed = trainer("/x", ckpt_path="/old/run/checkpoints/deep/last.ckpt")
    assert store_folders(resumed, resumed=True) == [
        "/old/run/checkpoints/deep",
        "/old/run/checkpoints",
        "/old/run",
        "/x",
        "/root",
    ]
    assert store_folders(trainer("/x", ckpt_path="last.ckpt"), resumed=True)[0] == "."
    assert store_folders(trainer("/x"), resumed=True) == ["/x", "/root"]


def test_a_store_that_is_no_local_disk(tmp_path):
    import fsspec

    packed = pack_reference(OUTPUTS, PROBES)
    packed.write(["memory://bucket/run"])
    assert fsspec.filesystem("memory").exists(f"/bucket/run/{packed.name}")
    load_reference(packed.name, packed.sha256, ["memory://bucket/run"], PROBES, BOTH)
