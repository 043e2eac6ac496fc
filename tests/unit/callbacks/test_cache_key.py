"""A key changes with each thing that activations depend on, and with nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_transfer.backbones.find_cut import find_cut
from lightning_transfer.callbacks.cache_key import cache_key, hash_records, hash_tensors, prefix_tensors
from lightning_transfer.types import Record
from tests.unit.backbones.cut_toys import image_backbone


def key(backbone: Any, open_from: int = 4, **facts: Any) -> str:
    above = {id(v) for number in range(open_from, 5) for v in getattr(backbone, f"layer{number}").parameters()}
    cut = find_cut(backbone, torch.zeros(2, 3, 64, 64), above, rows=2)
    return cache_key(cut, weights=hash_tensors(prefix_tensors(backbone, cut)), data="d", facts=facts)


def test_weights_and_buffers_before_the_cut_count_and_those_behind_do_not() -> None:
    backbone, _ = image_backbone("timm/test_resnet")
    first = key(backbone)
    assert key(backbone) == first
    for tensor, counts in (
        (backbone.layer1[0].conv1.weight, True),
        (backbone.layer2[0].bn1.running_mean, True),
        (backbone.layer4[0].conv1.weight, False),
        (backbone.layer4[0].bn1.running_mean, False),
    ):
        before = tensor.detach().clone()
        with torch.no_grad():
            tensor.view(-1)[0] += 1
        assert (key(backbone) != first) == counts
        with torch.no_grad():
            tensor.copy_(before)
    assert key(backbone) == first
    assert key(backbone, open_from=3) != first
    assert key(backbone, dtype="float16") != key(backbone, dtype=None)


def test_loose_weights_around_the_layers_count() -> None:
    backbone, size = image_backbone("timm/test_vit")
    cut = find_cut(backbone, torch.zeros(2, *size), {id(v) for v in backbone.blocks[3].parameters()}, rows=2)
    names = set(prefix_tensors(backbone, cut))
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.2.mlp.fc1.weight"} <= names
    assert not any(name.startswith("blocks.4") for name in names)


def test_files_texts_and_arrays_count(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    rows = [Record("1", file, "a"), Record("2", "some text", "b"), Record("3", np.zeros(3), "c")]
    first = hash_records(rows)
    assert hash_records(rows) == first
    assert hash_records(rows, [0, 1]) != first
    assert hash_records([rows[0], rows[1], Record("3", np.ones(3), "c")]) != first
    assert hash_records([rows[0], Record("2", "other text", "b"), rows[2]]) != first
    file.write_bytes(b"two!")
    changed = hash_records(rows)
    assert changed != first
    os.utime(file, ns=(1, 1))
    assert hash_records(rows) != changed


def test_tensors_are_hashed_by_bits() -> None:
    half = torch.tensor([1.0], dtype=torch.bfloat16)
    assert hash_tensors({"a": half}) != hash_tensors({"a": half.half()})
    assert hash_tensors({"a": torch.zeros(0)}) != hash_tensors({"b": torch.zeros(0)})
    assert hash_tensors({"a": torch.tensor([0.0])}) != hash_tensors({"a": torch.tensor([-0.0])})
