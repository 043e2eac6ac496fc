from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_transfer.depth.execution import by_execution
from lightning_transfer.depth.tree import build_tree


class Net(nn.Module):
    """Registered backwards; one child is never called, and a list is called only through its members."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.ModuleList([nn.Linear(2, 2)])
        self.norm = nn.BatchNorm1d(2)
        self.second = nn.Linear(2, 2)
        self.first = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)
        self.drop = nn.Dropout()

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.third[0](self.norm(self.second(self.drop(self.first(x) * scale))))


@pytest.mark.parametrize("example", [torch.ones(3, 2), (torch.ones(3, 2), 2.0), {"x": torch.ones(3, 2), "scale": 2.0}])
def test_children_in_the_order_of_their_first_call(example: Any) -> None:
    ran, missed = by_execution(build_tree(Net()), set(), example)
    assert [node.path for node in ran] == ["first", "second", "third"]
    assert [node.path for node in missed] == ["unused"]


def test_a_forward_pass_leaves_no_trace() -> None:
    net = Net()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    by_execution(build_tree(net), set(), torch.ones(3, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert [module.training for module in net.modules()] == modes
    assert all(not module._forward_pre_hooks for module in net.modules())


def test_a_failed_forward_pass_leaves_no_trace_either() -> None:
    net = Net()
    with pytest.raises(RuntimeError):
        by_execution(build_tree(net), set(), torch.ones(3, 5))
    assert all(module.training and not module._forward_pre_hooks for module in net.modules())


def test_the_head_is_left_out_and_a_single_child_is_looked_into() -> None:
    outer = nn.Sequential(Net())
    ran, _ = by_execution(build_tree(outer), {"0.second.weight", "0.second.bias"}, torch.ones(3, 2))
    assert [node.path for node in ran] == ["0.first", "0.third"]
