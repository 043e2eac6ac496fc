"""The file of pretrained weights: exact, whole, found again, and never mixed up with another run's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lightning_transfer.callbacks.forgetting_pretrained import PretrainedFile
from lightning_transfer.errors import CheckpointError

WEIGHTS = {
    "backbone.weight": torch.randn(3, 4).bfloat16(),
    "backbone.scale": torch.tensor(2.0),
    "backbone.none": torch.zeros(0, 3),
    "backbone.count": torch.tensor([3]),
}


def trainer(folder, ckpt_path=None, local_rank=0):
    return SimpleNamespace(
        checkpoint_callbacks=[SimpleNamespace(dirpath=str(folder))],
        ckpt_path=ckpt_path,
        default_root_dir=str(folder),
        local_rank=local_rank,
        strategy=SimpleNamespace(barrier=lambda name: None),
    )


def test_round_trip_is_exact(tmp_path):
    file = PretrainedFile()
    file.write(trainer(tmp_path), WEIGHTS, {"backbone.norm": 3})
    content = file.read()
    assert content["batches"] == {"backbone.norm": 3}
    assert content["weights"].keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert torch.equal(content["weights"][name], value)
        assert content["weights"][name].dtype == value.dtype
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_other_weights_have_another_file_and_the_same_ones_the_same(tmp_path):
    names = []
    for scale in (1.0, 1.0, 2.0):
        file = PretrainedFile()
        file.write(trainer(tmp_path), {**WEIGHTS, "backbone.scale": torch.tensor(scale)}, {})
        names.append(file.name)
    assert names[0] == names[1] != names[2]
    assert len(list(tmp_path.iterdir())) == 2


def test_one_process_of_a_node_writes(tmp_path):
    PretrainedFile().write(trainer(tmp_path, local_rank=1), WEIGHTS, {})
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_copies_it_and_a_missing_one_is_an_error(tmp_path):
    first = PretrainedFile()
    first.write(trainer(tmp_path / "old"), WEIGHTS, {})
    resumed = trainer(tmp_path / "new", ckpt_path=str(tmp_path / "old" / "last.ckpt"))
    again = PretrainedFile(first.name)
    again.find(resumed)
    copy = tmp_path / "new" / first.name
    assert copy.read_bytes() == (tmp_path / "old" / first.name).read_bytes()
    assert torch.equal(again.read()["weights"]["backbone.count"], torch.tensor([3]))
    again.remove(resumed)
    assert not copy.exists()
    assert (tmp_path / "old" / first.name).exists()
    with pytest.raises(CheckpointError, match=r"pretrained weights, `.*new.*`, are missing"):
        again.read()
    with pytest.raises(CheckpointError, match=r"`forgetting_pretrained-gone\.pt`, are missing; looked in .*old"):
        PretrainedFile("forgetting_pretrained-gone.pt").find(resumed)


def test_in_an_object_store(tmp_path):
    file = PretrainedFile()
    file.write(trainer("memory://run/checkpoints"), WEIGHTS, {})
    again = PretrainedFile(file.name)
    again.find(trainer("memory://other", ckpt_path="memory://run/checkpoints/last.ckpt"))
    assert torch.equal(again.read()["weights"]["backbone.weight"], WEIGHTS["backbone.weight"])
    again.remove(trainer("memory://other"))
    file.remove(trainer("memory://run/checkpoints"))
    with pytest.raises(CheckpointError, match="are missing"):
        file.read()
