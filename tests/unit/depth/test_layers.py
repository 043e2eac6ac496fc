from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_transfer.depth import Layer, resolve_depth
from lightning_transfer.depth.layers import Index, plain_name
from tests.unit.depth.families import PlainProject


def test_names_lead_to_the_parameters_of_a_copy() -> None:
    project = PlainProject()
    depth_map = resolve_depth(project)
    twin = copy.deepcopy(project)
    found = depth_map.named_parameters(twin, depth_map.groups[1])
    assert [name for name, _ in found] == list(depth_map.groups[1].parameters)
    assert found[0][1] is twin.model.blocks[0][0].weight


def test_names_from_before_a_compilation_lead_to_what_is_there_after_it() -> None:
    project = PlainProject()
    depth_map = resolve_depth(project)
    project.model = torch.compile(project.model)
    group = depth_map.groups[1]
    assert depth_map.named_parameters(project, group)[0][0] == "model._orig_mod.blocks.0.0.weight"
    assert "model._orig_mod.blocks.0.0" in [name for name, _ in depth_map.named_modules(project, group)]
    wrappers = [name for name, _ in depth_map.named_modules(project, depth_map.groups[0])]
    assert wrappers[:2] == ["model", "model._orig_mod"]


def test_a_parameter_that_is_gone_is_named() -> None:
    with pytest.raises(KeyError, match=r"Layer `stem` holds the parameter 'gone\.weight'"):
        Index(nn.Linear(1, 1)).named_parameters(Layer("stem", 0, ("gone.weight",)))


def test_plain_names_keep_other_parts() -> None:
    assert plain_name("_orig_mod.a._orig_mod.b") == "a.b"
    assert plain_name("module.a") == "module.a"
