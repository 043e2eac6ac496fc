from __future__ import annotations

import torch
from torch import nn

from lightning_transfer.depth.tree import build_tree


def test_every_parameter_is_met_under_a_name_that_the_root_knows() -> None:
    net = nn.Sequential(nn.Linear(2, 2), torch.compile(nn.Sequential(nn.BatchNorm1d(2))))
    tree = build_tree(net)
    assert [name for _, name, _ in tree.all_parameters()] == [name for name, _ in net.named_parameters()]
    assert [path for path, _, _ in tree.all_parameters()] == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert tree.size == 10


def test_averaged_and_parallel_models_are_looked_through() -> None:
    inner = nn.Linear(2, 2)
    for wrapper in (nn.DataParallel(inner), torch.optim.swa_utils.AveragedModel(inner)):
        tree = build_tree(wrapper)
        assert (type(tree.module), tree.name, tree.wrappers) == (nn.Linear, "module", [""])
        assert [path for path, _, _ in tree.all_parameters()] == ["weight", "bias"]


def test_wrappers_around_wrappers_are_all_taken_off() -> None:
    root = nn.Module()
    root.net = nn.DataParallel(torch.compile(nn.Sequential(nn.Linear(2, 2))))
    node = build_tree(root).children[0]
    assert (node.path, node.wrappers) == ("net", ["net", "net.module"])
    assert node.find("net.0") is node.find("net.module._orig_mod.0")


def test_a_module_registered_twice_appears_twice_and_a_cycle_once() -> None:
    block = nn.Linear(2, 2)
    net = nn.ModuleList([block, block])
    assert [node.path for node in build_tree(net).walk()] == ["", "0", "1"]
    assert build_tree(net).size == 6
    block.register_module("parent", net)
    assert [node.path for node in build_tree(net).walk()] == ["", "0", "1"]


def test_paths_relative_to_a_node() -> None:
    node = build_tree(nn.Sequential(nn.Sequential(nn.Linear(1, 1)))).children[0]
    assert (node.relative("0.0.weight"), node.last) == ("0.weight", "0")


def test_lazy_parameters_have_no_size_yet() -> None:
    assert build_tree(nn.LazyLinear(3)).size == 0
